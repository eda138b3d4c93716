"""What decides a network that a reference builds, besides its name: a library's version, or a digest of source code."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from securitynet.errors import ModelError
from securitynet.files import file_checksum
from securitynet.models.sources.references import ModelReference

_DIGITS = 32


def describe_builder(reference: ModelReference) -> str:
    """Versions and digests as text, for the keys of models that are trained; empty for our own architectures.

    Nothing is imported or run for it.

    Raises:
        ModelError: If the reference names a file that does not exist.
    """
    declared, path = reference.declaration, reference.path
    parts = [f"{library} {version}" for library in declared.libraries if (version := _installed(library)) is not None]
    if path is None:
        return ", ".join(parts)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    digest = digest_source_files(path) if path.suffix == ".py" else file_checksum(path)
    return ", ".join([*parts, f"sha256:{digest[:_DIGITS]}"])


def digest_source_files(path: Path) -> str:
    """A digest of a Python file and of the files beside it that it imports, and so on; of the file alone if none.

    Imports are read from the text. What is imported by a computed name is not seen.
    """
    root = path.resolve().parent
    files: dict[Path, None] = {path.resolve(): None}
    waiting = [path.resolve()]
    while waiting:
        for other in _imported_files(waiting.pop(), root):
            if other not in files:
                files[other] = None
                waiting.append(other)
    if len(files) == 1:
        return file_checksum(path)
    lines = sorted(f"{file.relative_to(root).as_posix()} {file_checksum(file)}" for file in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _imported_files(path: Path, root: Path) -> Iterator[Path]:
    """Files in a folder that a Python file imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # whoever runs it says so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(root, alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = root if node.level == 0 else path.parents[node.level - 1]
            if not start.is_relative_to(root):
                continue
            if node.module:
                yield from _files_of(start, node.module)
            for alias in node.names:
                yield from _files_of(start, ".".join(filter(None, (node.module, alias.name))))


def _files_of(start: Path, module: str) -> Iterator[Path]:
    """The files of a dotted module and of the packages around it, as far as they lie below a folder."""
    place = start
    for part in module.split("."):
        place = place / part
        for file in (place / "__init__.py", place.with_name(f"{part}.py")):
            if file.is_file():
                yield file


def _installed(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
