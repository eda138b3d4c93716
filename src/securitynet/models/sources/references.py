"""Model references: how a user names a model, on the command line and in study files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlsplit

from securitynet.errors import ConfigurationError, SecurityNetError, suggest_names
from securitynet.files import expand_home, read_file_address
from securitynet.models.sources.foreign import explain_foreign
from securitynet.models.sources.schemes import SCHEMES, Scheme
from securitynet.models.sources.sniffing import find_other_kind, recognise
from securitynet.records import Record
from securitynet.untrusted import MAX_SETTINGS, parse_json, read_bytes

_WEIGHTS = (".pth", ".pt", ".th", ".tar", ".ckpt", ".bin", ".safetensors")


class ModelReference(Record):
    """A parsed reference.

    Attributes:
        scheme: Where the model comes from: a name in `SCHEMES`, or an alias of one.
        name: Name of the model, entry or repository; a path for files; the whole URL for endpoints.
        detail: Text after the name: torchvision's weights, a revision of a repository, a factory in a Python file.
    """

    scheme: str
    name: str
    detail: str | None = None

    def __str__(self) -> str:
        if self.declaration.address:
            return self.name
        return f"{self.scheme}:{self.name}" + (f"{self.declaration.mark}{self.detail}" if self.detail else "")

    @property
    def declaration(self) -> Scheme:
        """The declaration of its scheme."""
        return SCHEMES.by_name[self.scheme]

    @property
    def is_network(self) -> bool:
        """Whether it leads to a torch network."""
        return self.declaration.network

    @property
    def path(self) -> Path | None:
        """The file or folder that it names, with ``~`` expanded; None if it names something else."""
        if self.declaration.file or (self.declaration.folders and is_path(self.name)):
            return expand_home(self.name)
        return None

    def without_folders(self) -> ModelReference:
        """The reference with only the last part of its path: results name the model, not the machine."""
        return self if self.path is None else self.model_copy(update={"name": self.path.name})


def refuse_untyped(text: str, origin: str, remedy: str) -> None:
    """Raise `ConfigurationError` for a reference that the user did not write, unless it names a published model.

    Data made by others may name models of libraries, of the hub and of our own architectures. It may not run code, read
    files of this machine or send images to an address: those count only where the user typed or trusted them. Nothing
    is opened here.

    Args:
        text: The reference.
        origin: Where it was found, the beginning of a sentence.
        remedy: How the user allows it.
    """
    text = text.strip()
    name, colon, rest = text.partition(":")
    scheme = SCHEMES.by_name.get(name) if colon else None
    if scheme is None:
        deed = "which would read a file of this machine"
    elif scheme.code:
        deed = "which would run code"
    elif scheme.address:
        deed = "which would send images there"
    elif scheme.file or (scheme.folders and is_path(rest)):
        deed = "which would read a file of this machine"
    elif scheme.name == "catalog":
        deed = "an entry of the catalog again"
    else:
        return
    raise ConfigurationError(
        f"{origin} refers to {text}, {deed}; that happens only where you name it yourself.",
        hint=f"If you trust it: {remedy}.",
    )


_CODE = re.compile(r"(?:^|[\s=,;\"'\[{(])(python:[^\s,;\"'\]})]+)")


def list_code(value: Any) -> Iterator[str]:
    """List the references to Python code in a configuration, including those within texts such as ``a.b=python:…``.

    Args:
        value: A string, or lists and mappings of strings at any depth.
    """
    if isinstance(value, str):
        yield from _CODE.findall(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from list_code(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from list_code(item)


def is_path(name: str) -> bool:
    """Whether a name is clearly that of a file or folder: it starts with ``/``, ``./``, ``../`` or ``~``."""
    return name.startswith(("/", "./", "../", "~")) or name in (".", "..")


def describe_forms() -> str:
    """An example of every scheme, joined by commas, for messages and help."""
    return ", ".join(scheme.example for scheme in SCHEMES.schemes)


def parse_reference(text: str) -> ModelReference:
    """Parse a reference. The path of an existing file whose content reveals its format is a reference too.

    Raises:
        ConfigurationError: If it is not a reference; the message suggests what may have been meant.
    """
    text = text.strip()
    name, colon, rest = text.partition(":")
    scheme = SCHEMES.by_name.get(name) if colon else None
    path = read_file_address(text if scheme is None else rest)
    if path is not None:
        raise ConfigurationError(
            f"{text!r} names a file by an address; files of models are named by their path.",
            hint=f"Write {path if scheme is None else f'{name}:{path}'}.",
        )
    if "://" in text:
        return _parse_address(text)
    if scheme is None:
        return _parse_path(text, name if colon else None)
    if scheme.address:
        raise ConfigurationError(f"{text!r} is not an address.", hint=f"Write it as {scheme.form}.")
    if not rest:
        raise ConfigurationError(f"{text!r} names no model.", hint=f"Write for example {scheme.form}.")
    match = re.fullmatch(r"(?P<name>.+)" if scheme.folders and is_path(rest) else scheme.pattern, rest)
    if match is None:
        raise ConfigurationError(f"{text!r} {scheme.mismatch}.", hint=f"Write {scheme.form}.")
    other = find_other_kind(expand_home(match["name"]), scheme) if scheme.file else None
    if other is not None:
        raise ConfigurationError(
            f"{text!r}: the content of this file is that of another kind of model.", hint=f"Write {other.name}:{rest}."
        )
    return ModelReference(scheme=name, name=match["name"], detail=match.groupdict().get("detail") or None)


def _parse_address(text: str) -> ModelReference:
    try:
        parts = urlsplit(text)
        scheme = SCHEMES.by_name.get(parts.scheme) if parts.hostname else None
    except ValueError:  # brackets that hold no address
        scheme = None
    if scheme is None or not scheme.address:
        forms = " or ".join(known.form for known in SCHEMES.schemes if known.address)
        raise ConfigurationError(f"{text!r} is not an address of a model.", hint=f"Endpoints are written {forms}.")
    if parts.username or parts.password:
        # A reference ends up in trial files and reports, which must not contain a password.
        raise ConfigurationError(
            "The address of the endpoint holds a user name or password.",
            hint="Leave it out and set the environment variable SECURITYNET_HTTP_TOKEN instead.",
        )
    return ModelReference(scheme=parts.scheme, name=text)


def _parse_path(text: str, scheme: str | None) -> ModelReference:
    """The reference for the path of an existing file or folder, if its content reveals its format."""
    path = expand_home(text)
    if not text or not path.exists():
        raise _not_understood(text, scheme)
    recognised = recognise(path)
    if recognised is None:
        foreign = explain_foreign(path)
        if foreign is not None:
            raise foreign
        if path.is_file() and path.suffix.lower() in _WEIGHTS:
            raise _network_missing(text)
        raise ConfigurationError(
            f"{text!r} is a {'folder' if path.is_dir() else 'file'} that holds no model of a known kind.",
            hint=f"A model is written {describe_forms()}.",
        )
    name = text if path.is_file() or is_path(text) else f"./{text}"
    if recognised.completion:
        raise _kind_missing(text, recognised)
    return ModelReference(scheme=recognised.name, name=name)


def _not_understood(text: str, scheme: str | None) -> ConfigurationError:
    from securitynet.models.architectures import ARCHITECTURES

    forms = f"A model is written {describe_forms()}."
    suffix = PurePath(text).suffix.lower()
    by_suffix = [known for known in SCHEMES.schemes if suffix in known.suffixes]
    if scheme is not None:
        close = suggest_names(scheme, SCHEMES.by_name, most=1)
        if close:
            return ConfigurationError(
                f"There is no kind of model {scheme!r} (in {text!r}).", hint=f"Did you mean {close}:…? {forms}"
            )
    elif by_suffix:
        return _kind_missing(text, by_suffix[0])
    elif suffix in _WEIGHTS:
        return _network_missing(text)
    elif text in ARCHITECTURES:
        return ConfigurationError(
            f"{text!r} does not say where the model comes from.",
            hint=f"Did you mean arch:{text} (with --weights), timm:{text} or torchvision:{text}?",
        )
    elif text.count("/") == 1 and not is_path(text):
        return ConfigurationError(f"{text!r} does not say where the model comes from.", hint=f"Did you mean hf:{text}?")
    return ConfigurationError(f"{text!r} is not a model reference.", hint=forms)


def _kind_missing(text: str, scheme: Scheme) -> ConfigurationError:
    return ConfigurationError(
        f"{text!r} does not say what kind of model it is.",
        hint=f"Did you mean {scheme.name}:{text}{scheme.completion}?",
    )


def _network_missing(text: str) -> ConfigurationError:
    known = _read_architecture(Path(text).with_suffix(".json"))
    example = known or "arch:cifar-resnet20"
    return ConfigurationError(
        f"{text!r} is a file of weights; which network they belong to must be said too.",
        hint=f"Write {'' if known else 'for example '}{shlex.quote(example)} --weights {shlex.quote(text)}.",
    )


def _read_architecture(record: Path) -> str | None:
    """The network that a model record beside the weights names; it is only shown, never opened."""
    try:
        document = parse_json(read_bytes(expand_home(str(record)), MAX_SETTINGS))
    except (SecurityNetError, OSError, ValueError):
        return None
    name = document.get("architecture") if isinstance(document, dict) else None
    if not isinstance(name, str) or len(name) > 200:
        return None
    return name if ":" in name else f"arch:{name}"
