"""From a folder of strangers' weights to an assessment: an entry is assessed with its own weights only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import securitynet.catalog
from securitynet.models.architectures.factory import build


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four networks of one architecture, a copy of one, weights that are nobody's, and a few images."""
    place = tmp_path_factory.mktemp("place")
    (place / "nets").mkdir()
    for number in range(5):
        torch.manual_seed(number)
        folder = place / "nets" if number < 4 else place
        torch.save(build("tutorial-cnn", 10).state_dict(), folder / f"net-{number}.pth")
    (place / "nets" / "copy.pth").write_bytes((place / "nets" / "net-0.pth").read_bytes())
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in range(10):
            folder = place / "images" / part / str(label)
            folder.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return place


def test_every_network_is_an_entry_and_only_its_own_weights_are_assessed(place: Path, run_cli) -> None:
    db = str(place / "catalog.sqlite")
    scanned = run_cli("catalog", "scan", str(place / "nets"), "--accept", "0.9", "--db", db)
    assert scanned.returncode == 0, scanned.stderr
    with securitynet.catalog.open(db) as catalog:
        entries = list(catalog.query())
        assert len(entries) == 4 and len({entry.checksum for entry in entries}) == 4
    first = entries[0]
    data = ["--dataset", f"folder:{place / 'images'}", "--attacks", "correctness", "--detectors", "none", "--db", db]
    own = run_cli("assess", f"catalog:{first.id}", *data, "--out", str(place / "own"))
    assert own.returncode == 0, own.stderr
    foreign = run_cli(
        "assess", f"catalog:{first.id}", *data, "--weights", str(place / "net-4.pth"), "--out", str(place / "f")
    )
    assert foreign.returncode == 1 and "other weights" in foreign.stderr and not (place / "f" / "result.json").exists()
    other = Path(str(entries[1].weights_file))
    mixed = run_cli("assess", f"catalog:{first.id}", *data, "--weights", str(other), "--out", str(place / "m"))
    assert mixed.returncode == 1 and not (place / "m" / "result.json").exists()
    Path(str(first.weights_file)).rename(place / "moved.pth")
    missing = run_cli("assess", f"catalog:{first.id}", *data, "--out", str(place / "n"))
    assert missing.returncode == 1 and not (place / "n" / "result.json").exists(), "never random weights"
