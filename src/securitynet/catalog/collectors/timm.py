"""timm: its pretrained configurations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typing_extensions import override

from securitynet.catalog.collectors.base import LibraryCollector
from securitynet.catalog.collectors.facts import load_known_facts
from securitynet.catalog.importers.published import find_timm_claims
from securitynet.catalog.known import DATASETS, SECURITY, complete_entry, find_dataset_facts, find_security_codes
from securitynet.catalog.links import find_checksum_in_name
from securitynet.catalog.published import TIMM, choose_at_size, describe_source, load_packaged
from securitynet.catalog.store import Item

# Words of a tag that name a dataset only together, or in another spelling than the curated table's aliases.
_PHRASES = {
    "metaclip_400m": "metaclip400m",
    "metaclip_altogether": "metaclip2pt5b",
    "metaclip_2pt5b": "metaclip2pt5b",
    "metaclip2_worldwide": "metaclip2worldwide",
    "mclip2_dfndr2b": "dfndr2b",
    "mclip_lt": "mclip",
    "msft_florence2": "fld5b",
    "miil_in21k": "in21kp",
    "fcmae_ft": "in1k_ft",
    "mae_ft": "in1k_ft",
    "apple_pt": "aimv2mixture",
}
# Self-supervised on ImageNet-1k, which these tags leave unsaid.
_SELF_SUPERVISED = frozenset({"mae", "fcmae", "dino", "fb_dino"})
_SAM2 = frozenset({"fb_r896", "fb_r1024", "fb_r896_2pt1", "fb_r1024_2pt1"})
# Of these the papers tell the dataset, not timm.
_UNNAMED = _SELF_SUPERVISED | _SAM2 | {"apple_pt", "apple_pt_dist"}
# Sets whose images are not published: nobody outside can say what was in them.
_UNPUBLISHED = frozenset({"web image"})


class TimmCollector(LibraryCollector):
    """One entry per pretrained configuration: classifiers, and backbones that end in features or an embedding."""

    library = "timm"

    @override
    def collect(self) -> Iterator[Item]:
        self.version()
        # Here, so that the catalog does not depend on torch: only collecting from timm does.
        from securitynet.torchvision_cure import import_torchvision

        timm = import_torchvision("timm")
        registry = timm.models
        for name in timm.list_models(pretrained=True):
            if not timm.model_entrypoint(name.split(".")[0]).__module__.startswith("timm."):
                continue  # other packages register theirs when they are imported
            yield self._item(name, registry.get_pretrained_cfg(name), registry.get_pretrained_cfg(name.split(".")[0]))

    def _item(self, name: str, config: Any, default: Any) -> Item:
        architecture, _, tag = name.partition(".")
        dataset, pretraining = parse_training_data(tag)
        channels, height, width = config.input_size
        facts = load_known_facts().get(("timm", architecture))
        # The table was counted with the default head and size: it holds for what shares them.
        same_head = facts is not None and config.num_classes == default.num_classes
        same_size = same_head and facts is not None and facts.input_size == width
        task, head = _task(config)
        link = config.url or (f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else None)
        known = find_dataset_facts(dataset) if dataset else None
        published = known is not None and known.codes.get("topic_category") not in _UNPUBLISHED
        security = find_security_codes("timm", name)
        codes: dict[str, Any] = {
            "key": f"timm:{name}",
            "source": "timm",
            "name": name,
            "reference": f"timm:{name}",
            "revision": self.version(),
            "checksum": find_checksum_in_name(config.url or ""),
            "license": config.license if config.license != "unknown" else None,
            "weights_link": link,
            "code_link": config.origin_url or "https://github.com/huggingface/pytorch-image-models",
            "purpose": "benchmark",
            "publisher_type": "model library",
            "task_type": task,
            "head": head,
            "dataset": dataset,
            "pretraining": pretraining,
            "extra_data": bool(pretraining) if dataset else None,
            "membership": "assumed" if published else "unknown",
            "classes": config.num_classes if head == "classifier" else None,
            "image_height": height,
            "image_width": width,
            "image_channels": channels,
            "architecture": architecture,
            "parameters": facts.parameters if facts and same_head else None,
            "flops": facts.flops if facts and same_size else None,
            "elements": facts.elements if facts else (),
            "preprocessing": {
                "input_size": [channels, height, width],
                "crop_fraction": config.crop_pct,
                "crop": config.crop_mode,
                "interpolation": config.interpolation,
                "mean": list(config.mean),
                "std": list(config.std),
            },
        } | security
        sources = dict.fromkeys(security, SECURITY)
        if tag in _UNNAMED:
            sources["dataset"] = f"{DATASETS} ({dataset})"
        if facts:
            sources |= dict.fromkeys(("parameters", "flops", "elements"), f"counted:{facts.counted_with}")
        results = choose_at_size(load_packaged(TIMM).get(name, ()), height) if head == "classifier" else None
        if results is None:
            entry, filled = complete_entry(codes, sources)
            return Item(entry, filled)
        source = f"{describe_source(TIMM).address} ({results.facts['size']} px)"
        stated: dict[str, Any] = find_timm_claims(results)
        if codes["parameters"] is None:
            stated["parameters"] = int(results.facts["parameters"])  # in millions, to two decimals
        entry, filled = complete_entry(codes | stated, sources | dict.fromkeys(stated, source))
        return Item(entry, filled, results.measured(source))


def parse_training_data(tag: str) -> tuple[str | None, tuple[str, ...]]:
    """The dataset that a tag names last, and those before it.

    ``laion2b_ft_in12k_in1k`` gives ImageNet-1k, after LAION-2B and ImageNet-12k.
    """
    if tag in _SELF_SUPERVISED:
        return "ImageNet-1k", ()
    if tag in _SAM2:
        return "SA-V", ("SA-1B",)
    text = tag
    for phrase, alias in _PHRASES.items():
        text = text.replace(phrase, alias)
    datasets = [facts.name for word in text.split("_") if (facts := find_dataset_facts(word)) and len(word) > 2]
    if not datasets:
        return None, ()
    return datasets[-1], tuple(name for name in dict.fromkeys(datasets[:-1]) if name != datasets[-1])


def _task(config: Any) -> tuple[str, str]:
    """Task and head. A contrastive image tower's "classes" are the dimensions of its embedding."""
    if config.num_classes == 0:
        return "feature extraction", "none"
    _, _, tag = f"{config.architecture}.{config.tag}".partition(".")
    dataset, _ = parse_training_data(tag)
    facts = find_dataset_facts(dataset) if dataset else None
    web = facts is not None and facts.codes.get("topic_category") == "web image"
    # No published set of classes has fewer than a thousand here; Meta's perception encoders name no dataset.
    if web or (dataset is None and config.num_classes not in (1000,)):
        return "zero-shot classification", "embedding"
    return "classification", "classifier"
