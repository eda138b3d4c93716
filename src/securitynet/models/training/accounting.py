"""The accounting of DP-SGD: from noise, sampling rate and steps to epsilon, and back."""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from typing import Any, Literal

from securitynet.errors import ConfigurationError, MissingExtra

AccountantName = Literal["rdp", "prv", "zcdp"]


def plan_steps(records: int, batch_size: int) -> tuple[float, int]:
    """Compute sampling rate and steps per epoch, such that an epoch uses each record once on average.

    Args:
        records: Number of training records.
        batch_size: Expected records per batch.

    Raises:
        ConfigurationError: If a batch would hold more than all records.
    """
    if batch_size > records:
        raise ConfigurationError(
            f"DP-SGD draws batches of {batch_size} from {records} records.", hint="Choose a smaller --batch-size."
        )
    return batch_size / records, max(1, round(records / batch_size))


def compute_epsilon(
    accountant: AccountantName, noise_multiplier: float, sample_rate: float, steps: int, delta: float
) -> float:
    """Compute epsilon after a number of steps.

    Args:
        accountant: ``rdp`` or ``prv``, Opacus' accountants of the Poisson-subsampled Gaussian mechanism; or ``zcdp``.
        noise_multiplier: Deviation of the noise, divided by the clipping bound.
        sample_rate: Probability with which a record joins a batch.
        steps: Number of steps.
        delta: Probability that the bound does not hold, in (0, 1).

    The ``zcdp`` value composes one Gaussian mechanism for each use of a record (``sample_rate · steps`` uses): rho =
    uses / (2 · noise²), epsilon = rho + 2 · sqrt(rho · ln(1/delta)) (Bun and Steinke, 2016, propositions 1.3 and 1.6).
    That is exact for batches that each record joins once per epoch; under Poisson sampling it is not a bound.
    """
    if accountant == "zcdp":
        rho = sample_rate * steps / (2 * noise_multiplier**2)
        return rho + 2 * math.sqrt(rho * math.log(1 / delta))
    keeper = make_accountant(accountant)
    keeper.history = [(noise_multiplier, sample_rate, steps)]
    return read_epsilon(keeper, delta)


@functools.cache
def find_noise(accountant: AccountantName, epsilon: float, sample_rate: float, steps: int, delta: float) -> float:
    """Find the noise multiplier with which a number of steps spends ``epsilon`` or slightly less.

    Args:
        accountant: ``rdp``, ``prv`` or ``zcdp``; see `compute_epsilon`.
        epsilon: Privacy budget, above 0.
        sample_rate: Probability with which a record joins a batch.
        steps: Number of steps.
        delta: Probability that the bound does not hold, in (0, 1).

    Raises:
        ConfigurationError: If no noise is sufficient.
    """
    if accountant == "zcdp":
        log = math.log(1 / delta)
        rho = (math.sqrt(log + epsilon) - math.sqrt(log)) ** 2
        return math.sqrt(sample_rate * steps / (2 * rho))
    check_opacus()
    from opacus.accountants.utils import get_noise_multiplier

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Optimal order")  # at the edge, for noise that is far off
            multiplier = get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=sample_rate,
                steps=steps,
                accountant=accountant,
                epsilon_tolerance=min(0.01, epsilon / 100),
            )
    except ValueError as error:
        raise ConfigurationError(
            f"No noise brings epsilon down to {epsilon:g} at delta {delta:g} with {steps} steps.",
            hint="Allow a larger epsilon, or train fewer epochs.",
        ) from error
    return float(multiplier)


def check_opacus() -> None:
    """Raise `MissingExtra` if Opacus is not installed."""
    if importlib.util.find_spec("opacus") is None:
        raise MissingExtra("opacus", "privacy", "Training with differential privacy")


def make_accountant(name: AccountantName) -> Any:
    """Make Opacus' accountant; for ``zcdp``, which Opacus lacks, one that only records the steps."""
    from opacus.accountants import create_accountant

    return create_accountant("rdp" if name == "zcdp" else name)


def read_epsilon(keeper: Any, delta: float) -> float:
    """Return the epsilon of all steps that an accountant of Opacus recorded, at ``delta`` in (0, 1)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order")  # the bound holds, but could be slightly tighter
        return float(keeper.get_epsilon(delta=delta))
