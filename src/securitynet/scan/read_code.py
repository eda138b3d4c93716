"""Constants of training code, read from Python files and notebooks as text: nothing is imported or run."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from securitynet.catalog.known import dataset_facts

MAX_BYTES = 1 << 20
MAX_FILES = 300
"""Files of code that are read in one repository; the rest is left out."""

_MODULES = frozenset({"datasets", "torchvision", "dset", "dsets", "tv", "data", "ds"})
_LOADERS = frozenset({"load_dataset", "load"})
_BUILDERS = {"create_model": "timm", "get_model": "torchvision", "ptcv_get_model": "pytorchcv"}
"""Functions that make a network of a library by its name."""

_PLAIN = re.compile(r"[A-Za-z0-9_.]{1,100}")
"""Names of networks in a library; others, such as ``hf_hub:owner/name``, would be addresses or files."""

_ZOO = frozenset({"models", "tvm", "tvmodels", "torchvision_models"})
"""Names under which code imports ``torchvision.models``."""


@dataclass
class TrainingCode:
    """What one file of code says.

    Attributes:
        path: The file.
        text: Its code.
        datasets: Names of datasets, as the catalog spells them, that it loads.
        normalizations: (mean, std) of each call of ``Normalize``.
        class_names: Lists of names that it calls classes.
        networks: Class of a network -> names of the layers that it makes.
        libraries: Networks of libraries that it makes: references such as ``timm:resnet18``.
    """

    path: Path
    text: str
    datasets: list[str] = field(default_factory=list)
    normalizations: list[tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=list)
    class_names: list[tuple[str, ...]] = field(default_factory=list)
    networks: dict[str, frozenset[str]] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)


def read_code_files(paths: list[Path]) -> list[TrainingCode]:
    """Read files of code; those that are not Python are left out.

    Args:
        paths: Files of one repository.
    """
    found = []
    for path in sorted(paths)[:MAX_FILES]:
        code = read_code(path)
        if code is not None:
            found.append(code)
    return found


def read_code(path: Path) -> TrainingCode | None:
    """Read one file; None if it is too large or no Python.

    Args:
        path: A ``.py`` or ``.ipynb`` file.
    """
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".ipynb":
            text = _notebook_code(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in other people's texts
            tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError, TypeError, AttributeError):
        return None
    code = TrainingCode(path, text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            _read_call(node, code)
        elif isinstance(node, ast.Assign):
            _read_assignment(node, code)
        elif isinstance(node, ast.ClassDef):
            layers = frozenset(_layers(node))
            if layers:
                code.networks[node.name] = layers
    return code


def _notebook_code(text: str) -> str:
    """The code cells of a notebook, without lines for the shell and the notebook itself."""
    lines: list[str] = []
    for cell in json.loads(text)["cells"]:
        if cell.get("cell_type") == "code":
            source = cell.get("source", "")
            cell_lines = ("".join(source) if isinstance(source, list) else str(source)).splitlines()
            lines += [line for line in cell_lines if not line.lstrip().startswith(("%", "!", "?"))]
    return "\n".join(lines)


def _read_call(node: ast.Call, code: TrainingCode) -> None:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name == "Normalize":
        arguments: list[ast.expr] = [*node.args, *(word.value for word in node.keywords if word.arg in ("mean", "std"))]
        numbers = [_numbers(argument) for argument in arguments[:2]]
        if len(numbers) == 2 and numbers[0] and numbers[1] and len(numbers[0]) == len(numbers[1]):
            code.normalizations.append((numbers[0], numbers[1]))
        return
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    module = str(getattr(owner, "attr", None) or getattr(owner, "id", ""))
    first = _literal(node.args[0]) if node.args else None
    if name in _BUILDERS and isinstance(first, str) and _PLAIN.fullmatch(first):
        code.libraries.append(f"{_BUILDERS[name]}:{first}")
    elif module in _ZOO and name.islower():
        code.libraries.append(f"torchvision:{name}")
    if name == "load_data":  # keras.datasets.cifar10.load_data()
        facts = dataset_facts(module)
    elif name in _LOADERS and isinstance(first, str):  # load_dataset("cifar10"), tfds.load("mnist")
        facts = dataset_facts(first.rpartition("/")[2])
    else:
        of_module = owner is None or module in _MODULES
        facts = dataset_facts(name) if name and name[0].isupper() and of_module else None
    if facts is not None:
        code.datasets.append(facts.name)


def _read_assignment(node: ast.Assign, code: TrainingCode) -> None:
    target = node.targets[0]
    name = getattr(target, "id", getattr(target, "attr", "")).lower()
    if "class" not in name and "label" not in name:
        return
    value = _literal(node.value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)) and len(value) > 1 and all(isinstance(item, str) for item in value):
        code.class_names.append(tuple(value))


def _layers(node: ast.ClassDef) -> Iterator[str]:
    """Names of attributes to which a class assigns the result of a call, as networks do with their layers."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assign) and isinstance(inner.value, ast.Call):
            for target in inner.targets:
                if isinstance(target, ast.Attribute) and getattr(target.value, "id", "") == "self":
                    yield target.attr


def _numbers(node: ast.expr) -> tuple[float, ...]:
    value = _literal(node)
    values = value if isinstance(value, (list, tuple)) else (value,)
    if values and all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in values):
        return tuple(float(item) for item in values)
    return ()


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
