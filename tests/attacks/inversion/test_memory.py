"""Reconstructions of all of a thousand classes of large images are refused before anything is trained."""

import pytest

from securitynet.attacks.inversion import _attacked_classes
from securitynet.attacks.inversion._attacked_classes import check_reconstruction_memory
from securitynet.errors import ConfigurationError


def test_what_does_not_fit_is_refused_with_a_hint(monkeypatch):
    monkeypatch.setattr(_attacked_classes, "read_available_memory", lambda: 24 * 10**9)
    # By hand: 1,000 · 5 · 3 · 224 · 224 · 40 bytes.
    with pytest.raises(ConfigurationError, match=r"each of 1,000 classes .* about 30 GB .* 24 GB are free") as error:
        check_reconstruction_memory(1000, 5, (3, 224, 224))
    assert "classes" in error.value.hint
    check_reconstruction_memory(10, 5, (3, 224, 224))
    monkeypatch.setattr(_attacked_classes, "read_available_memory", lambda: None)
    check_reconstruction_memory(1000, 5, (3, 224, 224))
