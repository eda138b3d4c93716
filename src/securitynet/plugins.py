"""Attacks, detectors, defenses, datasets and architectures from one file of the user's own, without a package.

A class is registered under its name with dashes (``MyMargin`` becomes ``my-margin``, in its family), a function
``load_NAME(request)`` as the dataset NAME, and a function with the parameters of an architecture under its own name.
The file is the user's own and runs in this process; nothing in data names one.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from inspect import Parameter
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from securitynet.errors import ConfigurationError, SecurityNetError
from securitynet.registry import Registry

KINDS = {
    "Attack": "securitynet.attacks:ATTACKS",
    "Detector": "securitynet.detectors:DETECTORS",
    "Defense": "securitynet.defenses:DEFENSES",
    "Backdoor": "securitynet.backdoors:BACKDOORS",
}
"""Name of a base class -> where its kind is registered."""

DATASETS = "securitynet.datasets.registry:DATASETS"
ARCHITECTURES = "securitynet.models.architectures:ARCHITECTURES"

ARCHITECTURE_PARAMETERS = ("num_classes", "channels", "image_size")


def load_plugin(path: Path) -> list[str]:
    """Run a file of the user's own and register what it defines.

    Args:
        path: A Python file.

    Returns:
        What was registered: kind and name.

    Raises:
        ConfigurationError: If the file cannot be run, defines nothing that can be registered, a signature is wrong, or
            a name is taken; the message names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigurationError(f"There is no plug-in {path}.", hint="Give the path of a Python file.")
    module = _run(path)
    registered = []
    for name, value in list(vars(module).items()):
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        try:
            registered += list(_register(module, name, value))
        except ConfigurationError as error:
            raise ConfigurationError(f"The plug-in {path.name}: {error.message}", hint=error.hint) from error
    if not registered:
        raise ConfigurationError(
            f"The plug-in {path.name} defines no attack, detector, defense, dataset or architecture.",
            hint="Derive a class from a base class of securitynet, or define load_NAME(request); see docs/extend.md.",
        )
    return registered


def _run(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"securitynet_plugin_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"The plug-in {path.name} is not a Python file.", hint="Its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's own code may raise anything, or end
        del sys.modules[name]
        line = error.lineno if isinstance(error, SyntaxError) else _find_line(error, path)
        where = f", line {line}" if line else ""
        raise ConfigurationError(
            f"The plug-in {path.name} cannot be loaded{where}: {type(error).__name__}: {error}"
        ) from error
    return module


def _find_line(error: BaseException, path: Path) -> int | None:
    """The last line of the file in the traceback."""
    line, traceback = None, error.__traceback__
    while traceback is not None:
        if Path(traceback.tb_frame.f_code.co_filename) == path.resolve():
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def _register(module: ModuleType, name: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        base = next((base for base in KINDS if base in {cls.__name__ for cls in value.__mro__[1:]}), None)
        if base is None:
            return
        if inspect.isabstract(value):
            _check_completed(module, value)
            return
        _check_methods(value)
        if base in ("Attack", "Detector"):
            _check_threat_models(value)
        short = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()
        family = _find_family(value) if base == "Attack" else None
        if base == "Attack" and family is None:
            raise ConfigurationError(
                f"{name} belongs to no family of attacks.",
                hint="Derive it from a base class of a family, such as securitynet.attacks.membership.base.",
            )
        full = f"{family}.{short}" if family else short
        yield _add(KINDS[base], full, f"{module.__name__}:{name}", value.__doc__ or module.__doc__)
    elif inspect.isfunction(value) and name.startswith("load_"):
        if len(inspect.signature(value).parameters) != 1:
            raise ConfigurationError(f"{name} must take one argument, the request.", hint="See docs/extend.md.")
        short = name.removeprefix("load_").replace("_", "-")
        setattr(module, name, _check_source(value))
        yield _add(DATASETS, short, f"{module.__name__}:{name}", value.__doc__ or module.__doc__)
    elif inspect.isfunction(value) and tuple(inspect.signature(value).parameters)[:1] == ARCHITECTURE_PARAMETERS[:1]:
        _check_parameters(name, value, ARCHITECTURE_PARAMETERS)
        yield _add(ARCHITECTURES, name.replace("_", "-"), f"{module.__name__}:{name}", value.__doc__ or module.__doc__)


def _add(registry: str, name: str, location: str, text: str | None) -> str:
    module, _, attribute = registry.partition(":")
    registered: Registry = getattr(importlib.import_module(module), attribute)
    registered.register(name, location, (text or "").strip().partition("\n")[0])
    return f"{registered.kind} {name}"


def _find_family(cls: type) -> str | None:
    """The family of an attack, from the module of the class of ours that it derives from."""
    for base in cls.__mro__:
        match = re.match(r"securitynet\.attacks\.([a-z]+)\.", f"{base.__module__}.")
        if match:
            return match[1]
    return None


def _check_completed(module: ModuleType, cls: type) -> None:
    """Refuse a class that lacks methods, unless another one of the file completes it."""
    derived = [other for other in vars(module).values() if inspect.isclass(other) and cls in other.__mro__[1:]]
    if not derived:
        lacking = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise ConfigurationError(f"{cls.__name__} lacks {lacking}.", hint="See docs/extend.md.")


def _check_threat_models(cls: type) -> None:
    from securitynet.records import ThreatModel

    models = getattr(cls, "threat_models", None)
    if not isinstance(models, tuple) or not models or not all(isinstance(one, ThreatModel) for one in models):
        raise ConfigurationError(
            f"{cls.__name__}.threat_models must be a tuple of at least one securitynet.records.ThreatModel.",
            hint="Annotate it as a ClassVar; see docs/extend.md.",
        )


def _check_source(load: FunctionType) -> Callable[[Any], Any]:
    """A function that loads a dataset, with errors that name it."""
    from securitynet.datasets.source import Source

    @functools.wraps(load)
    def load_checked(request: Any) -> Source:
        name = f"{load.__name__} of the plug-in {Path(inspect.unwrap(load).__code__.co_filename).name}"
        try:
            source = load(request)
        except SecurityNetError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigurationError(f"{name} failed: {type(error).__name__}: {error}") from error
        if not isinstance(source, Source):
            raise ConfigurationError(f"{name} returns {type(source).__name__}, and must return a {Source.__name__}.")
        return source

    return load_checked


def _check_methods(cls: type) -> None:
    """Check that the public methods of a class take what those of ours that they replace take."""
    for name, member in vars(cls).items():
        bases = [base for base in cls.__mro__[1:] if base.__module__.startswith("securitynet.")]
        ours = next((vars(base)[name] for base in bases if name in vars(base)), None)
        member, ours = getattr(member, "__func__", member), getattr(ours, "__func__", ours)
        if not name.startswith("_") and inspect.isfunction(member) and inspect.isfunction(ours):
            _check_parameters(f"{cls.__name__}.{name}", member, tuple(inspect.signature(ours).parameters))


def _check_parameters(name: str, function: Any, expected: tuple[str, ...]) -> None:
    described = inspect.signature(function).parameters
    parameters, more = tuple(described), list(described.values())[len(expected) :]
    passed_on = {one.kind for one in described.values()} >= {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}
    required = [p for p in more if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not passed_on and (parameters[: len(expected)] != expected or required):
        raise ConfigurationError(
            f"{name} takes ({', '.join(parameters)}), and must take ({', '.join(expected)}).",
            hint="See docs/extend.md.",
        )
