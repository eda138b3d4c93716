"""One generic, lazy registry: names map to ``"module:attribute"``, which is imported on first use.

Three things fill a registry:

- a table of names, for kinds that share modules (datasets, architectures);
- a package: each module of it (and of its sub-packages, the *families*) defines one class. **The name is the file's
  name with dashes**, so that adding an attack is adding one file;
- entry points of other installed packages (group ``securitynet.<kind>s``), so that plug-ins need no change here.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from securitynet.errors import ConfigurationError, UnknownName, suggest_names

_CLASS = re.compile(r"^class ([A-Z]\w*)\(", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """An entry of a registry.

    Attributes:
        name: Its key, with its family before a dot where it has one (``membership.correctness``).
        location: ``"module:attribute"``, or ``"module:"`` when the module defines one class of the registry's base.
        summary: One line for listings.
    """

    name: str
    location: str
    summary: str

    @property
    def family(self) -> str | None:
        """The part of the name before the dot, or None."""
        return self.name.rpartition(".")[0] or None


class Registry:
    """A mapping from names to objects that are imported on demand.

    Args:
        kind: What the entries are, in the singular ("attack"); used in messages and for the entry-point group.
        table: name -> (location, summary) for entries that are listed by hand.
        package: Dotted name of a package whose modules each define one class.
        base: Name of the base class by which the class of such a module is recognised.
    """

    def __init__(
        self,
        kind: str,
        table: Mapping[str, tuple[str, str]] | None = None,
        *,
        package: str | None = None,
        base: str | None = None,
    ) -> None:
        self.kind = kind
        self._table = dict(table or {})
        self._package = package
        self._base = base

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        """All entries by full name; built on first use, without importing any of them."""
        entries = {name: Entry(name, location, summary) for name, (location, summary) in self._table.items()}
        if self._package:
            entries.update((entry.name, entry) for entry in _scan(self._package))
        for point in importlib.metadata.entry_points(group=f"securitynet.{self.kind}s"):
            entries.setdefault(point.name, Entry(point.name, point.value, _summarise_plugin(point)))
        return dict(sorted(entries.items()))

    def register(self, name: str, location: str, summary: str) -> None:
        """Add an entry to this process, for plug-ins that are a file.

        Args:
            name: Full name.
            location: ``"module:attribute"`` of a module that has been imported.
            summary: One line for listings.

        Raises:
            ConfigurationError: If another entry has the name.
        """
        known = self.entries.get(name)
        if known is not None and known.location != location:
            raise ConfigurationError(f"There is {self.kind} {name} already.", hint="Choose another name.")
        self.__dict__["entries"] = dict(sorted({**self.entries, name: Entry(name, location, summary)}.items()))

    def names(self, family: str | None = None) -> list[str]:
        """Full names, sorted; of one family if given."""
        return [name for name, entry in self.entries.items() if family is None or entry.family == family]

    def families(self) -> list[str]:
        """The families that have at least one entry."""
        return sorted({entry.family for entry in self.entries.values() if entry.family})

    def resolve(self, name: str) -> Entry:
        """The entry of a full name, or of a short one (without its family) that is unambiguous.

        Raises:
            UnknownName: If there is no such entry; close names are suggested.
            ConfigurationError: If a short name occurs in several families.
        """
        if name in self.entries:
            return self.entries[name]
        short = [entry for full, entry in self.entries.items() if full.rpartition(".")[2] == name]
        if len(short) > 1:
            choices = ", ".join(entry.name for entry in short)
            raise ConfigurationError(f"The {self.kind} name {name!r} is ambiguous.", hint=f"Write one of: {choices}.")
        if not short:
            raise UnknownName(self.kind, name, {full.rpartition(".")[2] for full in self.entries})
        return short[0]

    def get(self, name: str) -> Any:
        """Import and return the object that a name stands for.

        Raises:
            UnknownName: If there is no such entry.
            ConfigurationError: If its module does not define what the registry expects.
        """
        entry = self.resolve(name)
        module_name, _, attribute = entry.location.partition(":")
        module = importlib.import_module(module_name)
        if attribute:
            return getattr(module, attribute)
        classes = [
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and value.__module__ == module.__name__
            and not value.__name__.startswith("_")
            and any(ancestor.__name__ == self._base for ancestor in value.__mro__[1:])
        ]
        if len(classes) != 1:
            raise ConfigurationError(
                f"The module {module_name} should define one {self._base}; it defines {len(classes)}.",
                hint="Give each class its own file; put shared code into a file whose name starts with an underscore.",
            )
        return classes[0]

    @cached_property
    def class_names(self) -> Mapping[str, str]:
        """Name of each class -> full name of its entry; read as text, without importing any of them."""
        names: dict[str, str] = {}
        for entry in self.entries.values():
            module, _, attribute = entry.location.partition(":")
            if attribute:
                names.setdefault(attribute, entry.name)
                continue
            path = _path(self._package or "", module)
            classes = _CLASS.findall(path.read_text(encoding="utf-8")) if path else []
            own = entry.name.rpartition(".")[2].replace("-", "")
            for name in classes:
                if name.lower().startswith(own):  # others are what it uses
                    names.setdefault(name, entry.name)
        return names

    def get_class(self, name: str) -> Any:
        """Import and return a class by its own name, for attributes of a package.

        Raises:
            AttributeError: If there is none; close names are suggested.
        """
        if name[:1].isupper() and name in self.class_names:
            cls = self.get(self.class_names[name])
            if cls.__name__ == name:
                return cls
        close = suggest_names(name, self.class_names, most=1, cutoff=0.6) if name[:1].isupper() else ""
        hint = f" Did you mean {close}?" if close else ""
        raise AttributeError(f"There is no {self.kind} class {name!r}.{hint}")

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def _summarise_plugin(point: importlib.metadata.EntryPoint) -> str:
    """The first line of a plug-in's module, read as text, and the package that it is from."""
    source = point.dist.name if point.dist else "a plug-in"
    parts = point.module.split(".")
    places = [point.dist.locate_file("/".join(parts) + end) for end in (".py", "/__init__.py")] if point.dist else []
    for place in places:
        try:
            line = ast.get_docstring(ast.parse(Path(str(place)).read_text(encoding="utf-8")))
        except (OSError, SyntaxError, ValueError):
            continue
        if line:
            return f"{line.partition(chr(10))[0]} (from {source})"
    return f"from {source}"


def _path(package: str, module: str) -> Path | None:
    """The file of a module in a package, without importing it."""
    spec = importlib.util.find_spec(package)
    parts = module.removeprefix(f"{package}.").split(".")
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location, *parts).with_suffix(".py")
        if path.is_file():
            return path
    return None


def _scan(package: str) -> Iterator[Entry]:
    """Entries for the modules of a package and its sub-packages, read as text: nothing is imported.

    Modules called ``base`` and those that start with an underscore hold shared code and are skipped.
    """
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        root = Path(location)
        for path in sorted(root.rglob("*.py")):
            relative = path.relative_to(root).with_suffix("")
            if relative.name.startswith("_") or relative.name == "base" or len(relative.parts) > 2:
                continue
            if any(part.startswith("_") for part in relative.parts):
                continue
            name = ".".join(part.replace("_", "-") for part in relative.parts)
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            summary = docstring.strip().partition("\n")[0]
            yield Entry(name, f"{package}.{'.'.join(relative.parts)}:", summary)
