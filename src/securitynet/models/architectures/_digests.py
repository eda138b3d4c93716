"""A digest of a Python object by its content: source code, defaults, closures and what the code refers to.

It names architectures that are given as objects, so that models trained with them are found again by another run of
the same code, and never by a run of other code. An object whose content can't be seen gets a digest that no other run
has: its models are then trained again.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import secrets
import sys
import sysconfig
import textwrap
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from securitynet.files import hash_stably
from securitynet.models.architectures.code_names import list_names

DIGITS = 12
"""Length of a digest."""

_LIBRARIES = tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib"))


def digest_object(value: Any) -> str:
    """Twelve hexadecimal digits for the content of a function, class, module or value."""
    return hash_stably(_Description().describe(value), DIGITS)


class _Description:
    """A description of objects in JSON types, equal for equal content."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._described: list[Any] = []  # held, so that no address is used twice

    def describe(self, value: Any) -> Any:
        """Describe everything visible that decides an object's behaviour."""
        if value is None or type(value) in (bool, int, str):
            return [type(value).__name__, value]
        if isinstance(value, (float, complex, bytes, range, slice, enum.Enum)) or value is Ellipsis:
            return [type(value).__name__, repr(value)]
        if isinstance(value, (torch.dtype, torch.device, torch.Size)):
            return str(value)
        if id(value) in self._numbers:
            return ["again", self._numbers[id(value)]]
        self._numbers[id(value)] = len(self._numbers)
        self._described.append(value)
        return self._compound(value)

    def _compound(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return ["tensor", str(value.dtype), list(value.shape), digest_tensor(value)]
        if isinstance(value, np.ndarray) and value.dtype != object:
            content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
            return ["array", str(value.dtype), list(value.shape), content]
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__, _version(value.__name__)]
        if isinstance(value, functools.partial):
            return ["partial", *map(self.describe, (value.func, value.args, value.keywords))]
        if isinstance(value, types.MethodType):
            return ["method", self.describe(value.__self__), self.describe(value.__func__)]
        if isinstance(value, (staticmethod, classmethod)):
            return [type(value).__name__, self.describe(value.__func__)]
        if isinstance(value, property):
            return ["property", *map(self.describe, (value.fget, value.fset))]
        if isinstance(value, types.BuiltinFunctionType):
            return ["built in", value.__qualname__, _version(str(value.__module__))]
        if isinstance(value, (type, types.FunctionType)):
            if _is_library(value.__module__):
                return ["library", f"{value.__module__}.{value.__qualname__}", _version(value.__module__)]
            return self._class(value) if isinstance(value, type) else self._function(value)
        if isinstance(value, nn.Module):
            return self._network(value)
        if isinstance(value, Mapping):
            return ["mapping", [[self.describe(key), self.describe(item)] for key, item in value.items()]]
        if isinstance(value, (list, tuple)):
            return [type(value).__name__, [self.describe(item) for item in value]]
        if isinstance(value, (set, frozenset)):
            return ["set", sorted(hash_stably(_Description().describe(item)) for item in value)]
        return self._instance(value)

    def _function(self, function: Any) -> Any:
        closure = [_content(cell) for cell in function.__closure__ or ()]
        return [
            "function",
            self._source(function) or self._code(function.__code__),
            self.describe(function.__defaults__),
            self.describe(function.__kwdefaults__),
            [self.describe(value) for value in closure],
            self._references(function),
        ]

    def _class(self, cls: type) -> Any:
        source = self._source(cls)
        members = [(name, member) for name, member in vars(cls).items() if not _is_bookkeeping(name)]
        functions = [inspect.unwrap(getattr(member, "__func__", member)) for _, member in members]
        return [
            "class",
            source or [[name, self.describe(member)] for name, member in members],
            [self.describe(base) for base in cls.__bases__],
            [self._references(member) for member in functions if isinstance(member, types.FunctionType)],
        ]

    def _references(self, function: types.FunctionType) -> Any:
        """Return what a function's code looks up outside itself, with the values of the user's own modules."""
        names = list_names(function.__code__)
        references = []
        for name in sorted(names.looked_up & function.__globals__.keys()):
            value = function.__globals__[name]
            references.append([name, self.describe(value)])
            if isinstance(value, types.ModuleType) and not _is_library(value.__name__):
                used = [attribute for attribute in sorted(names.all) if hasattr(value, attribute)]
                references += [[f"{name}.{attribute}", self.describe(getattr(value, attribute))] for attribute in used]
        return references

    def _code(self, code: types.CodeType) -> Any:
        constants = [
            self._code(value) if isinstance(value, types.CodeType) else self.describe(value) for value in code.co_consts
        ]
        return ["code", code.co_code.hex(), constants, list(code.co_names), list(code.co_varnames)]

    def _network(self, network: nn.Module) -> Any:
        """Classes, settings and hooks of the layers; of the tensors, their names, shapes and constant values."""
        layers = []
        for name, layer in network.named_modules():
            settings = {
                key: value
                for key, value in sorted(vars(layer).items())
                if key != "training" and not key.startswith("_") and not isinstance(value, (torch.Tensor, nn.Module))
            }
            hooks = [*layer._forward_hooks.values(), *layer._forward_pre_hooks.values()]
            layers.append(
                [name, self.describe(type(layer)), self.describe(settings), [self.describe(h) for h in hooks]]
            )
        tensors = [
            [name, str(tensor.dtype), list(tensor.shape), bool(getattr(tensor, "requires_grad", False))]
            for name, tensor in network.state_dict().items()
        ]
        return ["network", layers, tensors]

    def _instance(self, value: Any) -> Any:
        if not _is_library(type(value).__module__) and hasattr(value, "__dict__"):
            return ["object", self.describe(type(value)), self.describe(dict(sorted(vars(value).items())))]
        words = repr(value)
        return ["object", type(value).__qualname__, words if " at 0x" not in words else secrets.token_hex(8)]

    @staticmethod
    def _source(value: Any) -> str | None:
        try:
            return textwrap.dedent(inspect.getsource(value))
        except (OSError, TypeError, SyntaxError, IndentationError):
            return None


def digest_tensor(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's numbers."""
    content = tensor.detach().cpu().contiguous()
    return hashlib.sha256(content.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # assigned later than the function was made


def _is_bookkeeping(name: str) -> bool:
    return name in ("__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__", "__static_attributes__")


def _is_library(module: str | None) -> bool:
    """Whether something was installed, so that a version stands for its source code."""
    if module is None or module == "__main__":
        return False
    if module.partition(".")[0] in ("builtins", "securitynet"):
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return module in sys.builtin_module_names or module.partition(".")[0] in sys.stdlib_module_names
    path = Path(file).resolve()
    return "site-packages" in path.parts or "dist-packages" in path.parts or str(path).startswith(_LIBRARIES)


def _version(module: str) -> str:
    return str(getattr(sys.modules.get(module.partition(".")[0]), "__version__", ""))
