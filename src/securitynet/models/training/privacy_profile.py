"""The whole guarantee of a training with DP-SGD: the epsilon that it spends at many deltas, not at one."""

from __future__ import annotations

import functools
import itertools
import math
import warnings

from securitynet.models.training.accounting import check_opacus, compute_epsilon
from securitynet.models.training.dp_sgd import Privacy

DELTAS = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Deltas at which epsilon is computed, besides the delta of the training."""

EPSILON_ERROR = 0.05
"""What is added to each epsilon for the error of its numerical computation."""

Profile = tuple[tuple[float, float], ...]
"""Pairs of epsilon and delta that all hold."""

_Bounds = tuple[tuple[float, float, float], ...]
"""A lower and an upper end of epsilon, and the delta."""


def compute_privacy_profile(privacy: Privacy) -> Profile:
    """Compute the pairs of epsilon and delta that hold for a training with DP-SGD, whatever accountant it used.

    The numbers are upper bounds by Opacus' PRV accountant, which is close to exact; by its RDP accountant where the
    other one cannot compute them.

    Args:
        privacy: Noise, sampling rate and steps of the training.

    Returns:
        (epsilon, delta), epsilon at least 0.
    """
    pairs = tuple((high, delta) for _, high, delta in _bound_profile(privacy))
    # The value in the model record can be tighter at its delta; that of zCDP is no bound.
    return pairs if privacy.accountant == "zcdp" else (*pairs, (privacy.epsilon, privacy.delta))


def spends_more(privacy: Privacy) -> bool:
    """Whether the stated noise, sampling rate and steps spend more than the stated epsilon, by any accountant.

    They do if epsilon lies below the lower end that Opacus' PRV accountant computes at the stated delta; False where it
    cannot compute one.

    Args:
        privacy: The statement.
    """
    return any(low > privacy.epsilon for low, _, delta in _bound_profile(privacy) if delta == privacy.delta)


def _bound_profile(privacy: Privacy) -> _Bounds:
    deltas = tuple(sorted({privacy.delta, *DELTAS}))
    return _compute_bounds(privacy.noise_multiplier, privacy.sample_rate, privacy.steps, deltas)


@functools.cache
def _compute_bounds(noise: float, rate: float, steps: int, deltas: tuple[float, ...]) -> _Bounds:
    check_opacus()
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(noise, rate, steps)]
    error = min(deltas) / 1000
    bounds: list[tuple[float, float]] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order")  # only the range of its discretisation rests on them
        warnings.simplefilter("ignore", RuntimeWarning)  # of overflow: its numbers are then not finite
        try:
            # One discretisation serves all deltas; `get_epsilon` would repeat it for each.
            losses = accountant._get_dprv(eps_error=EPSILON_ERROR, delta_error=error)
            ends = [losses.compute_epsilon(delta, error, EPSILON_ERROR) for delta in deltas]
            bounds = [(float(low), float(high)) for low, _, high in ends]
        except (ValueError, RuntimeError, IndexError, MemoryError):
            pass
    if not bounds or not all(map(math.isfinite, itertools.chain(*bounds))):
        bounds = [(0.0, compute_epsilon("rdp", noise, rate, steps, delta)) for delta in deltas]
    return tuple((low, max(0.0, high), delta) for (low, high), delta in zip(bounds, deltas, strict=True))
