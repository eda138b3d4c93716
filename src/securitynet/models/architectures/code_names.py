"""The names that a function's code refers to: what digests of code by content have to follow."""

from __future__ import annotations

import dis
import types
from dataclasses import dataclass

_LOOKUPS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})


@dataclass(frozen=True)
class CodeNames:
    """Names that code uses, those of the functions and classes defined inside it included.

    Attributes:
        looked_up: Names that are looked up among the globals.
        all: These and all others, such as names of attributes.
    """

    looked_up: frozenset[str]
    all: frozenset[str]


def list_names(code: types.CodeType) -> CodeNames:
    """List the names that code refers to.

    An attribute is not taken for a global of the same name, as ``co_names`` alone would have it.
    """
    looked_up = {str(step.argval) for step in dis.get_instructions(code) if step.opname in _LOOKUPS}
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = list_names(constant)
            looked_up |= inner.looked_up
            names |= inner.all
    return CodeNames(frozenset(looked_up), frozenset(names))
