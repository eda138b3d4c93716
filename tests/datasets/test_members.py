"""Who is a member, as the user states it: lists of files and numbers, tables, masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_files import noise, write_folder, write_parquet, write_png
from securitynet.datasets import ImageDataset, load, public, with_members
from securitynet.datasets.members import resolve_members
from securitynet.errors import ConfigurationError, DatasetError, SplitError

NAMES = [f"{part}/{name}/{k}.png" for part in ("train", "test") for name in ("cat", "dog") for k in range(3)]


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "train/cat/0.png\ntest/dog/2.png\n",
        "./train/cat/0.png\r\n\r\ntest\\dog\\2.png",
        '"train/cat/0.png"\n"test/dog/2.png"\n',
        "file\ntrain/cat/0.png\ntest/dog/2.png\n",
        "Path ; note\ntrain/cat/0.png ; first\ntest/dog/2.png;\n",
        "train/cat/0\ntest/dog/2\n",
        "file,member\ntrain/cat/0.png,1\ntest/dog/2.png,true\n",
        ",file\n0,train/cat/0.png\n1,test/dog/2.png\n",
        "record\n0\n11\n",
        "0\n11\n",
        "index,loss\n0,0.5\n11.0,0.25\n",
        "train/cat/0.png\ntrain/cat/0.png\ntest/dog/2.png\n",
        "train/cat/0.png\ntest/dog/2.png\n".encode("utf-16"),
        "\ufefftrain/cat/0.png\ntest/dog/2.png\n".encode(),
        "photos/train/cat/0.png\n/elsewhere/photos/test/dog/2.png\n",
    ],
)
def test_lists_that_people_write(text: str | bytes, tmp_path: Path) -> None:
    found = resolve_members(written(tmp_path, text), None, NAMES, "folder:photos", tmp_path / "photos")
    assert found.members.tolist() == [0, 11]
    assert found.non_members.tolist() == list(range(1, 11))
    assert found.notes[0].startswith("Membership as stated: 2 members and 10 non-members of 12")


def test_a_part_of_a_path_will_do_where_it_is_unique(tmp_path: Path) -> None:
    names = ["train/cat/a.png", "train/dog/b.png", "test/cat/a.png", "test/dog/c.png"]
    assert resolve_members(written(tmp_path, "b.png\ndog/c\n"), None, names, "d").members.tolist() == [1, 3]
    with pytest.raises(DatasetError, match=r"line 1: 'cat/a.png' fits more than one record"):
        resolve_members(written(tmp_path, "cat/a.png\n"), None, names, "d")


def test_a_table_may_say_who_is_none(tmp_path: Path) -> None:
    path = written(tmp_path, "file,member\ntrain/cat/0.png,1\ntrain/cat/1.png,0\ntest/dog/2.png,no\n")
    found = resolve_members(path, None, NAMES, "d")
    assert (found.members.tolist(), found.non_members.tolist()) == ([0], [1, 11])
    assert "9 are neither and were left out" in found.notes[0]
    with pytest.raises(DatasetError, match="says itself who is none"):
        resolve_members(path, path, NAMES, "d")


@pytest.mark.parametrize(
    ("column", "yes", "no"),
    [("split", "train", "test"), ("Set", "Train", "Test"), ("in_training", "yes", "no"), ("is_train", "True", "False")],
)
def test_a_column_of_the_split_is_not_passed_over(column: str, yes: str, no: str, tmp_path: Path) -> None:
    """A table of all records with its split would otherwise make members of them all."""
    path = written(tmp_path, f"file,{column}\ntrain/cat/0.png,{yes}\ntrain/cat/1.png,{no}\n")
    found = resolve_members(path, None, NAMES, "d")
    assert (found.members.tolist(), found.non_members.tolist()) == ([0], [1])


def test_a_third_part_of_the_split_is_neither_guessed_nor_dropped(tmp_path: Path) -> None:
    path = written(tmp_path, "file,split\ntrain/cat/0.png,train\ntrain/cat/1.png,val\n")
    with pytest.raises(DatasetError, match="line 3: 'val' does not say who is a member"):
        resolve_members(path, None, NAMES, "d")


def test_numbers_that_may_be_names_of_files(tmp_path: Path) -> None:
    """Files are often called by numbers, which need not be those of the records."""
    names = [f"cat/{number}.png" for number in (3, 2, 1, 0)]
    with pytest.raises(DatasetError, match="may be names of files or numbers of records"):
        resolve_members(written(tmp_path, "3\n2\n"), None, names, "d")
    assert resolve_members(written(tmp_path, "record\n3\n2\n"), None, names, "d").members.tolist() == [2, 3]
    assert resolve_members(written(tmp_path, "3.png\n2.png\n"), None, names, "d").members.tolist() == [0, 1]
    far = [f"cat/{number:04d}.png" for number in (17, 18, 19)]
    assert resolve_members(written(tmp_path, "0017\n0019\n"), None, far, "d").members.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("train/cat/0.png\nval/cat/0.png\n", r"1 of 2 entries name no record.*'val/cat/0.png' \(line 2\).*called like"),
        ("99\n", "no record 99; d has the records 0 to 11"),
        ("record\nx\n", "line 2: 'x' is not the number"),
        ("a,b\n1,2\n", "has the columns 'a', 'b': none says which record"),
        ("file,member\ntrain/cat/0.png,perhaps\n", "'perhaps' does not say who is a member"),
        ("file,member\ntrain/cat/0.png\n", "line 2: 1 cells, and 2 columns"),
        (b"\x00\x01\x02", "is not a text file"),
    ],
)
def test_lists_that_make_no_sense(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        resolve_members(written(tmp_path, text), None, NAMES, "d")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (np.ones(11, dtype=bool), "mask of members has 11 values for 12 records"),
        (np.array([0, 1, 0, 1]), "name a record twice.*mask.astype"),
        ([3, 12], "there is no record 12"),
        ([-1], "there is no record -1"),
        ([0.5], "names of records, or their numbers"),
        (np.zeros((12, 2), dtype=bool), "one value a record"),
        (Path("nowhere.csv"), "There is no list of members nowhere.csv"),
    ],
)
def test_objects_that_make_no_sense(stated: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        resolve_members(stated, None, NAMES, "d")


@pytest.mark.parametrize("mask", [np.ones(12, dtype=bool), np.zeros(12, dtype=bool)])
def test_there_must_be_members_and_others(mask: np.ndarray) -> None:
    with pytest.raises(SplitError, match="there must be some of both"):
        resolve_members(mask, None, NAMES, "d")


def test_a_folder_loads_with_stated_members(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos")
    reference = f"folder:{tmp_path / 'photos'}"
    plain = load(reference)
    same = load(reference, members=written(tmp_path, "\n".join(NAMES[:6])))
    assert same.fingerprint == plain.fingerprint and same.members_stated and not plain.members_stated
    other = load(reference, members=[0, 10], non_members=[1, 2, 3])
    assert other.fingerprint != plain.fingerprint
    assert other.parts["train"].tolist() == [0, 10] and other.parts["test"].tolist() == [1, 2, 3]
    assert np.array_equal(other.images.numpy(), plain.images.numpy())
    splits = public(other)
    assert splits.members.tolist() == [0, 10] and splits.non_members.tolist() == [1, 2, 3]


def test_a_limit_is_one_of_members_and_non_members(tmp_path: Path) -> None:
    write_folder(tmp_path, per_class=8)
    mask = np.zeros(32, dtype=bool)
    mask[::2] = True
    whole = load(f"folder:{tmp_path}", members=mask)
    part = load(f"folder:{tmp_path}", members=mask, limit=4)
    members = {whole.get_record_name(index) for index in whole.parts["train"]}
    assert len(part.parts["train"]) == len(part.parts["test"]) == 4
    assert {part.get_record_name(index) for index in part.parts["train"]} < members


def test_not_every_class_needs_a_member(tmp_path: Path) -> None:
    write_folder(tmp_path)
    assert load(f"folder:{tmp_path}", members=[0, 1]).num_classes == 2


def test_one_part_alone_becomes_two(tmp_path: Path) -> None:
    for k in range(4):
        write_png(tmp_path / "ab"[k % 2] / f"{k}.png", noise(1, 3, 4, 4, seed=k)[0])
    dataset = load(f"folder:{tmp_path}", members=["0.png", "a/2.png"])
    assert [dataset.get_record_name(index) for index in dataset.parts["train"]] == ["a/0.png", "a/2.png"]


def test_tables_and_arrays_have_names_too(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    dataset = load(f"parquet:{tmp_path}", members=["train.parquet/2", "test.parquet/0"])
    assert dataset.parts["train"].tolist() == [2, 6]
    digits = load("digits", members=["train/0", "test/3"])
    plain = load("digits")
    assert digits.parts["train"].tolist() == sorted([int(plain.parts["train"][0]), int(plain.parts["test"][3])])


def test_a_loaded_dataset_takes_members() -> None:
    labels = np.array([0, 1] * 4)
    recorded = ImageDataset("outputs:o.csv", None, labels, ("a", "b"), {})
    stated = with_members(recorded, np.arange(8) < 3)
    assert stated.parts["train"].tolist() == [0, 1, 2]
    assert with_members(recorded, ["record 7"]).parts["train"].tolist() == [7]


def test_non_members_alone_are_not_enough(tmp_path: Path) -> None:
    write_folder(tmp_path)
    with pytest.raises(ConfigurationError, match="--members must state"):
        load(f"folder:{tmp_path}", non_members=[0])
