"""A claim of a paper as a hypothesis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from securitynet.analysis.frames import Quantity
from securitynet.analysis.hypotheses.cases import Only, Prepare
from securitynet.analysis.hypotheses.tested import Test

Sign = Literal[1, 0, -1]
"""The side that a claim asserts; 0 for none."""

MARGIN = 0.05
"""The largest difference of accuracies that counts as none: ML-Doctor calls less than 5% no significant decrease."""

RELATIVE_MARGIN = 0.1
"""The largest relative change of an error that counts as none. ML-Doctor prints errors as small as 0.06 with two digits
after the point, which do not tell smaller changes from rounding."""

CORRELATION_MARGIN = 0.3
"""The largest correlation that counts as none: below what is called a medium one (Cohen, 1988)."""


@dataclass(frozen=True, eq=False)
class Claim:
    """A hypothesis.

    Attributes:
        name: Short identifier.
        sentence: The claim, as a sentence. It names no data but what ``only`` keeps.
        source: Paper and section that make it.
        quantities: What must have been measured.
        test: Computes the estimate.
        sign: The side on which the estimate is claimed to lie; 0 for a claim of no difference, or no relation.
        measure: What the estimate is, in words.
        against: The value that the estimate is compared with.
        margin: For a claim of none: the largest difference that counts as none.
        only: Column -> values of the models that the sentence is about; no others count.
        prefer: Column -> values of the models that the paper's section is about, applied if there are any.
        with_defenses: Whether targets with a defense count: only in claims about defenses.
        prepare: Adds columns, or leaves out rows.
        printed: Names of the numbers that the paper prints on it.
    """

    name: str
    sentence: str
    source: str
    quantities: Mapping[str, Quantity]
    test: Test
    sign: Sign
    measure: str
    against: float = 0.0
    margin: float | None = None
    only: Only = field(default_factory=dict)
    prefer: Only = field(default_factory=dict)
    with_defenses: bool = False
    prepare: Prepare | None = None
    printed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises `ValueError` if a claim of none has no margin, or another has one."""
        if (self.sign == 0) != (self.margin is not None):
            raise ValueError(f"the claim {self.name} needs a margin if and only if its sign is 0")
