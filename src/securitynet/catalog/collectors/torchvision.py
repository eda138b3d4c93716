"""torchvision: its weight enums, with the metrics, parameters and operations that they state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typing_extensions import override

from securitynet.catalog.collectors.base import LibraryCollector
from securitynet.catalog.collectors.facts import load_known_facts
from securitynet.catalog.known import complete_entry
from securitynet.catalog.links import find_checksum_in_name
from securitynet.catalog.store import Item


class TorchvisionCollector(LibraryCollector):
    """One entry per weight enum of torchvision's classifiers, quantized ones included."""

    library = "torchvision"

    @override
    def collect(self) -> Iterator[Item]:
        self.version()
        # Here, so that the catalog does not depend on torch: only collecting from torchvision does.
        from securitynet.torchvision_cure import import_torchvision

        models = import_torchvision("torchvision.models")
        quantized = import_torchvision("torchvision.models.quantization")
        for architecture in [*models.list_models(module=models), *models.list_models(module=quantized)]:
            for weights in models.get_model_weights(architecture):
                yield self._item(architecture, weights)

    def _item(self, architecture: str, weights: Any) -> Item:
        meta = weights.meta
        metrics = meta["_metrics"]["ImageNet-1K"]
        transforms = weights.transforms()
        crop = transforms.crop_size[0]
        recipe = str(meta.get("recipe", ""))
        swag = "SWAG" in weights.name
        # One enum holds valid weights for the features only.
        classifier = bool(meta.get("categories"))
        facts = load_known_facts().get(("torchvision", architecture.removeprefix("quantized_")))
        name = f"{architecture}@{weights.name}"
        codes: dict[str, Any] = {
            "key": f"torchvision:{name}",
            "source": "torchvision",
            "name": name,
            "reference": f"torchvision:{name}",
            "revision": self.version(),
            "checksum": find_checksum_in_name(weights.url),
            "license": "cc-by-nc-4.0" if meta.get("license") else "bsd-3-clause",
            "weights_link": weights.url,
            "code_link": "https://github.com/pytorch/vision",
            "purpose": "benchmark",
            "publisher_type": "model library",
            "task_type": "classification" if classifier else "feature extraction",
            "head": "classifier" if classifier else "none",
            "dataset": "ImageNet-1k",
            "classes": len(meta["categories"]) if classifier else None,
            "image_height": crop,
            "image_width": crop,
            "image_channels": 3,
            # SWAG weights were trained on Instagram images first; the others on ImageNet-1k alone.
            "pretraining": ("IG-3.6B (SWAG)",) if swag else (),
            "extra_data": swag,
            "membership": "assumed",
            "architecture": architecture.removeprefix("quantized_"),
            "parameters": int(meta["num_params"]),
            "flops": round(meta["_ops"] * 1e9) or None,
            "elements": facts.elements if facts else (),
            "preprocessing": {
                "input_size": [3, crop, crop],
                "resize": transforms.resize_size[0],
                "crop": "center",
                "interpolation": transforms.interpolation.value,
                "mean": list(transforms.mean),
                "std": list(transforms.std),
            },
            "claimed_accuracy": round(metrics["acc@1"] / 100, 6) if classifier else None,
            "claimed_top5": round(metrics["acc@5"] / 100, 6) if classifier else None,
            "notes": f"Recipe: {recipe}" if recipe else None,
        }
        entry, sources = complete_entry(codes, {"elements": f"counted:{facts.counted_with}"} if facts else None)
        return Item(entry, sources)
