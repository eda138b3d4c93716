"""Names of parts: ``train``, ``training_set``, ``Test``, ``valid`` and the like, distinguished from names of classes.

If parts were taken for classes, a classifier of cats and dogs would become one of ``training_set`` and ``test_set``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

TRAIN, TEST, VALIDATION = "train", "test", "validation"

_PARTS = {
    "train": TRAIN,
    "training": TRAIN,
    "trn": TRAIN,
    "test": TEST,
    "testing": TEST,
    "tst": TEST,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
}
_LIKE_VALIDATION = frozenset(("dev", "eval", "evaluation", "holdout", "heldout"))
_FILLERS = frozenset(
    [
        "set",
        "sets",
        "data",
        "dataset",
        "image",
        "images",
        "img",
        "imgs",
        "picture",
        "pictures",
        "photo",
        "photos",
        "split",
        "folder",
        "file",
        "files",
        "sample",
        "samples",
        "dir",
        "part",
    ]
)
_OF_NO_CLASS = frozenset(("unlabeled", "unlabelled"))
_DIVISIONS = _LIKE_VALIDATION | {"fold", "split", "subset", "partition", "query", "gallery", "pred", "prediction"}
_BEGINNING = re.compile(r"[\W\d_]*(train|test|val)", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_GLUED = re.compile(rf"({'|'.join(_PARTS)})({'|'.join(sorted(_FILLERS, key=len, reverse=True))})")


def _tokens(name: str) -> list[str]:
    """Split a name: ``trainingSet_2`` -> training, set, 2; ``testset`` -> test, set."""
    words: list[str] = []
    for token in _TOKEN.findall(name):
        glued = _GLUED.fullmatch(token.lower())
        words += glued.groups() if glued else [token.lower()]
    return words


def read_part(name: str) -> str | None:
    """The part that a name denotes, or None: ``Training``, ``training_set``, ``trainImages`` are ``train``."""
    tokens = _tokens(name)
    words = [token for token in tokens if token not in _FILLERS]
    return _PARTS.get(words[0]) if len(words) == 1 else None


def stands_for_validation(name: str) -> bool:
    """Whether a name beside a training part is another word for a validation part (``dev``, ``holdout``)."""
    words = [token for token in _tokens(name) if token not in _FILLERS]
    return "".join(words) in _LIKE_VALIDATION


def begins_like_part(name: str) -> bool:
    """Whether a name begins with that of a part, in whatever language it goes on: ``Trainingsdaten``, ``testes``."""
    return _BEGINNING.match(name) is not None


def looks_like_part(name: str, *, holds_folders: bool) -> bool:
    """Whether a name resembles that of a part so closely that it should not silently be taken for a class.

    Args:
        name: Name of a folder.
        holds_folders: Whether it contains folders, as parts do. Names that may well be those of a class
            (``train_station``, ``valid`` beside ``invalid``, ``split``) count only then.
    """
    tokens = _tokens(name)
    if read_part(name) in (TRAIN, TEST) or not _OF_NO_CLASS.isdisjoint(tokens):
        return True
    words = [token for token in tokens if token not in _FILLERS or token == "split"]
    numbered = bool(words) and words[0] in _DIVISIONS and all(len(word) == 1 or word.isdigit() for word in words[1:])
    return holds_folders and (numbered or stands_for_validation(name) or not _PARTS.keys().isdisjoint(tokens))


def name_parts(names: Sequence[str]) -> Mapping[str, list[str]]:
    """Part -> the names that denote it, if names of one kind share a common word (``seg_train``, ``seg_test``).

    Empty unless there is a training part.
    """
    plain: dict[str, list[str]] = {}
    for name in names:
        part = read_part(name) or (VALIDATION if stands_for_validation(name) else None)
        if part is not None:
            plain.setdefault(part, []).append(name)
    if TRAIN in plain:
        return plain
    groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for name in names:
        words = [token for token in _tokens(name) if token not in _FILLERS]
        kinds = [_PARTS[word] for word in words if word in _PARTS]
        rest = tuple(word for word in words if word not in _PARTS)
        if len(kinds) == 1:
            groups.setdefault(rest, {}).setdefault(kinds[0], []).append(name)
    # Two groups are classes with parts of their own (cat_train, dog_train), a layout that is not supported.
    alone = next(iter(groups.values())) if len(groups) == 1 else {}
    return alone if TRAIN in alone and len(alone) > 1 else {}
