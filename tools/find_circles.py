#!/usr/bin/env python3
"""Find circles of files: modules that import each other, directly or over others.

Every import counts, wherever it stands: at the top, inside a function, for type checking alone, or through
`importlib.import_module` where a literal names the module. import-linter sees neither the last kind nor, with
``exclude_type_checking_imports``, the third.

    python tools/find_circles.py [SOURCE FOLDER]

Exit code 1 if there is a circle; the shortest one of each group of entangled files is printed.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

Graph = dict[str, dict[str, int]]
"""Module -> modules it imports -> line of the first such import."""


def read_imports(source: Path) -> Graph:
    """Who imports whom among the modules below a folder.

    Args:
        source: Folder that holds the top-level packages, such as ``src``.

    Raises:
        SyntaxError: If a file is no Python.
    """
    files = {name_module(path.relative_to(source)): path for path in sorted(source.rglob("*.py"))}
    graph: Graph = {}
    for module, path in files.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        imports: dict[str, int] = {}
        for name, line in list_imports(ast.parse(path.read_text(encoding="utf-8"), str(path)), package, files):
            if name != module:
                imports.setdefault(name, line)
        graph[module] = imports
    return graph


def name_module(path: Path) -> str:
    """The dotted name of a file, given relative to the source folder."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def list_imports(tree: ast.AST, package: str, known: Mapping[str, object]) -> Iterator[tuple[str, int]]:
    """Modules imported anywhere in a syntax tree, each with its line.

    Args:
        tree: Of one file.
        package: The package that relative imports start from.
        known: Modules that count. ``from a import b`` is an import of ``a.b`` where that is a module, else of ``a``.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in known:
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = resolve_relative(node.module or "", node.level, package)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                if name in known:
                    yield name, node.lineno
                elif base in known:
                    yield base, node.lineno
        elif isinstance(node, ast.Call) and is_import_call(node.func):
            arguments = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "name")]
            for argument in arguments:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    text = argument.value
                    level = len(text) - len(text.lstrip("."))
                    name = resolve_relative(text[level:], level, package)
                    if name in known:
                        yield name, node.lineno


def is_import_call(function: ast.expr) -> bool:
    """Whether a call imports a module by its name: ``importlib.import_module``, however it was imported."""
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def resolve_relative(name: str, level: int, package: str) -> str:
    """The absolute name of a relative import of ``level`` dots within ``package``."""
    if level == 0:
        return name
    parent = package.split(".")[: len(package.split(".")) - level + 1]
    return ".".join([*parent, name] if name else parent)


def group_entangled(graph: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    """Groups of two modules or more that reach each other (strongly connected components, Tarjan 1972), sorted."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []
    for root in graph:
        if root in order:
            continue
        order[root] = lowest[root] = len(order)
        stack.append(root)
        # Depth first without recursion: a chain of imports may be longer than Python's stack.
        path = [(root, iter(graph[root]))]
        while path:
            module, following = path[-1]
            for name in following:
                if name not in order:
                    order[name] = lowest[name] = len(order)
                    stack.append(name)
                    path.append((name, iter(graph[name])))
                    break
                if name in stack:
                    lowest[module] = min(lowest[module], order[name])
            else:
                path.pop()
                if path:
                    lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[module])
                if lowest[module] == order[module]:
                    at = stack.index(module)
                    if len(stack) - at > 1:
                        groups.append(sorted(stack[at:]))
                    del stack[at:]
    return sorted(groups)


def find_shortest_circle(graph: Mapping[str, Mapping[str, int]], group: list[str]) -> list[str]:
    """The shortest circle in a group of entangled modules; the first module is not repeated at its end."""
    inside = set(group)
    circles = []
    for start in group:
        before = {start: ""}
        queue = deque([start])
        while queue:
            module = queue.popleft()
            if start in graph[module]:
                circle = [module]
                while before[circle[0]]:
                    circle.insert(0, before[circle[0]])
                circles.append(circle)
                break
            for name in graph[module]:
                if name in inside and name not in before:
                    before[name] = module
                    queue.append(name)
    return min(circles, key=len)


def describe_circle(graph: Mapping[str, Mapping[str, int]], circle: list[str]) -> str:
    """One line an import: ``importer:line -> imported``."""
    following = [*circle[1:], circle[0]]
    return "\n".join(
        f"  {module}:{graph[module][name]} -> {name}" for module, name in zip(circle, following, strict=True)
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the circles below a folder; return 1 if there is one, else 0."""
    parser = argparse.ArgumentParser(description="Find circles of files.")
    parser.add_argument("source", nargs="?", type=Path, default=Path(__file__).parents[1] / "src")
    options = parser.parse_args(arguments)
    graph = read_imports(options.source)
    if not graph:
        parser.error(f"there is no Python file below {options.source}")
    groups = group_entangled(graph)
    for group in groups:
        print(f"Circle ({len(group)} files are entangled):")
        print(describe_circle(graph, find_shortest_circle(graph, group)))
    if not groups:
        print(f"No circle among {len(graph)} files.")
    return 1 if groups else 0


if __name__ == "__main__":
    sys.exit(main())
