"""Model references: how a user names a model, on the command line and in study files (DESIGN, section 4)."""

from __future__ import annotations

import difflib
from pathlib import PurePath
from typing import Literal, get_args
from urllib.parse import urlsplit

from securitynet.errors import ConfigurationError
from securitynet.records import Record

Scheme = Literal[
    "timm", "torchvision", "pytorchcv", "hf", "arch", "python", "catalog", "onnx", "http", "https", "outputs"
]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

FORMS: dict[str, str] = {
    "timm": "timm:resnet18.a1_in1k",
    "torchvision": "torchvision:resnet50@IMAGENET1K_V2",
    "pytorchcv": "pytorchcv:resnet20_cifar10",
    "hf": "hf:owner/name",
    "arch": "arch:cifar-resnet20 (with --weights FILE)",
    "python": "python:path/to/file.py:factory",
    "catalog": "catalog:ENTRY-ID",
    "onnx": "onnx:path.onnx",
    "http": "http://host:port/predict",
    "https": "https://host/predict",
    "outputs": "outputs:recorded.npz",
}
"""An example of each scheme, for messages and documentation."""

_BY_SUFFIX = {
    ".onnx": "onnx:{}",
    ".npz": "outputs:{}",
    ".csv": "outputs:{}",
    ".parquet": "outputs:{}",
    ".py": "python:{}:FACTORY",
}
_WEIGHTS = (".pth", ".pt", ".th", ".tar", ".ckpt", ".bin", ".safetensors")


class ModelReference(Record):
    """A parsed reference.

    Attributes:
        scheme: Where the model comes from.
        name: Model, entry or repository name; a path for files; the whole URL for endpoints.
        detail: What follows the name: torchvision's weights, a revision of a repository, a factory in a Python file.
    """

    scheme: Scheme
    name: str
    detail: str | None = None

    def __str__(self) -> str:
        if self.scheme in ("http", "https"):
            return self.name
        mark = ":" if self.scheme == "python" else "@"
        return f"{self.scheme}:{self.name}" + (f"{mark}{self.detail}" if self.detail else "")

    @property
    def is_network(self) -> bool:
        """Whether it leads to a torch network, whose weights ``--weights`` can replace."""
        return self.scheme not in ("onnx", "http", "https", "outputs")


def parse_reference(text: str) -> ModelReference:
    """Parse what a user wrote.

    Raises:
        ConfigurationError: If it is no reference; the message suggests what may have been meant.
    """
    text = text.strip()
    if "://" in text:
        return _parse_url(text)
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in SCHEMES:
        raise _not_understood(text, scheme if colon else None)
    if scheme in ("http", "https"):
        raise ConfigurationError(f"{text!r} is not an address.", hint=f"Write it as {FORMS[scheme]}.")
    if not rest:
        raise ConfigurationError(f"{text!r} names no model.", hint=f"Write for example {FORMS[scheme]}.")
    if scheme == "python":
        path, colon, factory = rest.rpartition(":")
        if not path or not factory.isidentifier():
            raise ConfigurationError(
                f"{text!r} does not say which function makes the network.", hint=f"Write {FORMS['python']}."
            )
        return ModelReference(scheme="python", name=path, detail=factory)
    if scheme in ("torchvision", "hf"):
        name, _, detail = rest.partition("@")
        if scheme == "hf" and (name.count("/") != 1 or not all(name.split("/"))):
            raise ConfigurationError(f"{text!r} is not a repository of the hub.", hint=f"Write {FORMS['hf']}.")
        return ModelReference(scheme="hf" if scheme == "hf" else "torchvision", name=name, detail=detail or None)
    known: Scheme = next(s for s in SCHEMES if s == scheme)
    return ModelReference(scheme=known, name=rest)


def _parse_url(text: str) -> ModelReference:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"{text!r} is not an address of a model.", hint=f"Endpoints are written {FORMS['http']}."
        )
    if parts.username or parts.password:
        # A reference ends up in trial files and reports, where a password must not.
        raise ConfigurationError(
            "The address of the endpoint holds a user name or password.",
            hint="Leave it out and set the environment variable SECURITYNET_HTTP_TOKEN instead.",
        )
    return ModelReference(scheme="https" if parts.scheme == "https" else "http", name=text)


def _not_understood(text: str, scheme: str | None) -> ConfigurationError:
    from securitynet.models.architectures import ARCHITECTURES

    forms = "A model is written " + ", ".join(form for name, form in FORMS.items() if name != "https") + "."
    suffix = PurePath(text).suffix.lower()
    if scheme is not None:
        close = difflib.get_close_matches(scheme.lower(), SCHEMES, n=1, cutoff=0.5)
        if close:
            return ConfigurationError(
                f"There is no kind of model {scheme!r} (in {text!r}).", hint=f"Did you mean {close[0]}:…? {forms}"
            )
    elif suffix in _BY_SUFFIX:
        return ConfigurationError(
            f"{text!r} does not say what kind of model it is.", hint=f"Did you mean {_BY_SUFFIX[suffix].format(text)}?"
        )
    elif suffix in _WEIGHTS:
        return ConfigurationError(
            f"{text!r} is a file of weights; which network they belong to must be said too.",
            hint=f"Write for example arch:cifar-resnet20 --weights {text}.",
        )
    elif text in ARCHITECTURES:
        return ConfigurationError(
            f"{text!r} does not say where the model comes from.",
            hint=f"Did you mean arch:{text} (with --weights), timm:{text} or torchvision:{text}?",
        )
    elif text.count("/") == 1:
        return ConfigurationError(f"{text!r} does not say where the model comes from.", hint=f"Did you mean hf:{text}?")
    return ConfigurationError(f"{text!r} is not a model reference.", hint=forms)
