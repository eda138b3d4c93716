"""`PrivacyAudit`: the outcome of an audit with canaries, as it stands in ``result.json`` and ``audit.json``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from securitynet.records import Measurement, Record


class PrivacyClaim(Record):
    """The differential privacy that the model record states.

    Attributes:
        epsilon: Spent epsilon, for adding or removing one record.
        delta: Its delta.
        accountant: Which accountant computed it.
        is_bound: Whether it is an upper bound; the value of zCDP is for comparison with papers only.
    """

    epsilon: float
    delta: float
    accountant: str
    is_bound: bool = True


class PrivacyAudit(Record):
    """The outcome of an audit of one training run with canaries.

    Attributes:
        kind: Kind of the canaries.
        canaries: Number of canaries.
        included: Number of canaries that were trained on.
        delta: Delta of all bounds on epsilon.
        level: Confidence of the verdict, over all bounds and tests.
        measurements: Lower bounds on epsilon by score and method.
        claim: The epsilon that the model record states; None if it states none.
        tests: Tests of the claim that were made, by name.
        contradictions: Those of them that rule the claim out.
        verdict: ``contradicted``: the claim cannot hold; ``not contradicted``: no test rules it out, which proves
            nothing; ``no claim``: none was stated.
        sentences: The outcome in words.
    """

    kind: str
    canaries: int
    included: int
    delta: float
    level: float = Field(description="Confidence of the verdict, over all bounds and tests.")
    measurements: tuple[Measurement, ...] = Field(description="Lower bounds on epsilon.")
    claim: PrivacyClaim | None = Field(default=None, description="The epsilon that the model record states.")
    tests: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = Field(default=(), description="Tests that rule the claim out.")
    verdict: Literal["contradicted", "not contradicted", "no claim"]
    sentences: tuple[str, ...]
