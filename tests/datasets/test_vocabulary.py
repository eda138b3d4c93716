"""One vocabulary of datasets: what the catalog writes and what the loader takes are the same to a user."""

from __future__ import annotations

import pytest

import securitynet.datasets
from securitynet.assessments.config import AssessConfig
from securitynet.catalog.known import find_dataset_facts
from securitynet.datasets.references import name_for_loading
from securitynet.datasets.registry import DATASETS
from securitynet.errors import DatasetError
from securitynet.models.training.config import TrainConfig


def test_every_dataset_that_loads_by_name_is_known_to_the_catalog() -> None:
    for name in DATASETS.names():
        if name in ("folder", "parquet"):
            continue
        facts = find_dataset_facts(name.removeprefix("medmnist-"))
        assert facts is not None and facts.reference == name
        assert name_for_loading(facts.name) == name == name_for_loading(name)


def test_configurations_take_either_spelling() -> None:
    for spelling in ("CIFAR-10", "cifar-10", "cifar10"):
        assert AssessConfig(model="arch:simple-cnn", dataset=spelling).dataset == "cifar10"
        assert TrainConfig(architecture="simple-cnn", dataset=spelling).weights_file.name.startswith(
            "simple-cnn-cifar10-"
        )
    assert AssessConfig(model="m", dataset="folder:CIFAR-10").dataset == "folder:CIFAR-10"


def test_the_loader_takes_either_spelling_and_knows_what_it_cannot_load() -> None:
    assert securitynet.datasets.load("Digits", limit=20).reference == "digits"
    with pytest.raises(DatasetError, match="GTSRB is known to the catalog, but cannot be loaded by name"):
        securitynet.datasets.load("gtsrb")
