"""The lock of object stores: one runner at a time, numbers that only grow, and no write by one that lost it."""

from __future__ import annotations

import json
import threading
import time

import pytest

from securitynet.results.root import open_root
from securitynet.results.store import TrialStore
from securitynet.studies.execution import numbered_lock
from securitynet.studies.execution.lock import hold_study_lock
from securitynet.studies.execution.numbered_lock import StudyRuns, has_successor, hold_numbered_lock
from securitynet.studies.execution.term import TermOver, check_term

FIVE = '[[attacks]]\nname = "noop"\nthreat_models = ["black-box/none"]\n[attacks.grid]\nnumber = [1, 2, 3, 4, 5]'
ONE = '[[models]]\nreference = "python:a.py:make"'


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(numbered_lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(numbered_lock, "PATIENCE", 0.5)


@pytest.fixture(scope="module")
def bucket():
    """The URL of a bucket of a server that speaks S3, and the variables by which other processes find it."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("results")
        yield "s3://results", variables
    server.stop()


@pytest.fixture(params=["file", "memory", "folder", pytest.param("s3", marks=pytest.mark.slow)])
def root(request, tmp_path):
    if request.param == "s3":
        return open_root(f"{request.getfixturevalue('bucket')[0]}/{tmp_path.name}")
    places = {"file": f"file://{tmp_path}/r", "memory": f"memory://{tmp_path.name}/r", "folder": tmp_path / "r"}
    return open_root(places[request.param])


def test_a_file_is_created_once(root):
    assert root.create("locks/a.json", b"1") and not root.create("locks/a.json", b"2")
    assert root.read("locks/a.json") == b"1"
    if root.name.startswith("memory"):
        return  # its own check and write are two steps; it serves one process only
    winners = []
    threads = [
        threading.Thread(target=lambda n=n: root.create("locks/b.json", bytes([n])) and winners.append(n))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1 and root.read("locks/b.json") == bytes(winners)


def test_one_runner_at_a_time(root, quick):
    with (
        hold_numbered_lock(root, lambda text: None) as first,
        pytest.raises(StudyRuns),
        hold_numbered_lock(root, lambda text: None),
    ):
        pass
    started = time.monotonic()
    with hold_numbered_lock(root, lambda text: None) as second:  # released: there is nothing to wait for
        assert second == first + 1
    assert time.monotonic() - started < 0.45
    assert has_successor(root, first) and not has_successor(root, second)


def test_a_dead_runner_is_replaced_and_writes_nothing_more(root, quick):
    notes: list[str] = []
    root.write("locks/00000007.json", b'{"host": "gone", "beat": 3}')
    check_term(root, "7:abc")
    with hold_numbered_lock(root, notes.append) as number:
        assert number == 8 and "waiting to see" in notes[0]
        with pytest.raises(TermOver):
            check_term(root, "7:abc")
        check_term(root, "8:def")
        root.write("term", b"7:abc")  # the old runner wakes up and writes its mark
        check_term(root, "8:def")


def test_racing_runners_exclude_each_other(tmp_path, quick):
    """Many at once on one root: those that hold the lock never overlap, and every number is given once."""
    holding, numbers, overlaps = [], [], []

    def work():
        root = open_root(f"file://{tmp_path}/r")
        for _ in range(3):
            try:
                with hold_numbered_lock(root, lambda text: None) as number:
                    holding.append(number)
                    overlaps.append(len(holding))
                    time.sleep(0.01)
                    numbers.append(number)
                    holding.remove(number)
            except StudyRuns:
                pass

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(overlaps) == {1} and len(set(numbers)) == len(numbers) >= 3


def test_only_recent_numbers_stay(root, quick):
    for number in range(1, 61):
        root.write(f"locks/{number:08d}.json", b'{"released": true}')
    with hold_numbered_lock(root, lambda text: None) as number:
        assert number == 61
    assert len(list(root.files("locks", ".json"))) == 51


def test_a_folder_without_locks_has_numbers(tmp_path, quick, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    root = open_root(tmp_path / "r")
    with hold_study_lock(tmp_path / "one", root, print) as lock:
        assert lock.number == 1
        with pytest.raises(StudyRuns), hold_study_lock(tmp_path / "two", root, print):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("store", ["file", "s3"])
def test_two_whole_studies_on_one_store(box, tmp_path, store, request):
    """Started at once with different state folders: one runs all trials, the other is refused; nothing runs twice."""
    out = f"file://{tmp_path}/remote"
    if store == "s3":
        address, variables = request.getfixturevalue("bucket")
        out = f"{address}/two"
        box.environment |= variables
    study = box.write(FIVE, models=ONE)
    processes = []
    for name in ("one", "two"):
        box.environment["SECURITYNET_DATA"] = str(tmp_path / name)
        processes.append(box.start("run", study, "--out", out, "--workers", 1, "--threads", 1))
    ended = [process.communicate(timeout=200)[1] for process in processes]
    codes = sorted(process.returncode for process in processes)
    assert codes in ([0, 0], [0, 1]), ended  # the second may come when the first is done
    assert codes == [0, 0] or "Another runner is working" in "".join(ended)
    assert sorted(box.log("ran")) == [f"{number}-0" for number in range(1, 6)]
    trials = list(TrialStore(open_root(out)))
    assert len(trials) == 5 and all(trial.status == "ok" for trial in trials)
    marks = [json.loads(open_root(out).read(path)) for path, _ in open_root(out).files("locks", ".json")]
    assert marks and all(mark.get("released") for mark in marks)
