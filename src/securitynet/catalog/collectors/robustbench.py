"""RobustBench: its published results, which this package carries, and the model lists of its own package.

The lists are read as text, where the package is installed: nothing of it is imported, so nothing of it runs.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typing_extensions import override

from securitynet.catalog.collectors.base import LibraryCollector
from securitynet.catalog.importers.published import DATASETS, convert_robustbench_row
from securitynet.catalog.known import complete_entry, find_family_codes
from securitynet.catalog.published import ROBUSTBENCH, PublishedModel, describe_source, load_packaged
from securitynet.catalog.store import Item


class RobustbenchCollector(LibraryCollector):
    """One entry per model of a dataset and threat model; the same weights under two threats are linked later."""

    library = "robustbench"
    # Its package pins versions of others that it needs to run, not to be read.
    install = "pip install --no-deps robustbench"

    @override
    def source(self) -> str:
        return f"robustbench {self.version()}" if _zoo() else str(describe_source(ROBUSTBENCH))

    @override
    def collect(self) -> Iterator[Item]:
        published = {name: rows[0] for name, rows in load_packaged(ROBUSTBENCH).items()}
        zoo = _zoo()
        for dataset in DATASETS:
            if zoo is None:
                break
            tree = ast.parse((zoo / f"{dataset}.py").read_text(encoding="utf-8"))
            bases = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
            for threat, name, definition in _models(tree):
                model = published.pop(f"{dataset}:{threat}:{name}", None)
                full_name = f"{dataset}:{threat}:{name}"
                listed = {"reference": f"robustbench:{full_name}"} | self._listed(definition, bases)
                yield _item(model or PublishedModel(full_name), listed)
        for model in published.values():
            yield _item(model, {})

    def _listed(self, model: dict[str, ast.expr], bases: dict[str, ast.ClassDef]) -> dict[str, Any]:
        """The codes that the package's own lists give."""
        identifier = model.get("gdrive_id")
        drive = str(identifier.value) if isinstance(identifier, ast.Constant) and identifier.value else None
        return {
            "revision": self.version(),
            "weights_link": f"https://drive.google.com/uc?id={drive}" if drive else None,
            "architecture": _architecture(model["model"], bases),
            **_torchvision_reference(model["model"]),
        }


def _zoo() -> Path | None:
    """The folder with the model lists of the installed package; None if it is not installed."""
    if not any(importlib.metadata.distributions(name="robustbench")):
        return None
    spec = importlib.util.find_spec("robustbench")
    zoo = Path(str(spec.origin)).parent / "model_zoo" if spec and spec.origin else None
    return zoo if zoo is not None and zoo.is_dir() else None


def _item(model: PublishedModel, listed: dict[str, Any]) -> Item:
    """An entry of the published results and what the package's lists add."""
    source = str(describe_source(ROBUSTBENCH))
    facts = convert_robustbench_row(model)
    given = {name: value for name, value in listed.items() if value is not None}
    if "architecture" in facts:
        given.pop("architecture", None)  # the published name says more than a class does
    name = str(facts["name"])
    year = re.match(r"[A-Za-z-]+?(20\d\d)", name)
    if year and "year" not in facts and facts["purpose"] == "security":
        given["year"] = int(year[1])
    if "_extra" in name and "extra_data" not in facts:
        given["extra_data"] = True  # the lists' own mark for models trained with data beyond the dataset
    sources = {code: source for code in facts if code not in given} if model.values else {}
    entry, filled = complete_entry(facts | given, sources)
    return Item(entry, filled, model.measured(describe_source(ROBUSTBENCH).address))


def _models(tree: ast.Module) -> Iterator[tuple[str, str, dict[str, ast.expr]]]:
    """Threat, name and definition of every model of a module."""
    lists: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            lists[node.targets[0].id] = node.value
    threats = next(value for name, value in lists.items() if name.endswith("_models"))
    for pair in _pairs(threats):
        if isinstance(pair.elts[0], ast.Attribute) and isinstance(pair.elts[1], ast.Name):
            for entry in _pairs(lists[pair.elts[1].id]):
                name, definition = entry.elts
                if isinstance(name, ast.Constant) and isinstance(definition, ast.Dict):
                    keys = [key.value for key in definition.keys if isinstance(key, ast.Constant)]
                    yield pair.elts[0].attr, str(name.value), dict(zip(map(str, keys), definition.values, strict=True))


def _pairs(node: ast.expr) -> Iterator[ast.Tuple]:
    """The (key, value) tuples of ``OrderedDict([...])``."""
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.List):
        for element in node.args[0].elts:
            if isinstance(element, ast.Tuple) and len(element.elts) == 2:
                yield element


def _architecture(model: ast.expr, bases: dict[str, ast.ClassDef]) -> str | None:
    """What the definition builds, if of a known family: a factory's name, a class or the one that it extends."""
    nodes = list(ast.walk(model))
    texts = [node.value.lower() for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    attributes = [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    classes = [
        "-".join([_snake(_root_class(node.id, bases)), *_numbers(model)])
        for node in nodes
        if isinstance(node, ast.Name)
    ]
    return next((name for name in [*texts, *attributes, *classes] if find_family_codes(name)), None)


def _root_class(name: str, bases: dict[str, ast.ClassDef]) -> str:
    while name in bases and bases[name].bases:
        parent = bases[name].bases[0]
        if not isinstance(parent, ast.Name) or parent.id == name:
            break
        name = parent.id
    return name


def _snake(name: str) -> str:
    name = re.sub(r"^(DM|Robust|Boosting|Cifar|LRR_)", "", name)
    return {"WideResNet": "wide_resnet", "PreActResNet": "preact_resnet", "WidePreActResNet": "wide_resnet"}.get(
        name, name.lower()
    )


def _numbers(model: ast.expr) -> list[str]:
    """Depth and width, as in WideResNet-28-10."""
    for node in ast.walk(model):
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            given = [keywords[name] for name in ("depth", "width", "widen_factor") if name in keywords] or node.args
            numbers = [str(item.value) for item in given if isinstance(item, ast.Constant) and type(item.value) is int]
            if numbers:
                return numbers[:2]
    return []


def _torchvision_reference(model: ast.expr) -> dict[str, str]:
    """The reference of torchvision's own first weights, where the list builds with ``pretrained=True``."""
    for node in ast.walk(model):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            pretrained = any(k.arg == "pretrained" and getattr(k.value, "value", None) is True for k in node.keywords)
            if node.func.value.id == "pt_models" and pretrained:
                return {"reference": f"torchvision:{node.func.attr}@IMAGENET1K_V1"}
    return {}
