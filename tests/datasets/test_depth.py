"""Images of 10, 12, 14 and 16 bits in files of 16: white is what the whole dataset says."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from securitynet.datasets import load
from securitynet.datasets.depth import choose_white
from securitynet.errors import DatasetError


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, H×W×C, written by hand: Pillow can't write colour of such depth."""
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write_deep(root: Path, bits: int, channels: int, *, shift: int = 0) -> list[np.ndarray]:
    """Two classes in two parts, one image dark and one of full range in each; their values as 0 to 1."""
    rng = np.random.default_rng(bits)
    written = []
    for part in ("train", "test"):
        for name in ("a", "b"):
            for k, top in enumerate((1 << bits, 1 << (bits - 3))):
                values = rng.integers(0, top, (6, 5, channels))
                values[0, 0, 0] = top - 1
                place = root / part / name / f"{k}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(deep_png(values << shift))
                written.append(values[..., : 3 if channels > 2 else 1] / ((1 << bits) - 1))
    return written


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits_in_files_of_sixteen(bits: int, channels: int, tmp_path: Path) -> None:
    written = write_deep(tmp_path, bits, channels)
    for _ in range(2):  # found out, then remembered
        dataset = load(f"folder:{tmp_path}")
        for image, values in zip(dataset.images.numpy(), written, strict=True):
            assert np.abs(image / 255 - values.transpose(2, 0, 1)).max() <= 0.5 / 255 + 1e-9
        assert any(f"use {bits}: {(1 << bits) - 1} was taken for white" in note for note in dataset.notes)


@pytest.mark.parametrize("channels", [1, 3])
def test_full_depth_is_read_as_ever_and_not_remarked(channels: int, tmp_path: Path) -> None:
    written = write_deep(tmp_path, 16, channels)
    dataset = load(f"folder:{tmp_path}")
    for image, values in zip(dataset.images.numpy(), written, strict=True):
        assert np.abs(image / 255 - values.transpose(2, 0, 1)).max() <= 1 / 255
    assert dataset.notes == ()


def test_a_limit_does_not_change_what_is_white(tmp_path: Path) -> None:
    """The brightest image may not be among those that are loaded."""
    for part in ("train", "test"):
        for name in ("a", "b"):
            for k in range(8):
                values = np.full((4, 4, 1), 4095 if (part, name, k) == ("train", "a", 5) else 300)
                place = tmp_path / part / name / f"{k}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(deep_png(values))
    small = load(f"folder:{tmp_path}", limit=2)
    assert set(np.unique(small.images.numpy())) <= {round(300 * 255 / 4095), 255}


def test_deep_images_behind_an_ordinary_one(tmp_path: Path) -> None:
    written = write_deep(tmp_path, 12, 1)
    first = tmp_path / "train/a/0.png"
    Image.fromarray(np.full((6, 5), 100, np.uint8)).save(first)
    dataset = load(f"folder:{tmp_path}")
    assert (dataset.images[0] == 100).all()
    assert np.abs(dataset.images[2].numpy() / 255 - written[2].transpose(2, 0, 1)).max() <= 0.51 / 255


def test_tiff_of_twelve_bits(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        arrays = rng.integers(0, 4096, (4, 6, 5, channels)).astype(np.uint16)
        root = tmp_path / str(channels)
        for number, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
            (root / place).mkdir(parents=True)
            tifffile.imwrite(
                root / place / "0.tif", arrays[number].squeeze(), photometric="rgb" if channels == 3 else "minisblack"
            )
        images = load(f"folder:{root}").images.numpy()
        assert np.abs(images / 255 - arrays.transpose(0, 3, 1, 2) / 4095).max() <= 0.51 / 255


def test_images_that_are_nearly_black_are_remarked(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 16, (6, 5)).astype(np.uint8)).save(
            tmp_path / place / "0.png"
        )
    (note,) = load(f"folder:{tmp_path}").notes
    assert "nearly black" in note and "above 15 of 255" in note


def test_white_is_the_next_usual_depth() -> None:
    assert [choose_white(bits) for bits in (0, 1, 8, 9, 12, 13, 15, 16)] == [
        65535, 255, 255, 1023, 4095, 16383, 65535, 65535,
    ]  # fmt: skip


def test_a_broken_deep_image_is_one_clear_error(tmp_path: Path) -> None:
    write_deep(tmp_path, 12, 3)
    place = tmp_path / "test/b/0.png"
    place.write_bytes(place.read_bytes()[:70])
    with pytest.raises(DatasetError, match=r"test/b/0\.png is not a readable image"):
        load(f"folder:{tmp_path}")
    assert Image.open(io.BytesIO(deep_png(np.zeros((2, 2, 3), np.int64)))).mode == "RGB"
