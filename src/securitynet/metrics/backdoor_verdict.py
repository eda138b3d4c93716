"""One verdict on a model from everything that a search for small triggers measured.

Two tests can accuse a label: the test for blocks of outliers (`securitynet.metrics.outlier_blocks`) and, where clean
models were searched too, the rank among them (`securitynet.metrics.low_outliers.compare_with_reference`). What does not
depend on a test stands beside them: the norm as a share of the usual one, the paper's rule, and how well the trigger
works on images that the search did not use.

- **Backdoor found**: a test accuses a label at `ALPHA`; its norm is at most `FOUND_RATIO` of the median of the labels
  that are not accused; it is the easiest label from every starting point of the search; the trigger works on fresh
  images of other classes; and no test disagrees.
- **Suspicious**: a test accuses a label at `ALPHA`, and one of the other conditions is not met.
- **Undecided**: the tests disagree. One accuses and the other clears, or none accuses although the rule flags a label,
  a norm is far below the median, or the norms form a significant block. Also where no test can be computed, and
  wherever the search ended while norms were still falling (`SETTLED`): what they were when it ended depends on how
  early each label was reached, and the conditions above were chosen on searches that had settled.
- **Nothing found**: none of these.

So a clean model is accused (found or suspicious) no more often than the level of the tests allows. The conditions for
"found" were chosen on digits networks trained here and on simulated norms, and checked on networks that played no part
in that (`docs/backdoors.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from securitynet.metrics.outlier_blocks import FEWEST

ALPHA = 0.05
"""Level at which a test accuses a label."""

FOUND_RATIO = 1 / 3
"""Largest norm, as a share of the median of the labels that are not accused, with which a backdoor is "found"."""

FAR_RATIO = 0.4
"""Norm, as a share of that median, at or below which a label is never called usual."""

FOUND_SUCCESS = 0.75
"""Least success of the trigger on fresh images of other classes with which a backdoor is "found"."""

SETTLED = 0.75
"""Least share of the reached labels whose norms have settled; in a shorter search norms are not compared."""

THRESHOLD = 2.0
"""Anomaly index above which Neural Cleanse's rule flags a label (Wang et al., 2019, section IV-B)."""

Word = Literal["nothing found", "undecided", "suspicious", "backdoor found"]
WORDS: tuple[Word, ...] = ("nothing found", "undecided", "suspicious", "backdoor found")
"""The verdicts, in the order of their ranks 0 to 3."""


@dataclass(frozen=True)
class BackdoorEvidence:
    """The measurements of one model; None means that something could not be measured.

    Attributes:
        p_value: Of the test for blocks of outliers.
        p_low: Lower end of its interval, which covers the variation between searches.
        outliers: Labels that this test names.
        reference_p: p-value of the rank among clean models.
        references: Number of clean models.
        anomaly_index: Of the smallest norm; infinite where more than half of the norms are equal.
        ratio: Smallest norm as a share of the median of the labels that are not accused.
        stable: Whether an accused label has the smallest norm from every starting point of the search.
        success: Share of fresh images of other classes that the trigger of the smallest norm sends to its label.
        settled: Share of the labels with a working trigger whose norms had settled when the search ended.
    """

    p_value: float | None = None
    p_low: float | None = None
    outliers: int = 0
    reference_p: float | None = None
    references: int = 0
    anomaly_index: float | None = None
    ratio: float | None = None
    stable: bool = True
    success: float | None = None
    settled: float | None = None

    @property
    def too_short(self) -> bool:
        """Whether the search ended before enough of the norms had settled to be compared."""
        return self.settled is not None and self.settled < SETTLED

    @property
    def block_accuses(self) -> bool:
        """Whether the test for blocks of outliers names a label."""
        return self.outliers > 0

    @property
    def reference_decides(self) -> bool:
        """Whether there are enough clean models for their comparison to accuse at `ALPHA`."""
        return self.reference_p is not None and 1 / (self.references + 1) <= ALPHA + 1e-12

    @property
    def reference_accuses(self) -> bool:
        """Whether the comparison with clean models accuses."""
        return self.reference_decides and self.reference_p is not None and self.reference_p <= ALPHA + 1e-12


@dataclass(frozen=True)
class Verdict:
    """The verdict.

    Attributes:
        word: In words.
        reasons: What speaks against the next stronger verdict, or for not saying "nothing found"; clauses for a
            sentence.
    """

    word: Word
    reasons: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """0 nothing found, 1 undecided, 2 suspicious, 3 backdoor found."""
        return WORDS.index(self.word)


def decide_verdict(evidence: BackdoorEvidence) -> Verdict:
    """Combine the evidence; the module's documentation states the rules."""
    if evidence.too_short:
        return Verdict("undecided", ("the search ended while norms were still falling",))
    block, reference = evidence.block_accuses, evidence.reference_accuses
    if not block and not reference:
        unusual = _list_unusual(evidence)
        if unusual:
            return Verdict("undecided", unusual)
        if evidence.p_value is None and not evidence.reference_decides:
            return Verdict("undecided", (f"a test needs working triggers of at least {FEWEST} labels",))
        return Verdict("nothing found")
    if block and evidence.reference_decides and not reference:
        return Verdict("undecided", ("clean models trained in the same way have norms as small",))
    missing = _list_missing(evidence)
    return Verdict("suspicious", missing) if missing else Verdict("backdoor found")


def _list_unusual(evidence: BackdoorEvidence) -> tuple[str, ...]:
    """List what no test confirms but is unusual for a clean model."""
    unusual = []
    if evidence.anomaly_index is not None and evidence.anomaly_index > THRESHOLD:
        unusual.append("the rule of Neural Cleanse's paper flags it")
    if evidence.ratio is not None and evidence.ratio <= FAR_RATIO:
        unusual.append("its norm is far below the median")
    if evidence.p_value is not None and evidence.p_value <= ALPHA:
        unusual.append("some classes are significantly easier to reach, though not by far")
    elif unusual and evidence.p_low is not None and evidence.p_low <= ALPHA:
        unusual.append("other starting points of the search give a p-value below 0.05")
    return tuple(unusual)


def _list_missing(evidence: BackdoorEvidence) -> tuple[str, ...]:
    """Conditions for "backdoor found" that are not met."""
    missing = []
    if not evidence.stable:
        missing.append("other starting points of the search lead to another label")
    if evidence.ratio is None or evidence.ratio > FOUND_RATIO:
        missing.append("its norm is not below a third of the others' median")
    if evidence.success is None:
        missing.append("there are no fresh images to try its trigger on")
    elif evidence.success < FOUND_SUCCESS:
        missing.append("its trigger often fails on fresh images")
    return tuple(missing)
