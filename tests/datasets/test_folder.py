from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from dataset_files import noise, write_folder, write_png
from securitynet.datasets import load
from securitynet.errors import DatasetError


def test_folder_with_train_and_test(tmp_path: Path) -> None:
    written = write_folder(tmp_path)
    dataset = load(f"folder:{tmp_path}")
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert {part: indices.tolist() for part, indices in dataset.parts.items()} == {
        "train": list(range(6)),
        "test": list(range(6, 12)),
    }
    assert np.array_equal(dataset.images.numpy(), np.stack(list(written.values())))


def test_root_is_where_a_relative_path_starts(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos")
    assert load("folder:photos", root=tmp_path).fingerprint == load(f"folder:{tmp_path / 'photos'}").fingerprint


def test_fingerprint_depends_on_content_and_not_on_the_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_folder(tmp_path / name)
    first = load(f"folder:{tmp_path / 'a'}")
    assert load(f"folder:{tmp_path / 'b'}").fingerprint == first.fingerprint
    write_png(tmp_path / "b/train/cat/0.png", noise(1, 3, 6, 5, seed=77)[0])
    changed = load(f"folder:{tmp_path / 'b'}")
    assert changed.fingerprint != first.fingerprint
    assert np.array_equal(changed.images[0].numpy(), noise(1, 3, 6, 5, seed=77)[0])


def test_an_image_changed_within_the_clocks_resolution_is_noticed(tmp_path: Path) -> None:
    write_folder(tmp_path)
    path = tmp_path / "train/cat/0.png"
    before = load(f"folder:{tmp_path}").fingerprint
    state = path.stat()
    replacement = noise(1, 3, 6, 5, seed=78)[0]
    write_png(path, replacement)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    after = load(f"folder:{tmp_path}")
    assert after.fingerprint != before
    assert np.array_equal(after.images[0].numpy(), replacement)


def test_unicode_forms_of_a_name_are_one_class(tmp_path: Path) -> None:
    """macOS writes accents of folders as characters of their own (NFD)."""
    write_folder(tmp_path)
    plain = load(f"folder:{tmp_path}")
    (tmp_path / "train/cat").rename(tmp_path / "train/caf\u00e9")
    (tmp_path / "test/cat").rename(tmp_path / "test/cafe\u0301")
    dataset = load(f"folder:{tmp_path}")
    assert dataset.class_names == ("caf\u00e9", "dog")
    assert np.array_equal(dataset.labels, plain.labels)
    assert dict(dataset.parts).keys() == {"train", "test"}
    assert any("two Unicode forms" in note for note in dataset.notes)
    # In the order in which other programs sort the training part.
    (tmp_path / "train/caf\u00e9").rename(tmp_path / "train/\u00e9t\u00e9")
    (tmp_path / "test/cafe\u0301").rename(tmp_path / "test/e\u0301te\u0301")
    assert load(f"folder:{tmp_path}").class_names == ("dog", "\u00e9t\u00e9")


def test_a_class_that_is_written_otherwise_in_the_other_part_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "train/cat").rename(tmp_path / "train/hot dog")
    (tmp_path / "test/cat").rename(tmp_path / "test/Hot_Dog")
    with pytest.raises(DatasetError, match="training part: Hot_Dog") as caught:
        load(f"folder:{tmp_path}")
    assert "'Hot_Dog' and 'hot dog'" in caught.value.hint and "rename" in caught.value.hint


def test_folder_of_classes_alone_is_one_part(tmp_path: Path) -> None:
    write_folder(tmp_path)
    dataset = load(f"folder:{tmp_path / 'train'}")
    assert list(dataset.parts) == ["all"]
    assert len(dataset) == 6


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_stands_in_for_test(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path)
    (tmp_path / "test").rename(tmp_path / name)
    with caplog.at_level(logging.WARNING):
        assert len(load(f"folder:{tmp_path}").parts["test"]) == 6
    assert f"{name} is used as such" in caplog.text


def test_test_and_validation_are_kept_apart(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_png(tmp_path / "val/cat/0.png", noise(1, 3, 6, 5, seed=5)[0])
    assert {part: len(indices) for part, indices in load(f"folder:{tmp_path}").parts.items()} == {
        "train": 6,
        "test": 6,
        "validation": 1,
    }


def test_other_files_are_passed_over_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path)
    (tmp_path / "train/cat/notes.txt").write_text("no image")
    (tmp_path / "train/cat/.hidden.png").write_text("no image")
    (tmp_path / "train/.ipynb_checkpoints").mkdir()
    with caplog.at_level(logging.WARNING):
        assert len(load(f"folder:{tmp_path}")) == 12
    assert "Skipped 1 file without the suffix" in caplog.text


def test_images_in_deeper_folders_and_behind_links(tmp_path: Path) -> None:
    write_folder(tmp_path / "set")
    write_png(tmp_path / "elsewhere/x.png", noise(1, 3, 6, 5, seed=9)[0])
    (tmp_path / "set/train/cat/more").symlink_to(tmp_path / "elsewhere")
    assert len(load(f"folder:{tmp_path / 'set'}").parts["train"]) == 7


def loop(root: Path) -> None:
    (root / "train/cat/again").symlink_to(root / "train")


def broken_link(root: Path) -> None:
    (root / "train/cat/gone.png").symlink_to(root / "nothing.png")


def self_link(root: Path) -> None:
    (root / "train/cat/self.png").symlink_to(root / "train/cat/self.png")


def broken_image(root: Path) -> None:
    (root / "train/dog/1.png").write_bytes((root / "train/dog/1.png").read_bytes()[:60])


def no_image(root: Path) -> None:
    (root / "train/dog/1.png").write_text("hello")


def empty_image(root: Path) -> None:
    (root / "train/dog/1.png").write_bytes(b"")


def empty_class(root: Path) -> None:
    (root / "train/bird").mkdir()


def class_in_test_alone(root: Path) -> None:
    write_png(root / "test/bird/0.png", noise(1, 3, 6, 5)[0])


def other_shape(root: Path) -> None:
    write_png(root / "test/cat/1.png", noise(1, 3, 7, 5)[0])


def no_test(root: Path) -> None:
    (root / "test").rename(root / "elsewhere")


def empty_test(root: Path) -> None:
    for path in (root / "test").rglob("*.png"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (loop, "again/cat leads back, by a symbolic link"),
        (broken_link, "gone.png is not a file"),
        (self_link, r"self.png"),
        (broken_image, "train/dog/1.png is not a readable image"),
        (no_image, "train/dog/1.png is not a readable image: its format is not recognised"),
        (empty_image, "train/dog/1.png is not a readable image"),
        (empty_class, "in its training part: bird"),
        (class_in_test_alone, "in its training part: bird"),
        (other_shape, r"test/cat/1.png is 7×5, the first one 6×5.*--image-size"),
        (no_test, "holds train and no test"),
        (empty_test, "test holds no images"),
    ],
)
def test_damage_is_one_clear_error(damage, message: str, tmp_path: Path) -> None:
    write_folder(tmp_path)
    damage(tmp_path)
    with pytest.raises(DatasetError, match=message):
        load(f"folder:{tmp_path}")


def test_images_of_different_shapes_are_brought_to_one_size(tmp_path: Path) -> None:
    write_folder(tmp_path)
    other_shape(tmp_path)
    assert load(f"folder:{tmp_path}", size=8).image_shape == (3, 8, 8)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no folders of classes"):
        load(f"folder:{tmp_path}")


def test_files_without_classes(tmp_path: Path) -> None:
    write_png(tmp_path / "train/0.png", noise(1, 3, 4, 4)[0])
    write_png(tmp_path / "test/0.png", noise(1, 3, 4, 4)[0])
    with pytest.raises(DatasetError, match="train holds no folders of classes"):
        load(f"folder:{tmp_path}")


def test_grey_images_stay_grey_until_one_has_colour(tmp_path: Path) -> None:
    write_folder(tmp_path, shape=(1, 6, 5))
    grey = load(f"folder:{tmp_path}")
    assert grey.image_shape == (1, 6, 5)
    assert load(f"folder:{tmp_path}", channels=1).fingerprint == grey.fingerprint
    write_png(tmp_path / "test/dog/2.png", noise(1, 3, 6, 5)[0])
    for _ in range(2):  # decoded, then remembered
        mixed = load(f"folder:{tmp_path}")
        assert mixed.image_shape == (3, 6, 5)
        assert np.array_equal(mixed.images[0].numpy(), np.repeat(grey.images[0].numpy(), 3, axis=0))
    assert load(f"folder:{tmp_path}", channels=3).fingerprint == mixed.fingerprint
    assert load(f"folder:{tmp_path}", channels=1).image_shape == (1, 6, 5)


def test_limit_decodes_only_what_stays(tmp_path: Path) -> None:
    write_folder(tmp_path, per_class=5)
    kept = load(f"folder:{tmp_path}", limit=4)
    assert {part: len(indices) for part, indices in kept.parts.items()} == {"train": 4, "test": 4}
    assert np.bincount(kept.labels).tolist() == [4, 4]
    whole = load(f"folder:{tmp_path}").images.numpy()
    for image, label in zip(kept.images.numpy(), kept.labels, strict=True):
        (place,) = np.flatnonzero((whole == image).all(axis=(1, 2, 3)))
        assert load(f"folder:{tmp_path}").labels[place] == label
