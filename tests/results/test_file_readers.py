"""Reading the files of a study in several processes: the rows are those of one process."""

import pytest

from securitynet.results import file_readers
from securitynet.results.file_readers import read_row_parts
from securitynet.results.file_rows import read_rows
from securitynet.results.index import Index
from securitynet.results.root import FolderRoot
from securitynet.results.store import TrialStore
from trial_files import make_trial

AUC = {"name": "membership.loss.auc", "value": 0.5, "low": 1e-05, "high": 0.9, "n": 9, "direction": "lower",
       "method": "by hand"}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Thirty trials; one is damaged, and one has the name of another."""
    root = FolderRoot(tmp_path_factory.mktemp("results"))
    store = TrialStore(root)
    paths = [
        store.path(store.save(make_trial(seed, status="ok", reason=None, measurements=[AUC])).id) for seed in range(30)
    ]
    paths[3].write_text(paths[3].read_text().replace("finished", "ended"))
    paths[4].write_text(paths[5].read_text())
    return root


@pytest.fixture
def parts(root, monkeypatch):
    monkeypatch.setattr(file_readers, "FEWEST_FILES", 1)
    monkeypatch.setattr(file_readers, "_count_processors", lambda: 2)
    paths = [*(path for path, _ in root.files("trials", ".json")), "trials/ab/gone.json"]
    return [paths[start : start + 4] for start in range(0, len(paths), 4)]


def test_several_processes_give_the_rows_of_one(root, parts):
    expected = [read_rows(root, "name", part) for part in parts]
    assert sum(len(rows.read) for rows in expected) == 28 and sum(len(rows.damaged) for rows in expected) == 2
    assert list(read_row_parts(root, "name", parts)) == expected


@pytest.mark.parametrize("program", ["false", "/no/such/program"])
def test_files_are_read_where_a_process_cannot_be_used(root, parts, program, monkeypatch):
    expected = [read_rows(root, "name", part) for part in parts]
    monkeypatch.setattr("sys.executable", program)
    assert list(read_row_parts(root, "name", parts)) == expected


def test_the_index_is_the_same(root, parts, tmp_path):
    index = Index(tmp_path / "index.sqlite", root)
    refreshed = index.refresh()
    assert refreshed.read == 28 and len(refreshed.damaged) == 2
    assert [id_ for id_, _ in index.identified_trials()] == sorted(index.trial_states())
