"""`catalog:ENTRY` loads the weights that the entry means, and no others."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

import securitynet.catalog
from securitynet import load_target
from securitynet.errors import ModelError, WeightsMismatch
from securitynet.models.architectures.factory import build
from securitynet.models.sources.weight_digests import digest_tensors


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two networks of one kind; the first also as safetensors, and with a wrapper's prefix."""
    folder = tmp_path_factory.mktemp("weights")
    for seed, name in enumerate(("one", "other")):
        torch.manual_seed(seed)
        state = build("simple-cnn", 10, 1, 8).state_dict()
        torch.save(state, folder / f"{name}.pth")
        if name == "one":
            safetensors.torch.save_file(state, folder / "one.safetensors")
            torch.save({f"module.{key}": value for key, value in state.items()}, folder / "wrapped.pth")
    return {path.stem + path.suffix: path for path in folder.iterdir()}


@pytest.fixture
def add(tmp_path: Path):
    """Add an entry to a catalog of its own: (reference, database)."""

    def call(**codes: object) -> tuple[str, str]:
        url = f"sqlite:///{tmp_path}/mine.sqlite"
        with securitynet.catalog.open(url) as catalog:
            entry = catalog.add({"name": "net", "reference": "arch:simple-cnn", "dataset": "digits", **codes})
        return f"catalog:{entry.id}", url

    return call


def _sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_the_entry_alone_loads_its_weights(add, files) -> None:
    reference, db = add(checksum=_sha256(files["one.pth"]), weights_file=str(files["one.pth"]))
    target = load_target(reference, db=db, input_size=8)
    direct = load_target("arch:simple-cnn", weights=files["one.pth"], input_size=8)
    assert target.backend.checksum == direct.backend.checksum
    assert [(check.what, check.agrees) for check in target.checks if check.what == "checksum"] == [("checksum", True)]
    assert not [check for check in direct.checks if check.what == "checksum"], "nothing was stated, nothing compared"


def test_no_weights_and_other_weights_are_refused(add, files) -> None:
    reference, db = add(checksum=_sha256(files["one.pth"]))
    with pytest.raises(ModelError, match="no file of weights"):
        load_target(reference, db=db)
    with pytest.raises(WeightsMismatch, match="does not hold the weights"):
        load_target(reference, db=db, weights=files["other.pth"])
    assert load_target(reference, db=db, weights=files["one.pth"], input_size=8).num_classes == 10


def test_a_factory_with_random_weights_is_refused(tmp_path, files) -> None:
    """``python:`` is loaded when the user names it; under a stated digest, never as it was initialised."""
    (tmp_path / "net.py").write_text(
        "from securitynet.models.architectures.factory import build\ndef net(): return build('simple-cnn', 10, 1, 8)\n"
    )
    reference = f"python:{tmp_path}/net.py:net"
    assert load_target(reference, input_size=8).num_classes == 10
    with pytest.raises(WeightsMismatch, match="no file of weights"):
        load_target(reference, checksum=_sha256(files["one.pth"]), input_size=8)


def test_a_digest_of_tensors_holds_for_any_file_of_them(add, files) -> None:
    stated = digest_tensors(torch.load(files["one.pth"], weights_only=True))
    reference, db = add(checksum=stated)
    for name in ("one.pth", "one.safetensors", "wrapped.pth"):
        load_target(reference, db=db, weights=files[name], input_size=8)
    with pytest.raises(WeightsMismatch, match="holds other weights"):
        load_target(reference, db=db, weights=files["other.pth"])


def test_the_digest_of_tensors_by_hand() -> None:
    """One tensor: its type, shape and bytes; then the digest of the sorted digests."""
    inner = hashlib.sha256(b"torch.float32\0(2,)\0" + bytes(8)).hexdigest()
    expected = "tensors:" + hashlib.sha256(inner.encode()).hexdigest()
    assert digest_tensors({"a": torch.zeros(2)}) == expected
    assert digest_tensors({"b": torch.zeros(2, dtype=torch.float64)}) == expected
    assert digest_tensors({"a": torch.zeros(2), "n.num_batches_tracked": torch.tensor(3)}) == expected
    assert digest_tensors({"a": torch.zeros(1, 2)}) != expected


def test_an_unknown_kind_of_digest_is_refused(add, files) -> None:
    reference, db = add(checksum="crc32:00000000")
    with pytest.raises(WeightsMismatch, match="cannot be compared"):
        load_target(reference, db=db, weights=files["one.pth"])


def test_a_missing_file_and_a_missing_catalog_are_explained(add, tmp_path) -> None:
    reference, db = add(weights_file=str(tmp_path / "absent.pth"))
    with pytest.raises(ModelError, match="and no checksum of it"):
        load_target(reference, db=db)
    with pytest.raises(ModelError, match="are not at"):
        load_target(reference, db=db, trust=True)
    with pytest.raises(ModelError, match="no catalog yet"):
        load_target(reference, db=f"sqlite:///{tmp_path}/absent.sqlite")
