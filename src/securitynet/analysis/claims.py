"""The claims of the two papers as hypotheses, in the order of the papers."""

from __future__ import annotations

from securitynet.analysis import ml_doctor_claims, securitynet_claims
from securitynet.analysis.hypotheses.claim import Claim

EVERY: tuple[Claim, ...] = (*securitynet_claims.CLAIMS, *ml_doctor_claims.CLAIMS)
