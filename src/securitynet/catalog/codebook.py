"""The codebook: every code with its type, allowed values, range, and meaning, derived from `CatalogEntry`."""

from __future__ import annotations

import functools
import types
import typing
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from securitynet.catalog.code import Code
from securitynet.catalog.schema import CatalogEntry
from securitynet.errors import ConfigurationError, UnknownName
from securitynet.untrusted import parse_json

Kind = Literal["text", "choice", "integer", "number", "boolean", "list", "choices", "object"]


@dataclass(frozen=True, kw_only=True)
class CodeInfo(Code):
    """One code of the codebook: what its `Code` declares, and what the field of `CatalogEntry` adds to that.

    Attributes:
        name: Name of the field and of the column.
        kind: ``text``, ``choice`` (one of ``values``), ``integer``, ``number``, ``boolean``, ``list`` (of texts),
            ``choices`` (several of ``values``), or ``object`` (JSON).
        required: Whether every entry has it.
        values: Allowed values of a choice.
        low: Least allowed number.
        high: Greatest allowed number.
    """

    name: str
    kind: Kind
    required: bool
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    @property
    def option(self) -> str:
        """The command line's option: ``--topic-category``."""
        return "--" + self.name.replace("_", "-")

    @property
    def several(self) -> bool:
        """Whether an entry can have several values."""
        return self.kind in ("list", "choices")

    @property
    def numeric(self) -> bool:
        """Whether values are numbers, and so have ranges."""
        return self.kind in ("integer", "number")

    @property
    def categorical(self) -> bool:
        """Whether whole values are indexed as search terms, so that filters on them cost no scan."""
        return self.term or self.kind in ("choice", "choices", "list", "boolean")

    def parse(self, text: str) -> Any:
        """The value that a text stands for, validated; None for an empty one.

        Raises:
            ConfigurationError: If the text is no value of this code.
        """
        text = text.strip()
        if not text:
            return () if self.several else None
        value: Any = text
        if self.several:
            value = tuple(part.strip() for part in text.split(";") if part.strip())
        elif self.kind == "object":
            try:
                value = parse_json(text)
            except ValueError as error:
                raise ConfigurationError(f"{self.name}: {text!r} is not JSON ({error}).") from None
        return self.check(value)

    def check(self, value: Any) -> Any:
        """``value`` in the field's own type.

        Raises:
            ConfigurationError: If it is not allowed; close choices are suggested.
        """
        try:
            return _adapter(self.name).validate_python(value)
        except ValidationError as error:
            if self.values:
                wrong = [item for item in ([value] if isinstance(value, str) else value) if item not in self.values]
                raise UnknownName(f"value of {self.name}", str(wrong[0] if wrong else value), self.values) from None
            raise ConfigurationError(f"{self.name}: {value!r} is not allowed: {error.errors()[0]['msg']}.") from None


@functools.cache
def load_codebook() -> dict[str, CodeInfo]:
    """All codes by name, in the order of `CatalogEntry`."""
    return {name: _code_info(name, field) for name, field in CatalogEntry.model_fields.items()}


def find_code(name: str) -> CodeInfo:
    """One code, dashes and underscores alike.

    Raises:
        UnknownName: If there is none of that name.
    """
    book = load_codebook()
    info = book.get(name.replace("-", "_"))
    if info is None:
        raise UnknownName("code", name, book)
    return info


def find_code_or_measured(name: str) -> CodeInfo:
    """One code, or a measured name such as ``accuracy.test``, as a code whose values are numbers.

    Raises:
        UnknownName: If it is neither: names of measurements have a dot, those of codes have none.
    """
    if "." not in name:
        return find_code(name)
    return CodeInfo(name=name, kind="number", required=False, group="Measured", meaning=f"{name}, as measured.",
                    ordered=True)  # fmt: skip


@functools.cache
def list_facet_codes() -> tuple[str, ...]:
    """Codes by which the page divides what it finds, in their order there."""
    return _ordered_by("facet")


@functools.cache
def list_overview_codes() -> tuple[str, ...]:
    """Codes of which ``catalog search`` prints a column, in their order."""
    return _ordered_by("overview")


def _ordered_by(attribute: str) -> tuple[str, ...]:
    places = {name: getattr(info, attribute) for name, info in load_codebook().items()}
    return tuple(sorted((name for name, place in places.items() if place is not None), key=lambda name: places[name]))


def as_json() -> list[dict[str, Any]]:
    """The codebook as JSON types, for other programs."""
    return [{"name": info.name} | asdict(info) for info in load_codebook().values()]


def as_markdown() -> str:
    """The codebook as tables, one a group."""
    lines = ["## Codebook", "", "Generated from `securitynet.catalog.schema.CatalogEntry`; do not edit.", ""]
    for group in dict.fromkeys(info.group for info in load_codebook().values()):
        lines += [
            f"## {group.capitalize()}",
            "",
            "| code | type | meaning | in the paper | example |",
            "|---|---|---|---|---|",
        ]
        for info in (info for info in load_codebook().values() if info.group == group):
            kind = " \\| ".join(info.values) if info.values else info.kind + (f", {info.unit}" if info.unit else "")
            example = f"`{info.example}`" if info.example else ""
            lines.append(f"| `{info.name}` | {kind} | {info.meaning} | {info.paper or ''} | {example} |")
        lines.append("")
    return "\n".join(lines)


@functools.cache
def _adapter(name: str) -> TypeAdapter[Any]:
    if name not in CatalogEntry.model_fields:
        return TypeAdapter(float)  # a measured name
    field = CatalogEntry.model_fields[name]
    annotation: Any = typing.Annotated[(field.annotation, *field.metadata)]
    return TypeAdapter(annotation)


def _code_info(name: str, field: FieldInfo) -> CodeInfo:
    described = next(item for item in field.metadata if isinstance(item, Code))
    inner, bounds = _unwrapped(field.annotation, [])
    kind, values = _kind(inner)
    numeric = kind in ("integer", "number")
    declared = {item.name: getattr(described, item.name) for item in fields(Code)}
    return CodeInfo(
        **declared | {"label": described.label or name.replace("_", " ")},
        name=name,
        kind=kind,
        required=field.is_required(),
        values=values,
        low=next((float(item.ge) for item in bounds if hasattr(item, "ge")), None) if numeric else None,
        high=next((float(item.le) for item in bounds if hasattr(item, "le")), None) if numeric else None,
    )


def _unwrapped(annotation: Any, bounds: list[Any]) -> tuple[Any, list[Any]]:
    """The bare type inside ``Annotated[...] | None``, and the constraints met on the way."""
    if get_origin(annotation) is typing.Annotated:
        base, *metadata = get_args(annotation)
        for item in metadata:
            bounds.extend(item.metadata if isinstance(item, FieldInfo) else [item])
        return _unwrapped(base, bounds)
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return _unwrapped(next(arm for arm in get_args(annotation) if arm is not type(None)), bounds)
    return annotation, bounds


def _kind(bare: Any) -> tuple[Kind, tuple[str, ...]]:
    if get_origin(bare) is Literal:
        return "choice", get_args(bare)
    if get_origin(bare) is tuple:
        item, _ = _unwrapped(get_args(bare)[0], [])
        return ("choices", get_args(item)) if get_origin(item) is Literal else ("list", ())
    if get_origin(bare) is dict:
        return "object", ()
    kinds: dict[Any, Kind] = {str: "text", bool: "boolean", int: "integer", float: "number"}
    return kinds[bare], ()
