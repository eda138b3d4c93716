"""Datasets that are recognised by the names of their classes."""

from __future__ import annotations

from collections.abc import Iterable

_CLASSES = {
    "CIFAR-10": "airplane automobile bird cat deer dog frog horse ship truck",
    "STL-10": "airplane bird car cat deer dog horse monkey ship truck",
    "Fashion-MNIST": "tshirttop trouser pullover dress coat sandal shirt sneaker bag ankleboot",
}
_SYNONYMS = {
    "plane": "airplane",
    "aeroplane": "airplane",
    "car": "automobile",
    "tshirt": "tshirttop",
    "ankleboots": "ankleboot",
    "boot": "ankleboot",
    "trousers": "trouser",
}


def find_dataset_of(names: Iterable[str]) -> str | None:
    """The dataset that has exactly these classes, in any order and usual spelling; None if none has.

    Args:
        names: Names of classes, as code or a README lists them.
    """
    given = {_normalise(name) for name in names}
    for dataset, classes in _CLASSES.items():
        if given == {_normalise(name) for name in classes.split()}:
            return dataset
    return None


def _normalise(name: str) -> str:
    plain = "".join(character for character in name.casefold() if character.isalnum())
    return _SYNONYMS.get(plain, plain)
