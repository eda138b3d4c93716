"""pytorchcv: the table of models that its package holds (CIFAR-10, CIFAR-100, SVHN, CUB-200-2011, ImageNet-1k)."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typing_extensions import override

from securitynet.catalog.collectors.base import LibraryCollector, NotInstalled
from securitynet.catalog.collectors.facts import load_known_facts
from securitynet.catalog.known import complete_entry
from securitynet.catalog.store import Item

_RELEASES = "https://github.com/osmr/imgclsmob/releases/download"
# `cf` stands for three datasets of one image size; the name's end says which.
_SMALL = ("CIFAR-10", "CIFAR-100", "SVHN")
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_SMALL_MEAN, _SMALL_STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


class PytorchcvCollector(LibraryCollector):
    """One entry per classifier of the table whose weights are released."""

    library = "pytorchcv"

    @override
    def collect(self) -> Iterator[Item]:
        self.version()
        with self._table().open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                dataset = _dataset(row["model_name"], row["test_dataset"])
                # Rows without a checksum are architectures whose weights were never released.
                if dataset and row["checksum"] not in ("", "NA"):
                    yield self._item(row, dataset)

    def _table(self) -> Path:
        # Found without importing the package, which would import torch.
        spec = importlib.util.find_spec("pytorchcv")
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).rglob("model_metainfos.csv")):
                return path
        raise NotInstalled(
            f"pytorchcv {self.version()} holds no model_metainfos.csv.", hint="Install pytorchcv 0.0.73 or later."
        )

    def _item(self, row: dict[str, str], dataset: str) -> Item:
        name = row["model_name"]
        small = dataset in _SMALL
        side = _number(row["img_size"]) or (32 if small else 448 if name.startswith("ntsnet") else 224)
        error = row["error_value"]
        # Errors are percent without the point (0326 is 3.26 %): top-5 on ImageNet, else top-1.
        accuracy = round(1 - int(error) / 10_000, 6) if error not in ("", "NA") else None
        facts = load_known_facts().get(("pytorchcv", name))
        architecture = name
        for suffix in ("_cifar10", "_cifar100", "_svhn", "_cub"):
            architecture = architecture.removesuffix(suffix)
        scale = row["img_scale"]
        codes: dict[str, Any] = {
            "key": f"pytorchcv:{name}",
            "source": "pytorchcv",
            "name": name,
            "reference": f"pytorchcv:{name}",
            "revision": self.version(),
            "checksum": f"sha1:{row['checksum']}",
            "license": "mit",
            "weights_link": f"{_RELEASES}/{row['repo_release_tag']}/{name}-{error}-{row['checksum'][:8]}.pth.zip",
            "code_link": "https://github.com/osmr/imgclsmob",
            "purpose": "benchmark",
            "publisher_type": "model library",
            "task_type": "classification",
            "head": "classifier",
            "dataset": dataset,
            "image_height": side,
            "image_width": side,
            "image_channels": 3,
            "membership": "assumed",
            "extra_data": False,
            "architecture": architecture,
            "parameters": int(row["net_weights"]),
            "flops": facts.flops if facts else None,
            "elements": facts.elements if facts else (),
            ("claimed_top5" if dataset == "ImageNet-1k" else "claimed_accuracy"): accuracy,
            "preprocessing": {
                "input_size": [3, side, side],
                "mean": _SMALL_MEAN if small else _MEAN,
                "std": _SMALL_STD if small else _STD,
            }
            | ({"crop_fraction": float(scale), "crop": "center"} if scale not in ("", "NA") else {}),
            "notes": f"Weights converted from {row['remark']}" if row["remark"] not in ("", "NA") else None,
        }
        counted = f"counted:{facts.counted_with}" if facts else ""
        entry, sources = complete_entry(codes, {"flops": counted, "elements": counted} if facts else None)
        return Item(entry, sources)


def _dataset(name: str, test_dataset: str) -> str | None:
    if test_dataset == "cf":
        ends = {"_cifar10": "CIFAR-10", "_cifar100": "CIFAR-100", "_svhn": "SVHN"}
        return next((dataset for suffix, dataset in ends.items() if name.endswith(suffix)), None)
    return {"in1k": "ImageNet-1k", "cub": "CUB-200-2011"}.get(test_dataset)


def _number(text: str) -> int | None:
    return int(float(text)) if text not in ("", "NA") else None
