"""Collectors: entries harvested from installed model libraries, offline, and from the Hugging Face Hub.

A collector downloads no weights and executes nothing that a model's file holds.
"""

from __future__ import annotations

from securitynet.registry import Registry

COLLECTORS = Registry(
    "collector",
    {
        "timm": ("securitynet.catalog.collectors.timm:TimmCollector", "pretrained configurations of timm"),
        "torchvision": (
            "securitynet.catalog.collectors.torchvision:TorchvisionCollector",
            "weight enums of torchvision",
        ),
        "pytorchcv": ("securitynet.catalog.collectors.pytorchcv:PytorchcvCollector", "the model table of pytorchcv"),
        "robustbench": ("securitynet.catalog.collectors.robustbench:RobustbenchCollector", "RobustBench's model lists"),
        "robust-transfer": (
            "securitynet.catalog.collectors.robust_transfer:RobustTransferCollector",
            "robust ImageNet models of Salman et al. (2020), from the package's own table",
        ),
        "huggingface": (
            "securitynet.catalog.collectors.huggingface:HuggingFaceCollector",
            "the Hugging Face Hub (network)",
        ),
    },
)
"""All collectors by name; a plug-in adds its own by an entry point of the group ``securitynet.collectors``."""
