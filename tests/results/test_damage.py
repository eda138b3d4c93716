"""A disk that fills up at any write, and files that a power loss cut: what was there stays, and runs again."""

from __future__ import annotations

import hashlib
import json
import sqlite3

import numpy as np
import pandas
import pytest
import torch

from failing_disk import failing_disk
from securitynet.files import read_with_digest, write_json, write_with_digest
from securitynet.models.training.checkpoints import CheckpointFile, TrainingState
from securitynet.results.export import write_table
from securitynet.results.index import Index, IndexFailure
from securitynet.results.root import FolderRoot
from securitynet.results.store import TrialStore
from securitynet.results.study_targets import StudyTargetRecord, StudyTargetStore
from trial_files import make_trial


def make_target(reason):
    return StudyTargetRecord(key="k", label="a", status="failed", reason=reason, finished="2026")


def state(value):
    return TrainingState("f", 1, {"w": torch.full((2,), float(value))}, {}, "[]")


def write_trial(folder, value):
    TrialStore(folder).save(make_trial(reason=value), {"scores": np.full(3, len(value))})


def read_trial(folder):
    store = TrialStore(folder)
    trial = store.load(make_trial().id)
    assert trial is None or store.load_arrays(trial) is not None  # where a record exists, so do its arrays
    return None if trial is None else trial.reason


def read_file(path, parse):
    return parse(path) if path.exists() else None


INDEXES: dict[str, Index] = {}


@pytest.fixture(scope="module", autouse=True)
def indexes(tmp_path_factory):
    """Indexes of one failed target each, whose reason is old or new: what tables are written from."""
    for value in ("old", "new"):
        root = FolderRoot(tmp_path_factory.mktemp("indexed"))
        StudyTargetStore(root).save(make_target(value))
        INDEXES[value] = Index(tmp_path_factory.mktemp("index") / "index.sqlite", root)
        INDEXES[value].refresh()
    yield
    for index in INDEXES.values():
        index.close()


def read_reason(table):
    return pandas.read_csv(table)["reason"][0].removeprefix("the target could not be opened: ")


KINDS = {
    "trial": (write_trial, read_trial),
    "target": (
        lambda folder, value: StudyTargetStore(folder).save(make_target(value)),
        lambda folder: getattr(StudyTargetStore(folder).load("k"), "reason", None),
    ),
    "json": (
        lambda folder, value: write_json(folder / "x.json", {"a": value}),
        lambda folder: read_file(folder / "x.json", lambda path: json.loads(path.read_text())["a"]),
    ),
    "cache": (
        lambda folder, value: write_with_digest(folder / "x", value.encode()),
        lambda folder: read_file(folder / "x", lambda path: read_with_digest(path).decode()),
    ),
    "table": (
        lambda folder, value: write_table(INDEXES[value], folder / "x.csv"),
        lambda folder: read_file(folder / "x.csv", read_reason),
    ),
    "new file": (
        lambda folder, value: FolderRoot(folder).create(f"{value}.json", value.encode()),
        lambda folder: "new" if (folder / "new.json").exists() else "old" if (folder / "old.json").exists() else None,
    ),
}


@pytest.mark.parametrize("before", ["old", None])
@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_fills_up_at_any_write(tmp_path, kind, before):
    """For every n: the old content stays whole, nothing is left over, and it can be written later."""
    write, read = KINDS[kind]
    with failing_disk(None) as disk:
        write(tmp_path / "count", "new")
    assert disk.operations >= 2
    for number in range(1, disk.operations + 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        if before is not None:
            write(folder, before)
        with failing_disk(number), pytest.raises(OSError, match="No space left"):
            write(folder, "new")
        assert read(folder) == before
        assert not list(folder.rglob(".*.tmp"))
        write(folder, "new")
        assert read(folder) == "new"


def test_checkpoints_on_a_full_disk(tmp_path):
    """The state before survives, and training goes on from it."""
    with failing_disk(None) as disk:
        CheckpointFile(tmp_path / "count", print).write(state(1))
    for number in range(1, disk.operations + 1):
        file = CheckpointFile(tmp_path / str(number), print)
        file.write(state(1))
        with failing_disk(number), pytest.raises(OSError, match="No space left"):
            file.write(state(2))
        assert file.read("f").module["w"].tolist() in ([1.0, 1.0], [2.0, 2.0])


# The index


@pytest.fixture
def index_file(tmp_path):
    """The index of five trials, and their root."""
    root = FolderRoot(tmp_path / "results")
    for seed in range(5):
        TrialStore(root).save(make_trial(seed))
    StudyTargetStore(root).save(make_target("old"))
    path = tmp_path / "index.sqlite"
    index = Index(path, root)
    index.refresh()
    index.close()
    return path, root


def test_records_come_back_from_the_index(index_file):
    path, root = index_file
    index = Index(path, root)
    assert [trial.spec.seed for trial in sorted(index.trials(), key=lambda trial: trial.spec.seed)] == list(range(5))
    assert [record.reason for record in index.target_records()] == ["old"]
    index.close()


def test_an_index_beside_its_files_does_not_name_the_folder(index_file):
    _, root = index_file
    index = Index(root.folder / "index.sqlite", root)
    index.refresh()
    assert len(list(index.trials())) == 5
    index.close()
    assert str(root.folder).encode() not in (root.folder / "index.sqlite").read_bytes()


@pytest.mark.parametrize("record", ["[]", "{}", "x", b"{}", None, 1])
def test_an_index_that_someone_else_made(index_file, record):
    """Its rows hold anything, with the right checksums."""
    path, root = index_file
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '')")
    with sqlite3.connect(path) as database:
        checksum = hashlib.sha256(str(record).encode()).hexdigest()
        database.execute("UPDATE result_trials SET record = ?, checksum = ?", [record, checksum])
    index = Index(path, root)
    with pytest.raises(IndexFailure, match="reindex"):
        list(index.trials())
    index.close()


@pytest.mark.parametrize("damage", ["flip the head", "cut", "empty", "noise", "zero pages"])
def test_a_damaged_index_is_made_again(index_file, damage):
    path, root = index_file
    content = path.read_bytes()
    path.write_bytes(
        {
            "flip the head": bytes([content[0] ^ 1]) + content[1:],
            "cut": content[: len(content) // 2],
            "empty": b"",
            "noise": np.random.default_rng(0).bytes(len(content)),
            "zero pages": content[:4096] + bytes(len(content) - 4096),
        }[damage]
    )
    index = Index(path, root)
    index.refresh()
    assert len(list(index.trials())) == 5 and len(index.trial_states()) == 5
    index.close()


def test_a_flipped_byte_in_the_index_is_noticed(index_file):
    """Of the copies of records in it, none that was changed is taken for the record."""
    path, root = index_file
    with sqlite3.connect(path) as database:
        database.execute("UPDATE result_trials SET record = replace(record, '\"old\"', '\"odd\"')")
    index = Index(path, root)
    with pytest.raises(IndexFailure, match="reindex"):
        list(index.trials())
    index.rebuild()
    assert len(list(index.trials())) == 5
    index.close()


def test_an_index_of_another_version_is_made_again(index_file):
    path, root = index_file
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE result_trials DROP COLUMN checksum")
    index = Index(path, root)
    assert index.refresh().read == 6
    assert len(list(index.trials())) == 5 and len(list(index.target_records())) == 1
    index.close()


def test_an_index_on_a_full_disk(index_file):
    path, root = index_file
    for seed in range(5, 200):
        TrialStore(root).save(make_trial(seed, reason="x" * 500))
    index = Index(path, root)
    with index._engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {path.stat().st_size // 4096 + 2}")
        connection.commit()
    with pytest.raises(OSError, match="No space left"):
        index.refresh()
    index.close()
    again = Index(path, root)
    assert again.refresh().read == 195 and len(list(again.trials())) == 200
    again.close()
