"""What reports say about each family of trials: one module per family, named after it (`securitynet.records.FAMILIES`).

A family's module may define

- ``KINDS``: labels and units of its measurements, by the last dotted part of their name. A name
  that ends in ``@key=value`` is looked up as ``part@key``, and ``{value}`` in its label is filled in;
- ``sentences(document, trials)``: what its finished trials show; no sentence claims more than its interval.

A family without a module is still shown, with the names of its measurements as labels.
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


def find_family_kind(name: str) -> Kind | None:
    """The kind of a measurement by its dotted name; None if its family declares none.

    What stands between the trial's name and the measure, such as an attribute's name, comes before the label.
    """
    module = _module(name.partition(".")[0])
    match = _MEASURE.search(name)
    if module is None or match is None:
        return None
    kinds = cast(dict[str, Kind], getattr(module, "KINDS", {}))
    measure, key, value = match["measure"], match["key"], match["value"]
    known = kinds.get(f"{measure}@{key}" if key else measure)
    if known is None:
        return None
    between = [part for part in name[: match.start()].split(".")[2:] if part]
    label = known.label.format(value=value) if key else known.label
    return replace(known, label=": ".join([*between, label]))


def write_sentences(family: str, document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """What the finished trials of a family show; nothing if the family has no module.

    Args:
        family: Its name.
        document: The results of one target.
        trials: Its finished trials.
    """
    module = _module(family)
    say = cast("Sentences | None", getattr(module, "write_sentences", None))
    return say(document, trials) if say and trials else []


@cache
def _module(family: str) -> ModuleType | None:
    name = f"{__name__}.{family}"
    if not family.isidentifier() or importlib.util.find_spec(name) is None:
        return None
    return importlib.import_module(name)
