"""Folders as people have them: parts under other names, one folder deeper, beside thumbnails, in any file name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from dataset_files import noise, write_folder, write_png
from securitynet.datasets import load
from securitynet.datasets.parts import looks_like_part, read_part
from securitynet.errors import DatasetError


def write_classes(place: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 2) -> None:
    for number, name in enumerate(classes):
        for k in range(count):
            write_png(place / name / f"{k}.png", noise(1, 3, 6, 5, seed=10 * number + k)[0])


def sizes(reference: str) -> tuple[tuple[str, ...], dict[str, int]]:
    dataset = load(reference)
    return dataset.class_names, {part: len(indices) for part, indices in dataset.parts.items()}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("training_set", "test_set"),
        ("Train", "Test"),
        ("TRAIN", "TEST"),
        ("train", "Test"),
        ("train_images", "test-images"),
        ("trainset", "testset"),
        ("trainImages", "valImages"),
        ("train", "valid"),
        ("train", "eval"),
        ("training data", "hold_out"),
        ("seg_train", "seg_test"),
        ("cifar_train", "cifar_validation"),
    ],
)
def test_parts_are_recognised_by_the_names_people_give_them(train: str, test: str, tmp_path: Path) -> None:
    write_classes(tmp_path / train, count=3)
    write_classes(tmp_path / test)
    assert sizes(f"folder:{tmp_path}") == (("cat", "dog"), {"train": 6, "test": 4})


def test_the_third_part_is_the_validation(tmp_path: Path) -> None:
    for name, count in (("Training", 3), ("Test_Set", 2), ("Valid", 1)):
        write_classes(tmp_path / name, count=count)
    assert sizes(f"folder:{tmp_path}")[1] == {"train": 6, "test": 4, "validation": 2}


@pytest.mark.parametrize("inner", ["data", "archive/data", "training_set"])
def test_a_folder_that_only_holds_another_is_looked_through(inner: str, tmp_path: Path) -> None:
    write_folder(tmp_path / inner)
    assert sizes(f"folder:{tmp_path}") == (("cat", "dog"), {"train": 6, "test": 6})


def test_each_part_may_lie_one_folder_deeper(tmp_path: Path) -> None:
    write_classes(tmp_path / "training_set/training_set", count=3)
    write_classes(tmp_path / "test_set/test_set")
    assert sizes(f"folder:{tmp_path}") == (("cat", "dog"), {"train": 6, "test": 4})


def test_classes_alone_one_folder_deeper(tmp_path: Path) -> None:
    write_classes(tmp_path / "images")
    assert sizes(f"folder:{tmp_path}") == (("cat", "dog"), {"all": 4})


def test_parts_beside_folders_without_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "images")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/list.xml").write_text("<x/>")
    assert sizes(f"folder:{tmp_path}") == (("cat", "dog"), {"train": 6, "test": 6})


def test_parts_inside_the_classes(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for part, count in (("train", 3), ("Test", 2)):
            for k in range(count):
                write_png(tmp_path / name / part / f"{k}.png", noise(1, 3, 6, 5, seed=k)[0])
    assert sizes(f"folder:{tmp_path}") == (("cat", "dog"), {"train": 6, "test": 4})


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("cat", "dog", "test_set"), "holds test_set beside cat, dog: it is unclear"),
        (("cat", "dog", "test"), "holds test beside cat, dog"),
        (("cat", "dog", "unlabeled"), "holds unlabeled beside"),
        (("cat", "dog", "dev/cat", "dev/dog"), "holds dev beside cat, dog"),
        (("cat", "dog", "my_train_2/cat"), "holds my_train_2 beside"),
        (("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"), "holds fold1, fold2: it is unclear"),
        (
            ("Testdaten/cat", "Testdaten/dog", "Trainingsdaten/cat", "Trainingsdaten/dog"),
            "holds Testdaten, Trainingsdaten: it is unclear",
        ),
        (("cat_train/x", "cat_test/x", "dog_train/x", "dog_test/x"), "it is unclear"),
        (("Train/cat", "Training/cat", "Test/cat"), "several folders that may be its train part: Train, Training"),
        (("training_set/cat", "training_set/dog"), "holds training_set and no test part"),
        (
            ("training_set/cat", "training_set/dog", "others/x"),
            "holds training_set and no test part .beside it: others",
        ),
        (("day/train/cat", "day/test/cat", "night/train/cat", "night/test/cat"), "holds no parts, but day, night does"),
        (("train/cat", "train/dog", "train/val/cat", "train/val/dog", "test/cat", "test/dog"), "holds val beside"),
        (("only/one",), "holds the images of one class"),
        (("cat",), "holds the images of one class, cat"),
    ],
)
def test_what_may_be_part_or_class_is_one_clear_error(folders: tuple[str, ...], message: str, tmp_path: Path) -> None:
    for number, name in enumerate(folders):
        write_png(tmp_path / name / "0.png", noise(1, 3, 6, 5, seed=number)[0])
    with pytest.raises(DatasetError, match=message):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    "classes", [("train", "bus", "car"), ("invalid", "valid"), ("airport", "train_station"), ("part1", "part2")]
)
def test_classes_that_are_called_like_parts_stay_classes(classes: tuple[str, ...], tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_classes(tmp_path / part, classes)
    assert load(f"folder:{tmp_path}").class_names == tuple(sorted(classes))
    if "train" not in classes:  # alone, a folder train beside others has always been an error
        assert load(f"folder:{tmp_path / 'train'}").class_names == tuple(sorted(classes))


def test_folders_of_the_same_names_in_each_class_are_doubted(tmp_path: Path) -> None:
    for name in ("learn/cat", "learn/dog", "check/cat", "check/dog"):
        write_png(tmp_path / name / "0.png", noise(1, 3, 6, 5)[0])
    dataset = load(f"folder:{tmp_path}")
    assert dataset.class_names == ("check", "learn")
    assert any("check, learn, ... are taken for classes" in note for note in dataset.notes)


def test_names() -> None:
    assert {read_part(name) for name in ("train", "Training Set", "TrainImages", "train-data", "trn")} == {"train"}
    assert {read_part(name) for name in ("strain", "trainee", "contest", "latest", "value", "train_station", "")} == {
        None
    }
    assert not any(
        looks_like_part(name, holds_folders=True) for name in ("strain", "contest", "valley", "apart", "cat")
    )


def test_what_programs_leave_is_skipped_and_counted(tmp_path: Path) -> None:
    written = write_folder(tmp_path)
    clean = load(f"folder:{tmp_path}")
    for place in ("", "train", "train/cat", "test/dog"):
        for clutter in (
            "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
            ".ipynb_checkpoints/0-checkpoint.png",
            "__MACOSX/._0.png",
        ):
            write_png(tmp_path / place / clutter, noise(1, 3, 9, 9)[0])
        for clutter in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
            (tmp_path / place / clutter).write_bytes(b"\0")
    cluttered = load(f"folder:{tmp_path}")
    assert cluttered.fingerprint == clean.fingerprint and len(cluttered) == len(written)
    assert cluttered.class_names == ("cat", "dog")
    (note,) = cluttered.notes
    assert note.startswith("28 files were skipped that programs leave beside images")


def test_file_names_and_classes_that_are_no_utf8(tmp_path: Path) -> None:
    write_folder(tmp_path)
    try:
        (tmp_path / "train/cat/0.png").rename(tmp_path / "train/cat" / os.fsdecode(b"caf\xe9.png"))
        for part in ("train", "test"):
            (tmp_path / part / "dog").rename(tmp_path / part / os.fsdecode(b"ch\xefen"))
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    dataset = load(f"folder:{tmp_path}")
    assert dataset.class_names == ("cat", r"ch\xefen")
    names = [dataset.get_record_name(index) for index in range(len(dataset))]
    assert r"train/cat/caf\xe9.png" in names
    assert load(f"folder:{tmp_path}").fingerprint == dataset.fingerprint
    (tmp_path / "list.txt").write_bytes(b"train/cat/caf\xe9.png\n")
    chosen = load(f"folder:{tmp_path}", members=tmp_path / "list.txt").parts["train"]
    assert [names[index] for index in chosen] == [r"train/cat/caf\xe9.png"]
    (tmp_path / "train/cat" / os.fsdecode(b"caf\xe9.png")).write_text("no image")
    with pytest.raises(DatasetError, match=r"caf\\xe9.png is not a readable image"):
        load(f"folder:{tmp_path}")


def test_records_are_called_after_their_files(tmp_path: Path) -> None:
    write_folder(tmp_path)
    dataset = load(f"folder:{tmp_path}", limit=4)
    assert {dataset.get_record_name(index) for index in dataset.parts["test"]} < {
        f"test/{name}/{k}.png" for name in ("cat", "dog") for k in range(3)
    }
    for index in range(len(dataset)):
        whole = load(f"folder:{tmp_path}")
        (place,) = [k for k in range(len(whole)) if whole.get_record_name(k) == dataset.get_record_name(index)]
        assert np.array_equal(whole.batch(np.array([place])), dataset.batch(np.array([index])))


def test_an_array_dataset_calls_them_after_part_and_position() -> None:
    digits = load("digits")
    assert digits.get_record_name(int(digits.parts["test"][5])) == "test/5"
    assert load("digits", limit=100).get_record_name(0).startswith(("train/", "test/"))


def test_a_folder_given_as_a_name_is_told_how_to_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DatasetError, match=r"photos is a folder.*Write folder:photos"):
        load("photos")
    with pytest.raises(DatasetError, match="Write folder:~/photos"):
        load("~/photos")
    assert len(load("folder:~/photos")) == 12
    with pytest.raises(DatasetError, match=r"There is no folder \./pictures"):
        load("./pictures")
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="Unpack it"):
        load("photos.zip")
    with pytest.raises(DatasetError, match="is a file, not a folder"):
        load("folder:photos.zip")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/train.parquet").write_bytes(b"")
    with pytest.raises(DatasetError, match="Write parquet:tables"):
        load("tables")
    with pytest.raises(DatasetError, match="Write parquet:"):
        load("folder:tables")
    with pytest.raises(DatasetError, match="Write folder:"):
        load("parquet:photos")
