"""Constants of training code, read from Python files and notebooks as text: nothing is imported or run."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from securitynet.catalog.known import find_dataset_facts
from securitynet.errors import RefusedFile
from securitynet.scan.constants import (
    IMAGENET,
    StatedNormalization,
    list_keyed,
    make_normalization,
    pair_named_values,
)
from securitynet.scan.dataset_names import find_named_dataset, list_named_datasets
from securitynet.scan.evaluate import evaluate_expression, list_assigned, list_values
from securitynet.untrusted import read_bytes

MAX_BYTES = 1 << 20
MAX_FILES = 300
"""Files of code that are read in one repository; the rest is left out."""

_MODULES = frozenset({"datasets", "torchvision", "dset", "dsets", "tv", "data", "ds"})
_LOADERS = frozenset({"load_dataset", "load"})
_BUILDERS = {"create_model": "timm", "get_model": "torchvision", "ptcv_get_model": "pytorchcv"}
"""Functions that make a network of a library by its name."""

_DEEPEST = 50
"""Blocks in blocks, or branches after one ``if``, in which constants are looked for."""

_MAGIC = re.compile(r"\s*[%!?]")

_OF_DATA = re.compile(r"(_?(DataModule|DataLoaders?|Dataset|Data))$")
"""What classes of datasets bear after the dataset's name."""

PLAIN = re.compile(r"[A-Za-z0-9_.]{1,100}")
"""Names of networks in a library; others, such as ``hf_hub:owner/name``, would be addresses or files."""

_ZOO = frozenset({"models", "tvm", "tvmodels", "torchvision_models"})
"""Names under which code imports ``torchvision.models``."""

_OPTIONS = {"dataset": "datasets", "data": "datasets"} | dict.fromkeys(("arch", "model", "net", "network"), "libraries")
"""Options of a script, without their dashes -> what their default says."""


@dataclass
class TrainingCode:
    """What one file of code says.

    Attributes:
        path: The file.
        text: Its code.
        datasets: Names of datasets, as the catalog spells them, that it loads.
        mentioned: Those that it mentions anywhere, as in a path or a comment.
        normalizations: Constants of each call of ``Normalize``; where a call takes names, those that the file defines.
        class_names: Lists of names that it calls classes.
        networks: Class of a network -> names of the layers that it makes.
        factories: Class of a network -> functions without arguments that make it; itself, if it needs none.
        libraries: Networks of libraries that it makes: references such as ``timm:resnet18``.
    """

    path: Path
    text: str
    datasets: list[str] = field(default_factory=list)
    mentioned: list[str] = field(default_factory=list)
    normalizations: list[StatedNormalization] = field(default_factory=list)
    class_names: list[tuple[str, ...]] = field(default_factory=list)
    networks: dict[str, frozenset[str]] = field(default_factory=dict)
    factories: dict[str, list[str]] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)


def read_code_files(paths: list[Path]) -> list[TrainingCode]:
    """Read files of code; those that are not Python are left out.

    Args:
        paths: Files of one repository.
    """
    codes = []
    for path in sorted(paths)[:MAX_FILES]:
        code = read_code(path)
        if code is not None:
            codes.append(code)
    return codes


def read_code(path: Path) -> TrainingCode | None:
    """Read one file; None if it is too large or no Python.

    Args:
        path: A ``.py`` or ``.ipynb`` file.
    """
    try:
        if not path.is_file():
            return None
        text = read_bytes(path, MAX_BYTES).decode("utf-8", "replace")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        cells = _list_cells(text) if path.suffix == ".ipynb" else None
        text = text if cells is None else "\n".join(cells)
        # Lines of a notebook for the shell and for itself are no Python.
        python = text if cells is None else "\n".join(line for line in cells if not _MAGIC.match(line))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in other people's texts
            tree = ast.parse(python)
    except (RefusedFile, OSError, ValueError, SyntaxError, RecursionError, MemoryError, TypeError, AttributeError):
        return None
    code = TrainingCode(path, text, mentioned=list_named_datasets(text))
    used = {item.id for item in ast.walk(tree) if isinstance(item, ast.Name)}
    values = list_values(tree)
    functions = [item for item in tree.body if isinstance(item, ast.FunctionDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            _read_call(node, values, code)
        elif isinstance(node, ast.Attribute):
            _read_attribute(node, code)
        elif isinstance(node, ast.ImportFrom):
            _read_import(node, used, code)
        elif isinstance(node, ast.Assign):
            _read_assignment(node, code)
        elif isinstance(node, ast.ClassDef):
            layers = frozenset(_layers(node))
            if layers:
                code.networks[node.name] = layers
                makers = [item.name for item in functions if _makes(item, node.name)]
                code.factories[node.name] = [node.name] if _needs_nothing(node) else makers
    _read_constants(tree.body, None, code)
    return code


def _list_cells(text: str) -> list[str]:
    """The lines of the code cells of a notebook."""
    lines: list[str] = []
    for cell in json.loads(text)["cells"]:
        if cell.get("cell_type") == "code":
            source = cell.get("source", "")
            lines += ("".join(source) if isinstance(source, list) else str(source)).splitlines()
    return lines


def _read_call(node: ast.Call, values: Mapping[str, Any], code: TrainingCode) -> None:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in ("Normalize", "normalize", "dict"):
        given = {word.arg: word.value for word in node.keywords}
        found: dict[str, Any] = {
            word: evaluate_expression(given[word], values) for word in ("mean", "std") if word in given
        }
        if name == "Normalize" and len(node.args) == 1 and isinstance(node.args[0], ast.Starred):
            both = evaluate_expression(node.args[0].value, values)
            found |= dict(zip(("mean", "std"), both, strict=False)) if isinstance(both, list | tuple) else {}
        elif name == "Normalize":
            found |= {
                word: evaluate_expression(item, values) for word, item in zip(("mean", "std"), node.args, strict=False)
            }
        item = make_normalization(found.get("mean"), found.get("std"))
        code.normalizations += [item] if item is not None else []
        return
    if name == "transforms" and not node.args and "_Weights" in code.text:  # weights.transforms() of torchvision
        code.normalizations.append(StatedNormalization(*IMAGENET))
        return
    if name == "add_argument":
        _read_option(node, code)
        return
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    module = str(getattr(owner, "attr", None) or getattr(owner, "id", ""))
    first = _literal(node.args[0]) if node.args else None
    if name in _BUILDERS and isinstance(first, str) and PLAIN.fullmatch(first):
        code.libraries.append(f"{_BUILDERS[name]}:{first}")
    elif module in _ZOO and name.islower():
        code.libraries.append(f"torchvision:{name}")
    if name == "load_data":  # keras.datasets.cifar10.load_data()
        facts = find_dataset_facts(module)
    elif name in _LOADERS and isinstance(first, str):  # load_dataset("cifar10"), tfds.load("mnist")
        facts = find_dataset_facts(first.rpartition("/")[2])
    else:  # torchvision.datasets.MNIST is read as an attribute
        facts = find_dataset_facts(_OF_DATA.sub("", name)) if name and name[0].isupper() and owner is None else None
    if facts is not None:
        code.datasets.append(facts.name)


def _read_attribute(node: ast.Attribute, code: TrainingCode) -> None:
    """A class of a module of datasets, called or not: ``loader = {"mnist": datasets.MNIST}[name]``."""
    module = str(getattr(node.value, "attr", None) or getattr(node.value, "id", ""))
    facts = find_dataset_facts(node.attr) if node.attr[0].isupper() and module in _MODULES else None
    code.datasets += [facts.name] if facts is not None else []


def _read_import(node: ast.ImportFrom, used: set[str], code: TrainingCode) -> None:
    """What is imported from torchvision by name, and used."""
    for name in (alias.name for alias in node.names if (alias.asname or alias.name) in used):
        if node.module == "torchvision.datasets" and (facts := find_dataset_facts(name)) is not None:
            code.datasets.append(facts.name)
        elif str(node.module).startswith("torchvision.models") and name.islower() and PLAIN.fullmatch(name):
            code.libraries.append(f"torchvision:{name}")


def _read_option(node: ast.Call, code: TrainingCode) -> None:
    """The default of a script's option: ``add_argument("--dataset", default="cifar100")``."""
    names = [str(_literal(argument)).strip("-").replace("-", "_") for argument in node.args]
    default = next((_literal(word.value) for word in node.keywords if word.arg == "default"), None)
    meaning = next((_OPTIONS[name] for name in names if name in _OPTIONS), None)
    if not isinstance(default, str) or meaning is None:
        return
    if meaning == "datasets" and (facts := find_dataset_facts(default)) is not None:
        code.datasets.append(facts.name)
    elif meaning == "libraries" and PLAIN.fullmatch(default):
        code.libraries += [f"timm:{default}", f"torchvision:{default}"]


def _read_constants(body: list[ast.stmt], dataset: str | None, code: TrainingCode, depth: int = 0) -> None:
    """Constants that a block of code defines by name, and those of the blocks in it; branches name their dataset."""
    values: dict[str, Any] = {}
    if depth > _DEEPEST:
        return
    for statement in body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                values |= _assigned(target, statement.value)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            values |= _assigned(statement.target, statement.value)
        elif isinstance(statement, ast.FunctionDef) and statement.args.defaults:
            defaults = statement.args.defaults
            code.normalizations += pair_named_values(
                {
                    argument.arg: _literal(value)
                    for argument, value in zip(statement.args.args[-len(defaults) :], defaults, strict=False)
                }
            )
        if isinstance(statement, ast.If):
            named = (_literal(part) for part in ast.walk(statement.test) if isinstance(part, ast.Constant))
            branch = next((name for word in named if (name := find_named_dataset(str(word)))), dataset)
            _read_constants(statement.body, branch, code, depth + 1)
            _read_constants(statement.orelse, dataset, code, depth + 1)
            continue
        inner = [getattr(statement, name, None) for name in ("body", "orelse", "finalbody")]
        for block in inner:
            if isinstance(block, list):
                _read_constants(block, dataset, code, depth + 1)
    code.normalizations += pair_named_values(values, dataset)
    for value in values.values():
        if isinstance(value, dict):
            code.normalizations += [
                *list_keyed(value),
                *pair_named_values({str(key): item for key, item in value.items()}),
            ]


def _assigned(target: ast.expr, value: ast.expr) -> dict[str, Any]:
    """Names and literal values of an assignment, also of several at once."""
    return {
        name: item for name, part in list_assigned(target, value) if (item := evaluate_expression(part, {})) is not None
    }


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


def _needs_nothing(node: ast.ClassDef) -> bool:
    """Whether an object of a class can be made without arguments."""
    made = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
    return made is None or _has_defaults(made.args, but=1)


def _makes(node: ast.FunctionDef, name: str) -> bool:
    """Whether a function needs no arguments and returns an object of a class."""
    if not _has_defaults(node.args):
        return False
    ends = [item.value for item in ast.walk(node) if isinstance(item, ast.Return)]
    return bool(ends) and all(isinstance(end, ast.Call) and getattr(end.func, "id", "") == name for end in ends)


def _has_defaults(arguments: ast.arguments, but: int = 0) -> bool:
    needed = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return needed <= but and None not in arguments.kw_defaults


def _layers(node: ast.ClassDef) -> Iterator[str]:
    """Names of attributes to which a class assigns the result of a call, as networks do with their layers."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assign | ast.AnnAssign) and isinstance(inner.value, ast.Call):
            for target in inner.targets if isinstance(inner, ast.Assign) else [inner.target]:
                if isinstance(target, ast.Attribute) and getattr(target.value, "id", "") == "self":
                    yield target.attr


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
