"""Small targets with and without a planted backdoor, trained once."""

from __future__ import annotations

import pytest

from backdoored import TRAINING, backdoored_digits, clean_digits
from securitynet.backdoors.badnets import Badnets
from securitynet.models.store.train_target import train_target


@pytest.fixture(scope="session")
def backdoored(digits):
    """SimpleCNN on digits; a white 2×2 patch sends everything to class 1."""
    backdoor = Badnets(target=1, rate=0.2, margin=0)
    return train_target("simple-cnn", digits, split="public", device="cpu", backdoor=backdoor, seed=1, **TRAINING)


@pytest.fixture(scope="session")
def innocent(digits):
    """The same without a backdoor."""
    return train_target("simple-cnn", digits, split="public", device="cpu", seed=1, **TRAINING)


@pytest.fixture(scope="session")
def patched(digits):
    """(target, its clean data, the data it was trained on, poisoned records): a patch in the corner leads to 7."""
    return backdoored_digits(digits)


@pytest.fixture(scope="session")
def unpatched(digits):
    """(target, data): the same without poison."""
    return clean_digits(digits)
