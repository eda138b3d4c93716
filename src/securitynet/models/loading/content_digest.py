"""Digests of models that are given as objects: weights, structure, settings and code stand where a reference stood.

Networks with equal digests give equal outputs, in this process or another, so cached signals and finished trials can
be reused. Opaque objects (sessions, connections, compiled functions) have no such digest, so a callable is identified
within the process only.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import itertools
import secrets
import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from securitynet.models.architectures.code_names import list_names
from securitynet.models.sources.weights import state_checksum

_DEPTH = 12
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.Size, torch.memory_format, range, slice)
_BOOKKEEPING = frozenset(
    {"training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_is_full_backward_hook"}
    | {"_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks", "_state_dict_pre_hooks", "__weakref__"}
    | {"_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "__doc__", "__dict__", "__annotations__"}
    | {"__module__", "__firstlineno__", "__static_attributes__", "_abc_impl", "__abstractmethods__"}
    | {"__annotate_func__", "__annotate__", "__annotations_cache__", "__parameters__", "__orig_bases__"}
)
_PROCESS = secrets.token_hex(16)
_identities: dict[int, tuple[int, object]] = {}  # the objects stay alive, so that no identity is given out twice
_numbers = itertools.count()


def digest_network(network: nn.Module) -> str:
    """SHA-256 of what decides the outputs of a network in evaluation mode: weights, layers, settings and code.

    The code consists of the network's own classes and hooks, and of the functions and constants that they use; code of
    installed libraries is represented by its name.

    Args:
        network: In any mode, on any device.
    """
    digester = _Digester()
    digester.add(network)
    tensors = dict(network.named_parameters(remove_duplicate=False)) | dict(
        network.named_buffers(remove_duplicate=False)
    )
    leaves = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor) and tensor.is_leaf}
    return state_checksum(leaves, f"object:{digester.hexdigest()}")


def digest_callable(function: object) -> str:
    """Digest that identifies a callable within this process; no other process computes the same one.

    It covers the weights and settings that the code of the callable refers to: if the callable uses a global network,
    the digest changes when that network is trained further.

    Args:
        function: Any callable.
    """
    digester = _Digester(identities=True)
    digester.add(function)
    return hashlib.sha256(f"{_PROCESS}\0{digester.hexdigest()}".encode()).hexdigest()


class _Digester:
    """Hashes an object and everything it refers to.

    Args:
        identities: Whether opaque objects are represented by their identity in this process; else by their type.
    """

    def __init__(self, *, identities: bool = False) -> None:
        self._hash = hashlib.sha256()
        self._identities = identities
        self._seen: dict[int, int] = {}
        self._alive: list[object] = []

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def _put(self, *words: str | bytes) -> None:
        for word in words:
            data = word.encode("utf-8", "surrogatepass") if isinstance(word, str) else word
            self._hash.update(len(data).to_bytes(8, "little") + data)

    def add(self, value: Any, depth: int = 0) -> None:
        """Add a value and what it consists of."""
        if isinstance(value, _PLAIN):
            self._put(type(value).__name__, repr(value))
        elif isinstance(value, enum.Enum):
            self._put("enum", _name(type(value)), value.name)
        elif isinstance(value, torch.device):
            self._put("device")  # the device of a network does not change what it computes
        elif isinstance(value, types.ModuleType):
            self._put("module", value.__name__)
        elif id(value) in self._seen:
            self._put("again", str(self._seen[id(value)]))
        elif depth > _DEPTH:
            self._put("deep", _name(type(value)))
        else:
            self._seen[id(value)] = len(self._seen)
            self._alive.append(value)
            self._add_object(value, depth + 1)

    def _add_object(self, value: Any, depth: int) -> None:
        if isinstance(value, nn.Parameter | torch.Tensor):
            self._add_tensor(value)
        elif isinstance(value, np.ndarray | np.generic):
            self._put("array", str(value.dtype), str(np.shape(value)), np.ascontiguousarray(value).tobytes())
        elif isinstance(value, nn.Module):
            self._add_module(value, depth)
        elif isinstance(value, tuple | list):
            self._add_all(type(value).__name__, value, depth)
        elif isinstance(value, set | frozenset):
            self._add_all(type(value).__name__, sorted(value, key=repr), depth)
        elif isinstance(value, Mapping):
            self._put(type(value).__name__, str(len(value)))
            for key, item in value.items():
                self.add(key, depth)
                self.add(item, depth)
        elif isinstance(value, functools.partial):
            self._add_all("partial", (value.func, value.args, value.keywords), depth)
        elif isinstance(value, types.MethodType):
            self._add_all("method", (value.__func__, value.__self__), depth)
        elif isinstance(value, types.FunctionType):
            self._add_function(value, depth)
        elif isinstance(value, type):
            self._add_class(value, depth)
        elif isinstance(value, types.CodeType):
            self._add_code(value, depth)
        elif isinstance(value, staticmethod | classmethod):
            self.add(value.__func__, depth)
        elif isinstance(value, property):
            self.add(value.fget, depth)
        elif isinstance(value, types.BuiltinFunctionType) and isinstance(value.__self__, types.ModuleType | None):
            self._put("builtin", str(value.__module__), value.__qualname__)
        else:
            self._add_other(value, depth)

    def _add_all(self, what: str, values: Iterable[Any], depth: int) -> None:
        held = list(values)
        self._put(what, str(len(held)))
        for value in held:
            self.add(value, depth)

    def _add_tensor(self, tensor: torch.Tensor) -> None:
        if not tensor.is_leaf:
            self._put("computed")  # in each forward pass, from tensors that are hashed themselves
            return
        self._put("tensor", state_checksum({"": tensor.detach()}))

    def _add_module(self, module: nn.Module, depth: int) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            self._put("program", *(str(getattr(part, "code", "")) for part in module.modules()))
            return
        self._put("network")
        self.add(type(module), depth)
        self._add_attributes(vars(module), depth)
        for name in [*module._parameters, *module._buffers]:
            self._put("own tensor", name)
        if self._identities:  # a network that a callable uses counts with its weights
            for tensor in itertools.chain(module._parameters.values(), module._buffers.values()):
                self.add(tensor, depth)
        for name, child in module._modules.items():
            self._put("layer", name)
            self.add(child, 1)

    def _add_attributes(self, attributes: Mapping[str, Any], depth: int) -> None:
        for name in sorted(set(attributes) - _BOOKKEEPING):
            value = attributes[name]
            if name in ("_forward_hooks", "_forward_pre_hooks"):
                value = list(value.values())
            elif name.startswith(("_forward_hooks_", "_forward_pre_hooks_")):
                continue  # flags by numbers that count all hooks of a process
            self._put("attribute", name)
            self.add(value, depth)

    def _add_class(self, cls: type, depth: int) -> None:
        self._put("class", _name(cls))
        for base in cls.__mro__:
            if _of_library(base.__module__):
                self._put("base", _name(base))
            else:
                self._add_attributes(
                    {name: value for name, value in vars(base).items() if not name.startswith("__") or callable(value)},
                    depth,
                )

    def _add_function(self, function: types.FunctionType, depth: int) -> None:
        if _of_library(function.__module__):
            self._put("function", f"{function.__module__}.{function.__qualname__}")
            if not function.__closure__:
                return
        self.add(function.__code__, depth)
        self._add_all("defaults", (function.__defaults__, function.__kwdefaults__), depth)
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents, depth)
            except ValueError:  # not filled yet
                self._put("empty")
        if not _of_library(function.__module__):
            self._add_globals(function, depth)

    def _add_globals(self, function: types.FunctionType, depth: int) -> None:
        """Globals that the code refers to, and attributes of the user's own modules among them."""
        names = list_names(function.__code__)
        for name in sorted(names.looked_up & set(function.__globals__)):
            value = function.__globals__[name]
            self._put("global", name)
            self.add(value, depth)
            if isinstance(value, types.ModuleType) and not _of_library(value.__name__):
                for attribute in sorted(names.all):
                    if hasattr(value, attribute):
                        self._put("of", attribute)
                        self.add(getattr(value, attribute), depth)

    def _add_code(self, code: types.CodeType, depth: int) -> None:
        self._put("code", code.co_code, " ".join(code.co_names), " ".join(code.co_varnames), str(code.co_flags))
        self._add_all("constants", code.co_consts, depth)

    def _add_other(self, value: Any, depth: int) -> None:
        """Any other instance: its class and attributes, and its identity if identities count."""
        self._put("object")
        self.add(type(value), depth)
        attributes = getattr(value, "__dict__", None)
        if attributes is not None and type(value).__module__ != "builtins":
            self._add_attributes(attributes, depth)
        if self._identities:
            if id(value) not in _identities:
                _identities[id(value)] = next(_numbers), value
            self._put("identity", str(_identities[id(value)][0]))


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


@functools.cache
def _of_library(module: str | None) -> bool:
    """Whether a module belongs to Python or to an installed package, and not to the user's own code."""
    top = (module or "builtins").partition(".")[0]
    if top == "__main__":
        return False
    if top in sys.stdlib_module_names or top == "securitynet":
        return True
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
