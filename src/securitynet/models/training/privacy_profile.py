"""The whole guarantee of a training with DP-SGD: the epsilon that it spends at many deltas, not at one."""

from __future__ import annotations

import functools
import warnings

from securitynet.models.training.accounting import check_opacus, compute_epsilon
from securitynet.models.training.dp_sgd import Privacy

DELTAS = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Deltas at which epsilon is computed, besides the delta of the training."""

EPSILON_ERROR = 0.05
"""What is added to each epsilon for the error of its numerical computation."""

Profile = tuple[tuple[float, float], ...]
"""Pairs of epsilon and delta that all hold."""


def privacy_profile(privacy: Privacy) -> Profile:
    """Compute the pairs of epsilon and delta that hold for a training with DP-SGD, whatever accountant it used.

    The numbers are upper bounds by Opacus' PRV accountant, which is close to exact; by its RDP accountant where the
    other one cannot compute them.

    Args:
        privacy: Noise, sampling rate and steps of the training.

    Returns:
        (epsilon, delta), epsilon at least 0.
    """
    deltas = tuple(sorted({privacy.delta, *DELTAS}))
    pairs = _compute_profile(privacy.noise_multiplier, privacy.sample_rate, privacy.steps, deltas)
    # The value in the model record can be tighter at its delta; that of zCDP is no bound.
    return pairs if privacy.accountant == "zcdp" else (*pairs, (privacy.epsilon, privacy.delta))


@functools.cache
def _compute_profile(noise: float, rate: float, steps: int, deltas: tuple[float, ...]) -> Profile:
    check_opacus()
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(noise, rate, steps)]
    error = min(deltas) / 1000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of orders at the edge; the bounds hold
        try:
            # One discretisation serves all deltas; `get_epsilon` would repeat it for each.
            losses = accountant._get_dprv(eps_error=EPSILON_ERROR, delta_error=error)
            epsilons = [float(losses.compute_epsilon(delta, error, EPSILON_ERROR)[2]) for delta in deltas]
        except (ValueError, RuntimeError, IndexError, MemoryError):
            epsilons = [compute_epsilon("rdp", noise, rate, steps, delta) for delta in deltas]
    return tuple((max(0.0, epsilon), delta) for epsilon, delta in zip(epsilons, deltas, strict=True))
