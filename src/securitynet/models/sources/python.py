"""A network made by a function of the user.

This is the only source that runs code, because the user names it. Weights are still read as data only.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from securitynet.errors import ModelError, SecurityNetError
from securitynet.models.architectures.in_process import list_accepted_arguments
from securitynet.models.sources.base import NetworkSource, OpaqueNetwork, Shape
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme
from securitynet.models.sources.versions import digest_source_files
from securitynet.randomness import isolate_random_state

SCHEME = Scheme(
    "python",
    "python:path/to/file.py:factory",
    network=True,
    takes_weights=True,
    file=True,
    code=True,
    suffixes=(".py",),
    completion=":FACTORY",
    pattern=r"(?P<name>.+):(?P<detail>[^\W\d]\w*)",
    mismatch="does not say which function makes the network",
    mark=":",
)


_modules: dict[str, dict[str, ModuleType]] = {}
"""Modules that user code imported from its own folder: folder -> name -> module."""


def open_source(reference: ModelReference) -> NetworkSource:
    """Call the user's factory and describe the network that it makes.

    Raises:
        ModelError: If the file or the function does not exist, fails, or returns no network.
    """
    path, name = reference.path or Path(reference.name), reference.detail or ""
    digest = digest_source_files(path) if path.is_file() else ""
    factory = _load(path, name, digest)
    accepted = list_accepted_arguments(factory)

    def make(shape: Shape, _keys: frozenset[str]) -> nn.Module:
        values = {"num_classes": shape.num_classes, "channels": shape.channels, "image_size": shape.image_size}
        with _explained(f"{path.name}:{name}()"), _beside(path):
            network = factory(**{key: value for key, value in values.items() if key in accepted})
        network = getattr(network, "_orig_mod", network)  # of torch.compile, which would compile every copy anew
        if not isinstance(network, nn.Module):
            raise ModelError(
                f"{path.name}:{name}() returned {type(network).__name__}, not a torch.nn.Module.",
                hint="It should build and return the network.",
            )
        return OpaqueNetwork(network, has_modes=True) if isinstance(network, torch.jit.ScriptModule) else network

    return NetworkSource(
        architecture=f"python:{name}:{digest}",
        build=make,
        fixed_classes="num_classes" not in accepted,
        sized="image_size" in accepted,
        bring_own=True,
        on_meta=False,  # the code may read values of the network that it makes
    )


@functools.lru_cache(maxsize=16)
def _load(path: Path, name: str, digest: str) -> Callable[..., Any]:
    """The factory of a file; each version of the file, by its digest, is run once."""
    del digest
    if not path.is_file():
        raise ModelError(f"There is no Python file {path}.", hint="Write python:path/to/file.py:factory.")
    spec = importlib.util.spec_from_file_location(f"securitynet_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} is not a Python file.", hint="Its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look up a class's module there.
    sys.modules[spec.name] = module
    _forget_modules(path)  # another version of them may have been imported with another version of the file
    # Whether the file is run now or was before must not change the weights that are drawn next.
    with _explained(str(path)), _beside(path), isolate_random_state():
        spec.loader.exec_module(module)
    factory = getattr(module, name, None)
    if not callable(factory):
        offered = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ModelError(f"{path} defines no function {name!r}.", hint=f"It defines {', '.join(offered) or 'none'}.")
    return factory  # type: ignore[no-any-return]


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Let the code import the modules in its own folder, as it could when run as a script.

    Files of two folders may import different modules of one name, so that each folder has its own.
    """
    folder = str(path.resolve().parent)
    for other in [other for other in _modules if other != folder]:
        _take_out(other)
    sys.modules.update(_modules.setdefault(folder, {}))
    before = dict(sys.modules)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name, module in list(sys.modules.items()):
            if before.get(name) is not module and _lies_in(folder, name, module):
                _modules[folder][name] = module


def _lies_in(folder: str, name: str, module: ModuleType) -> bool:
    """Whether a module was found in the folder itself, and not in an environment of packages below it."""
    file, place = getattr(module, "__file__", None), Path(folder, *name.split("."))
    return file is not None and Path(file) in (place.with_suffix(".py"), place / "__init__.py")


def _take_out(folder: str) -> None:
    """Remove the modules of a folder from those that are imported; functions that use them go on working."""
    for name, module in _modules[folder].items():
        if sys.modules.get(name) is module:
            del sys.modules[name]


def _forget_modules(path: Path) -> None:
    """Let the modules beside a file be read again when they are imported next."""
    folder = str(path.resolve().parent)
    if folder in _modules:
        _take_out(folder)
        _modules[folder].clear()
    importlib.invalidate_caches()


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except SecurityNetError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may fail in any way
        raise ModelError(
            f"{what} failed: {type(error).__name__}: {error}", hint="Run it by itself to see where."
        ) from error
