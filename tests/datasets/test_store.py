from __future__ import annotations

import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import securitynet.datasets.lazy
import securitynet.datasets.loading
import securitynet.datasets.store
from command_line import start_script
from dataset_files import write_folder, write_parquet
from securitynet.datasets import load
from securitynet.datasets.lazy import LazyImages
from securitynet.datasets.rendering import Rendering
from securitynet.datasets.source import Item
from securitynet.datasets.store import StoredImages
from securitynet.errors import DatasetError


def entry(cache: Path) -> Path:
    (found,) = (cache / "datasets").glob("*/images.npy")
    return found.parent


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(securitynet.datasets.lazy, "render_image", refuse)


def test_the_second_load_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path)
    first = load(f"folder:{tmp_path}")
    forbid_decoding(monkeypatch)
    second = load(f"folder:{tmp_path}")
    assert torch.equal(first.images, second.images)
    assert first.fingerprint == second.fingerprint


def test_a_copy_elsewhere_shares_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "a")
    write_folder(tmp_path / "b")
    load(f"folder:{tmp_path / 'a'}")
    forbid_decoding(monkeypatch)
    load(f"folder:{tmp_path / 'b'}")


def test_two_loads_at_once_decode_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path)
    rendered = []
    original = securitynet.datasets.lazy.render_image

    def slow(item: Item, name: str, rendering: Rendering) -> np.ndarray:
        rendered.append(name)
        time.sleep(0.02)
        return original(item, name, rendering)

    monkeypatch.setattr(securitynet.datasets.lazy, "render_image", slow)
    with ThreadPoolExecutor(3) as pool:
        loaded = list(pool.map(load, [f"folder:{tmp_path}"] * 3))
    assert len(rendered) == 12
    assert len({dataset.fingerprint for dataset in loaded}) == 1


def flip(folder: Path) -> None:
    with (folder / "images.npy").open("r+b") as stream:
        stream.seek(-5, os.SEEK_END)
        byte = stream.read(1)
        stream.seek(-5, os.SEEK_END)
        stream.write(bytes([byte[0] ^ 1]))


def cut(folder: Path) -> None:
    os.truncate(folder / "images.npy", 200)


def empty(folder: Path) -> None:
    os.truncate(folder / "images.npy", 0)


def other_header(folder: Path) -> None:
    content = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(content.replace(b"|u1", b"|i1"))


def pickled(folder: Path) -> None:
    size = (folder / "images.npy").stat().st_size
    np.save(folder / "images.npy", np.array([print], dtype=object), allow_pickle=True)
    with (folder / "images.npy").open("ab") as stream:
        stream.truncate(size)


def no_index(folder: Path) -> None:
    (folder / "index.json").unlink()


def broken_index(folder: Path) -> None:
    (folder / "index.json").write_text('{"format": 1')


def odd_index(folder: Path) -> None:
    (folder / "index.json").write_text('{"format": 1, "shape": [12, 3, 6, 5], "bytes": 1208, "chunks": 3}')


@pytest.mark.parametrize("damage", [flip, cut, empty, other_header, pickled, no_index, broken_index, odd_index])
def test_damage_is_noticed_and_mended(damage, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path)
    before = load(f"folder:{tmp_path}").images.clone()
    whole = (entry(cache) / "images.npy").read_bytes()
    damage(entry(cache))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(load(f"folder:{tmp_path}").images, before)
    assert damage is no_index or "are damaged" in caplog.text
    assert (entry(cache) / "images.npy").read_bytes() == whole


def test_a_damaged_memory_of_checksums_is_not_believed(tmp_path: Path, cache: Path) -> None:
    write_folder(tmp_path)
    before = load(f"folder:{tmp_path}").fingerprint
    (memory,) = (cache / "datasets/checksums").glob("*.json")
    for content in ('{"version": 1, "files": {"a": [1]}}', "[]", "\x00", '{"version": 1, "files": 3}'):
        memory.write_text(content)
        assert load(f"folder:{tmp_path}").fingerprint == before


CHILD = """
import sys, time
from pathlib import Path
import securitynet.datasets.lazy as lazy
from securitynet.datasets import load

render_all = lazy.render_all
def slow(pool, pixels, indices, rendering):
    print("chunk", flush=True)
    time.sleep(0.02)
    return render_all(pool, pixels, indices, rendering)
lazy.render_all = slow
load(sys.argv[1], size=256)
print("done", flush=True)
"""


def test_killed_while_writing_leaves_nothing_wrong(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "set", per_part=24)
    reference = f"parquet:{tmp_path / 'set'}"
    expected = load(reference, size=256, cache=tmp_path / "undisturbed").images
    for chunks in (1, 2, 3):
        with start_script(CHILD, reference) as child:
            for _ in range(chunks):
                assert child.stdout.readline() == "chunk\n"
            time.sleep(0.005)
            assert child.kill() == -signal.SIGKILL
        assert not list((cache / "datasets").glob("*/images.npy"))
    assert list((cache / "datasets").glob("*/.images.npy.*.tmp"))
    assert torch.equal(load(reference, size=256).images, expected)
    assert not list((cache / "datasets").glob("*/.images.npy.*.tmp"))


def test_an_unusable_cache_folder_is_a_clear_error(tmp_path: Path) -> None:
    write_folder(tmp_path / "set")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match="SECURITYNET_CACHE"):
        load(f"folder:{tmp_path / 'set'}", cache=tmp_path / "file")


@pytest.fixture
def all_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(securitynet.datasets.loading, "LAZY_BYTES", 100)


@pytest.mark.usefixtures("all_too_large")
@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_what_is_too_large_is_decoded_at_each_access(kind: str, tmp_path: Path, cache: Path) -> None:
    write_folder(tmp_path) if kind == "folder" else write_parquet(tmp_path)
    lazy = load(f"{kind}:{tmp_path}", size=7)
    assert isinstance(lazy.images, LazyImages)
    assert lazy.images.shape == (12, 3, 7, 7)
    assert not list((cache / "datasets").glob("*/images.npy"))
    securitynet.datasets.loading.LAZY_BYTES = 1 << 30
    eager = load(f"{kind}:{tmp_path}", size=7)
    order = np.array([11, 0, 5, 5, 3])
    assert torch.equal(lazy.batch(order), eager.batch(order))
    assert np.array_equal(lazy.labels, eager.labels)


@pytest.mark.usefixtures("all_too_large")
def test_lazy_images_of_a_limited_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, per_class=5)
    lazy = load(f"folder:{tmp_path}", size=7, limit=4)
    monkeypatch.setattr(securitynet.datasets.loading, "LAZY_BYTES", 1 << 30)
    eager = load(f"folder:{tmp_path}", size=7, limit=4)
    assert torch.equal(lazy.batch(np.arange(8)), eager.images)


@pytest.mark.usefixtures("all_too_large")
def test_lazy_images_need_a_size_and_name_what_is_broken(tmp_path: Path) -> None:
    write_folder(tmp_path)
    with pytest.raises(DatasetError, match="--image-size"):
        load(f"folder:{tmp_path}")
    (tmp_path / "train/dog/0.png").write_text("junk")
    lazy = load(f"folder:{tmp_path}", size=4)
    assert lazy.batch(np.array([0, 1])).shape == (2, 3, 4, 4)
    with pytest.raises(DatasetError, match=r"dog/0.png is not a readable image"):
        lazy.batch(np.array([3]))


@pytest.mark.usefixtures("all_too_large")
def test_arrays_too_large_when_resized(tmp_path: Path) -> None:
    lazy = load("digits", size=32, channels=3)
    assert isinstance(lazy.images, LazyImages)
    securitynet.datasets.loading.LAZY_BYTES = 1 << 30
    assert torch.equal(lazy.batch(np.arange(40)), load("digits", size=32, channels=3).images[:40])


def test_large_entries_are_read_and_not_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path)
    mapped = load(f"folder:{tmp_path}", cache=tmp_path / "first")
    monkeypatch.setattr(securitynet.datasets.store, "MAPPED_BYTES", 100)
    monkeypatch.setattr(securitynet.datasets.loading, "MAPPED_BYTES", 100)
    read = load(f"folder:{tmp_path}", cache=tmp_path / "second")
    assert "are read from there batch by batch" in caplog.text
    assert isinstance(read.images, StoredImages)
    assert read.fingerprint == mapped.fingerprint
    assert tuple(read.images.shape) == tuple(mapped.images.shape)
    chosen = np.array([len(read) - 1, 0, 1, 0])
    assert torch.equal(read.batch(chosen), mapped.batch(chosen))
    assert torch.equal(read.images[torch.tensor([-1])], mapped.images[torch.tensor([-1])])
    with pytest.raises(IndexError):
        read.batch(np.array([len(read)]))
    (path,) = (tmp_path / "second" / "datasets").glob("*/images.npy")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError, match="too short"):
        read.batch(np.array([len(read) - 1]))
