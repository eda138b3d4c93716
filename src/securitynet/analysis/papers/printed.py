"""A number that a paper prints, and how the same number is computed from data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from securitynet.analysis.frames import Quantity
from securitynet.analysis.hypotheses.cases import Only, Prepare
from securitynet.analysis.hypotheses.tested import Test


@dataclass(frozen=True, eq=False)
class Printed:
    """A number that a paper prints.

    Attributes:
        name: Short identifier, unique.
        paper: Which paper.
        where: The place in it.
        what: What the number is, in words.
        estimand: How it is taken: within one dataset, pooled over datasets, a mean over models, ...
        value: As printed.
        decimals: Digits after the point, as printed; the number is known to half a unit of the last one.
        quantities: What must have been measured to compute it.
        test: Computes it.
        only: Column -> values of the models that it is about.
        prepare: Adds columns, or leaves out rows.
        with_defenses: Whether targets with a defense count.
        figures: Names of the figures in whose captions it stands.
        percent: Whether it is written as a percentage.
    """

    name: str
    paper: Literal["SecurityNet", "ML-Doctor"]
    where: str
    what: str
    estimand: str
    value: float
    decimals: int
    quantities: Mapping[str, Quantity]
    test: Test
    only: Only = field(default_factory=dict)
    prepare: Prepare | None = None
    with_defenses: bool = False
    figures: tuple[str, ...] = ()
    percent: bool = False

    @property
    def half_unit(self) -> float:
        """Half a unit of the last printed digit."""
        return float(0.5 * 10.0**-self.decimals)
