"""From an entry to a target, by the same reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from securitynet.catalog.catalog import Catalog
from securitynet.errors import ModelError

WEIGHTS = Path(__file__).parents[3] / "shared" / "data" / "cifar10-resnets" / "resnet20-12fca82f.th"


@pytest.mark.real_data
def test_load_gives_a_target(sqlite_catalog: Catalog) -> None:
    if not WEIGHTS.exists():
        pytest.skip("the public checkpoints are not beside the repository")
    torch = pytest.importorskip("torch")
    entry = sqlite_catalog.add({"name": "resnet20", "dataset": "cifar10", "reference": "arch:cifar-resnet20"})
    target = sqlite_catalog.load(entry, weights=WEIGHTS, normalize="imagenet", device="cpu")
    posteriors = target.posteriors(torch.zeros(2, 3, 32, 32))
    assert tuple(posteriors.shape) == (2, 10)
    assert torch.allclose(posteriors.sum(1), torch.ones(2), atol=1e-4)
    assert target.identity.reference == entry.reference


def test_what_cannot_be_loaded_says_why(sqlite_catalog: Catalog) -> None:
    sqlite_catalog.add({"name": "no reference", "weights_link": "https://example.org/weights.pth"})
    with pytest.raises(ModelError, match=r"no reference.*example\.org"):
        sqlite_catalog.load("no reference")
    sqlite_catalog.add({"name": "backbone", "reference": "timm:x", "head": "none"})
    with pytest.raises(ModelError, match="no classifier"):
        sqlite_catalog.load("backbone")
