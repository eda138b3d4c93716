"""What reports say of each family of trials, one module a family, found by its name (`securitynet.records.FAMILIES`).

A family's module may define

- ``KINDS``: what its measurements are called and how they are written, by the last dotted part of their name. A name
  that ends in ``@key=value`` is looked up as ``part@key``, and ``{value}`` in its label is filled in;
- ``sentences(document, trials)``: what its finished trials show, each computed, none claiming more than its interval.

A family without a module is shown all the same, under the names that its measurements have.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import cast

from securitynet.reports.kinds import Kind
from securitynet.results.document import ResultDocument, TrialSummary

Sentences = Callable[[ResultDocument, Sequence[TrialSummary]], list[str]]

_MEASURE = re.compile(r"(?P<measure>[^.@]+)(?:@(?P<key>[A-Za-z_-]+)=(?P<value>.+))?$")


def kind(name: str) -> Kind | None:
    """What a family's module says of a measurement by its dotted name; None if there is none, or it says nothing.

    What stands between the trial's name and the measure, such as an attribute's name, comes before the label.
    """
    module = _module(name.partition(".")[0])
    found = _MEASURE.search(name)
    if module is None or found is None:
        return None
    kinds = cast(dict[str, Kind], getattr(module, "KINDS", {}))
    measure, key, value = found["measure"], found["key"], found["value"]
    known = kinds.get(f"{measure}@{key}" if key else measure)
    if known is None:
        return None
    between = [part for part in name[: found.start()].split(".")[2:] if part]
    label = known.label.format(value=value) if key else known.label
    return replace(known, label=": ".join([*between, label]))


def sentences(family: str, document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """What a family's module says of its finished trials; nothing if it has no module."""
    module = _module(family)
    say = cast("Sentences | None", getattr(module, "sentences", None))
    return say(document, trials) if say and trials else []


@cache
def _module(family: str) -> ModuleType | None:
    name = f"{__name__}.{family}"
    if not family.isidentifier() or importlib.util.find_spec(name) is None:
        return None
    return importlib.import_module(name)
