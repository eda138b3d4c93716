"""Guarantees at many deltas, also where Opacus' PRV accountant overflows."""

from __future__ import annotations

import math

import pytest

from securitynet.models.training.accounting import compute_epsilon
from securitynet.models.training.dp_sgd import Privacy
from securitynet.models.training.privacy_profile import DELTAS, compute_privacy_profile, spends_more

DELTA = 1e-5


def spend(noise: float, rate: float, steps: int) -> Privacy:
    """What a training states that has kept its books."""
    return Privacy(
        epsilon=compute_epsilon("rdp", noise, rate, steps, DELTA),
        delta=DELTA,
        accountant="rdp",
        noise_multiplier=noise,
        clipping_bound=1.0,
        sample_rate=rate,
        steps=steps,
        records=1000,
    )


@pytest.mark.parametrize("training", [(1.0, 0.1, 100), (0.2, 0.5, 100), (0.05, 0.5, 10)])
def test_a_true_statement_is_not_contradicted(training: tuple[float, float, int]) -> None:
    """The last two spend an epsilon beyond 900, for which the accountant's lower end is infinite."""
    privacy = spend(*training)
    assert not spends_more(privacy)
    profile = {delta: epsilon for epsilon, delta in compute_privacy_profile(privacy)}
    assert profile.keys() == {DELTA, *DELTAS} and all(map(math.isfinite, profile.values()))


def test_a_statement_that_is_too_low_is_contradicted() -> None:
    privacy = spend(1.0, 0.1, 100)
    assert spends_more(privacy.model_copy(update={"epsilon": 0.5 * privacy.epsilon}))
