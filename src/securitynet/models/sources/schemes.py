"""The schemes of model references: each is declared in the file that implements it, and read from there as text.

A file in ``models/sources`` (sources of torch networks) or ``models/targets/backends`` (models that give outputs only)
that contains ``SCHEME = Scheme(...)`` is an entry. So is a module that an installed package names as an entry point in
the group ``securitynet.sources`` or ``securitynet.backends``. The declaration consists of literals, so that parsing a
reference, listing the schemes and hashing a study's files import none of these modules, and no torch.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from securitynet.errors import ConfigurationError
from securitynet.registry import Entry, Registry

_DECLARATION = "SCHEME"
_TOP = re.compile(rf".*?^{_DECLARATION}\b.*?(\n(?![\s)])|\Z)", re.DOTALL | re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How a kind of model reference is written, and what it leads to. Every argument is written as a literal.

    Attributes:
        name: The part before the colon.
        form: An example of a whole reference.
        remark: A remark on the form, for documentation.
        aliases: Further names with the same meaning (``https`` besides ``http``).
        network: Whether it leads to a torch network, so that white-box work is possible.
        takes_weights: Whether the network is built from scratch and ``--weights`` can fill it; such a network can also
            be trained.
        file: Whether it names a file on this machine, whose digest is then part of a target's key in studies.
        folders: Whether a name that starts with ``.``, ``/`` or ``~`` is a folder on this machine, whose digest is then
            part of the key too.
        address: Whether the whole reference is a URL.
        code: Whether it names code that runs when it is opened.
        recorded: Whether it holds outputs for given records with their labels, and none for new images.
        suffixes: Suffixes of the files that it reads.
        magic: (offset, bytes) pairs, any of which identifies such a file by its content.
        members: Patterns of names, each of which matches some file in such a zip archive, or in such a folder.
        completion: Text that must follow the path of such a file to make a whole reference (``:FACTORY``).
        pattern: Regular expression for the text after the colon, with the groups ``name`` and, if it has one,
            ``detail``.
        mismatch: What is wrong with a reference that does not match the pattern, as the end of a sentence.
        mark: Separator between the name and the detail.
        options: Loading options that only some schemes have and this one supports, without dashes.
        trust: What the user allows with ``--trust``, if the model cannot be opened without running code from it.
        libraries: Installed packages whose versions determine the network that is built, besides its name.
        install: Command that installs them, if this package does not depend on them.
    """

    name: str
    form: str
    remark: str = ""
    aliases: tuple[str, ...] = ()
    network: bool = False
    takes_weights: bool = False
    file: bool = False
    folders: bool = False
    address: bool = False
    code: bool = False
    recorded: bool = False
    suffixes: tuple[str, ...] = ()
    magic: tuple[tuple[int, bytes], ...] = ()
    members: tuple[str, ...] = ()
    completion: str = ""
    pattern: str = "(?P<name>.+)"
    mismatch: str = "is not complete"
    mark: str = "@"
    options: tuple[str, ...] = ()
    trust: str = ""
    libraries: tuple[str, ...] = ()
    install: str = ""

    @property
    def example(self) -> str:
        """The form with its remark."""
        return f"{self.form} ({self.remark})" if self.remark else self.form


@dataclasses.dataclass(frozen=True)
class SchemeEntry(Entry):
    """A registered scheme.

    Attributes:
        scheme: What its file declares.
    """

    scheme: Scheme


class SchemeRegistry(Registry):
    """Schemes by name, read from the files of a package and from entry points.

    Args:
        kind: ``source`` or ``backend``.
        package: Dotted name of the package with one file per scheme.
        base: Name of the class of which each file defines one subclass; None if each defines the function ``function``.
        function: Name of the function that each file defines.
    """

    def __init__(self, kind: str, *, package: str, base: str | None = None, function: str = "") -> None:
        super().__init__(kind, package=package, base=base)
        self._function = function

    @cached_property
    def entries(self) -> Mapping[str, SchemeEntry]:
        """All schemes by name; built on first use, without importing any of them.

        Raises:
            ConfigurationError: If a plug-in does not declare its scheme.
        """
        entries: dict[str, SchemeEntry] = {}
        for package, path in _files(self._package or ""):
            entry = _read_entry(f"{package}.{path.stem}", path, self._function)
            if entry is not None:
                entries[entry.name] = entry
        for point in importlib.metadata.entry_points(group=f"securitynet.{self.kind}s"):
            module, _, attribute = point.value.partition(":")
            file = _module_file(module)
            entry = None if file is None else _read_entry(module, file, attribute or self._function)
            if entry is None:
                raise ConfigurationError(
                    f"The plug-in {point.value} declares no scheme.",
                    hint=f"Write {_DECLARATION} = Scheme(...) at the top level of its module, with literals only.",
                )
            entries.setdefault(entry.name, entry)
        return dict(sorted(entries.items()))


class AllSchemes(Registry):
    """The schemes of several registries as one, for listing and parsing.

    Args:
        kind: What the entries are, in the singular.
        registries: The registries; the earlier one takes precedence if two have a scheme of one name.
    """

    def __init__(self, kind: str, *registries: SchemeRegistry) -> None:
        super().__init__(kind)
        self._registries = registries

    @cached_property
    def entries(self) -> Mapping[str, SchemeEntry]:
        """The entries of all registries by name."""
        joined: dict[str, SchemeEntry] = {}
        for registry in self._registries:
            joined.update((name, entry) for name, entry in registry.entries.items() if name not in joined)
        return joined

    @property
    def schemes(self) -> list[Scheme]:
        """The declarations of all schemes."""
        return [entry.scheme for entry in self.entries.values()]

    @cached_property
    def by_name(self) -> Mapping[str, Scheme]:
        """The schemes by their names and aliases."""
        return {name: scheme for scheme in self.schemes for name in (scheme.name, *scheme.aliases)}


def _files(package: str) -> Iterator[tuple[str, Path]]:
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(location).glob("*.py")):
            yield package, path


def _module_file(module: str) -> Path | None:
    """Locate the file of a module without importing the packages that contain it."""
    first, *rest = module.split(".")
    spec = importlib.util.find_spec(first)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    for location in spec.submodule_search_locations or []:
        stem = Path(location, *rest)
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                return path
    return None


def _read_entry(module: str, path: Path, function: str) -> SchemeEntry | None:
    """Read the declaration in a file; None if it declares no scheme. Nothing is imported."""
    # The text after the declaration is not parsed: for all files, that would take longer than the rest of the command
    # line needs to start.
    top = _TOP.match(path.read_text(encoding="utf-8"))
    if top is None:
        return None
    tree = ast.parse(top[0])
    call = next(filter(None, map(_declaration, tree.body)), None)
    if call is None:
        return None
    try:
        scheme = Scheme(
            *(ast.literal_eval(argument) for argument in call.args),
            **{keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords},
        )
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{path.name} declares its scheme wrongly: {error}",
            hint="The arguments of Scheme(...) are literals; see the recipe for a backend in docs/extend.md.",
        ) from error
    words = (ast.get_docstring(tree) or "").strip().partition("\n")[0].rstrip(".")
    return SchemeEntry(scheme.name, f"{module}:{function}", f"{words}: {scheme.example}", scheme)


def _declaration(statement: ast.stmt) -> ast.Call | None:
    targets: list[Any] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    named = any(isinstance(target, ast.Name) and target.id == _DECLARATION for target in targets)
    value = getattr(statement, "value", None)
    return value if named and isinstance(value, ast.Call) else None


SOURCES = SchemeRegistry("source", package="securitynet.models.sources", function="open_source")
"""Schemes that lead to a torch network: each file defines ``open_source(reference) -> NetworkSource``."""

BACKENDS = SchemeRegistry("backend", package="securitynet.models.targets.backends", base="Backend")
"""Schemes of models that give outputs only: each file defines one `Backend` with the class method ``open``."""

SCHEMES = AllSchemes("kind of model", SOURCES, BACKENDS)
"""Every scheme of a model reference."""
