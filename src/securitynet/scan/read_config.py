"""Configuration of training (JSON, TOML, YAML), read as data: datasets, networks, constants and class names."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from securitynet.catalog.known import find_dataset_facts
from securitynet.errors import SecurityNetError
from securitynet.files import parse_toml
from securitynet.scan.candidates import Evidence
from securitynet.scan.constants import list_keyed, pair_named_values
from securitynet.scan.read_code import PLAIN, TrainingCode

try:
    from yaml import CSafeLoader as SafeLoader  # far faster, and an option of PyYAML
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]

logger = logging.getLogger(__name__)

SUFFIXES = (".json", ".yaml", ".yml", ".toml")
_MAX_BYTES = 1 << 16
_MAX_DEPTH = 12

_HUB = ("model.safetensors", "pytorch_model.bin")
_BESIDE = 0.95
"""Confidence in what the configuration of a hub's folder states."""

_DATA = re.compile(r"(^|_)data(_?sets?)?(_name|_type)?$", re.IGNORECASE)
_NETWORK = re.compile(r"(^|_)(model|arch|architecture|backbone|net|network|encoder)(_name|_type|s)?$", re.IGNORECASE)
_CLASSES = frozenset({"id2label", "classes", "class_names", "classnames", "labels", "label_names", "categories"})


class _UntaggedSafeLoader(SafeLoader):
    """PyYAML's safe loader, which makes plain values only; a value with a tag that it refuses is None, not an error."""


_UntaggedSafeLoader.add_constructor(None, lambda _loader, _node: None)


def read_config_file(path: Path) -> TrainingCode | None:
    """Read a file of configuration; None if it is too large or says nothing.

    Args:
        path: A file with one of the suffixes `SUFFIXES`.
    """
    try:
        if not path.is_file() or path.is_symlink() or path.stat().st_size > _MAX_BYTES:
            return None
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".json":
            tree = json.loads(text)
        elif path.suffix == ".toml":
            tree = parse_toml(text)
        else:
            tree = _parse_yaml(text)
        code = TrainingCode(path, text)
        for name, value in _walk(tree, "", 0, set()):
            _read_value(name, value, code)
    except (SecurityNetError, yaml.YAMLError, OSError, ValueError, RecursionError, MemoryError) as error:
        logger.info("The configuration %s could not be read, so it says nothing: %s", path, error)
        return None
    return code if code.datasets or code.normalizations or code.class_names or code.libraries else None


def read_beside(path: Path) -> list[Evidence]:
    """What the ``config.json`` of a hub's folder says about the weights beside it; empty if there is none.

    Args:
        path: The weights; others than those that the hub's libraries load say nothing.
    """
    file = path.parent / "config.json"
    if path.name not in _HUB or not file.is_file() or file.is_symlink() or file.stat().st_size > _MAX_BYTES:
        return []
    try:
        config = json.loads(file.read_text(encoding="utf-8", errors="replace"))
    except (ValueError, OSError, RecursionError):
        return []
    kinds = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(kinds, list) or not kinds or not str(kinds[0]).endswith("ForImageClassification"):
        return []
    labels, count = config.get("id2label"), config.get("num_labels")
    classes = len(labels) if isinstance(labels, dict) else count if isinstance(count, int) else 2
    values = {
        "reference": f"hf:{path.parent}",
        "architecture": str(config.get("model_type") or kinds[0]),
        "classes": classes,
        "head": "classifier",
        "task_type": "classification",
    }
    reason = "config.json beside the weights"
    return [Evidence(code=code, value=value, reason=reason, confidence=_BESIDE) for code, value in values.items()]


def _parse_yaml(text: str) -> Any:
    """The values of the one document in a text."""
    loader = _UntaggedSafeLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _walk(tree: Any, name: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Each value below, with its name; the ``name`` of a table bears the name of the table.

    A table or list that YAML's aliases repeat comes once: by them, a short text can describe endlessly many values.
    """
    if isinstance(tree, dict | list):
        if id(tree) in seen:
            return
        seen.add(id(tree))
    yield name, tree
    if depth > _MAX_DEPTH:
        return
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _walk(value, name if key in ("name", "type") else str(key), depth + 1, seen)
    elif isinstance(tree, list) and len(tree) < 1000:
        for value in tree:
            yield from _walk(value, name, depth + 1, seen)


def _read_value(name: str, value: Any, code: TrainingCode) -> None:
    if isinstance(value, dict):
        code.normalizations += [
            *pair_named_values({str(key): inner for key, inner in value.items()}),
            *list_keyed(value),
        ]
    names = list(value.values()) if isinstance(value, dict) else value
    if name.lower() in _CLASSES and isinstance(names, list) and all(isinstance(item, str) for item in names):
        code.class_names += [tuple(names)] if len(names) > 1 else []
    if not isinstance(value, str):
        return
    last = re.split(r"[./]", value)[-1]
    if _DATA.search(name) or "torchvision.datasets." in value:
        facts = find_dataset_facts(last) or find_dataset_facts(value)
        code.datasets += [facts.name] if facts is not None else []
    elif "torchvision.models." in value and PLAIN.fullmatch(last):
        code.libraries.append(f"torchvision:{last}")
    elif _NETWORK.search(name) and PLAIN.fullmatch(value):
        code.libraries += [f"timm:{value}", f"torchvision:{value}"]
