"""DESIGN, section 1: functions begin with a verb, and a public name exists in one module only."""

import ast
import collections
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "securitynet"

COMMANDS = ("cli/", "web/api.py", "web/leaderboard.py", "web/pages.py", "web/studies.py", "catalog/migrations/")
"""Their functions are named like the command, the page or the migration."""

FAMILIES = {"draw", "list_lacking", "main", "open_source", "render", "write_sentences"}
"""Each module of a room defines these, and its registry or dispatcher calls them: a figure, an export, a source, ..."""

NOUNS = {
    "lacking", "points", "chart", "frame", "columns", "sentences", "caption", "values", "signs", "scores", "counts",
    "distances", "mean", "share", "correlation", "difference", "measured", "named", "compared", "joined", "of", "on",
    "between", "along", "margin", "entropy", "auc", "curve", "bound", "limits", "interval", "numbers", "percent",
    "level",
    "duration", "plural", "listed", "kind", "frontier", "risks", "shuffled", "stratified", "isolated", "configured",
}  # fmt: skip
"""Words that named functions here before they began with verbs."""


def list_public_functions() -> Iterator[tuple[str, str]]:
    """(module, function) of all public functions of modules, except commands, pages and migrations."""
    for path in sorted(SRC.rglob("*.py")):
        module = path.relative_to(SRC).as_posix()
        if module.startswith(COMMANDS):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield module, node.name


def test_no_two_public_classes_share_a_name():
    modules = collections.defaultdict(list)
    for path in SRC.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(path.name)
    assert {name: found for name, found in modules.items() if len(found) > 1} == {}


def test_no_two_public_functions_share_a_name():
    modules = collections.defaultdict(list)
    for module, name in list_public_functions():
        modules[name].append(module)
    assert {name: found for name, found in modules.items() if len(found) > 1 and name not in FAMILIES} == {}


def test_functions_are_not_named_by_nouns_and_participles():
    assert [(module, name) for module, name in list_public_functions() if name in NOUNS] == []
