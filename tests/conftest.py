"""Shared: a quiet cache folder, the real material, and small targets whose truth is known."""

from __future__ import annotations

import gc
import subprocess
import types
from pathlib import Path

import numpy as np
import pytest

# To collect the tests imports libraries that stay: to look for garbage among them all the time takes a fifth of it.
gc.disable()

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    """Look for garbage as usual while tests run, though not among what was imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tests train tiny networks: dividing their operations among cores costs more than it saves on a busy one."""
    import torch  # here, as the process that only deals the tests to others needs none

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """No test reads or writes the user's cache and data folders."""
    monkeypatch.setenv("SECURITYNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SECURITYNET_DATA", str(tmp_path / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real material beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"the real material is not beside the repository ({SHARED.name} is absent)")
    return SHARED


@pytest.fixture(scope="session")
def digits():
    """The digits dataset, loaded once."""
    import securitynet.datasets

    return securitynet.datasets.load("digits")


@pytest.fixture(scope="session")
def overfitted(digits):
    """(target, splits): a small network that knows its 120 training records by heart, and fails on half of the rest."""
    from securitynet.datasets.splits import Splits
    from securitynet.testing import make_overfitted_case

    generator = np.random.default_rng(0)
    order = generator.permutation(len(digits)).astype(np.int64)
    members, non_members = np.sort(order[:120]), np.sort(order[120:240])
    # Half of the members carry a wrong label: the network can only learn those by heart, which generalises to nothing.
    labels = digits.labels.copy()
    wrong = members[::2]
    labels[wrong] = (labels[wrong] + 1 + generator.integers(0, 9, len(wrong))) % 10
    noisy = type(digits)(
        reference="noisy digits", images=digits.images, labels=labels, class_names=digits.class_names, parts={}
    )
    empty = np.empty(0, np.int64)
    splits = Splits("test", members, non_members, members[::2], non_members[::2], empty, empty)
    return make_overfitted_case().target, splits, noisy


@pytest.fixture(scope="session")
def unseen(overfitted):
    """Makes splits of records that the overfitted target never saw: 700 on each side, half of them known."""
    import dataclasses

    _, splits, dataset = overfitted
    rest = np.setdiff1d(np.arange(len(dataset)), np.concatenate([splits.members, splits.non_members]))

    def make(seed: int):
        order = np.random.default_rng(seed).permutation(rest).astype(np.int64)
        members, non_members = np.sort(order[:700]), np.sort(order[700:1400])
        return dataclasses.replace(
            splits,
            members=members,
            non_members=non_members,
            known_members=members[::2],
            known_non_members=non_members[::2],
            shadow_train=np.sort(order[1400:1478]),
            shadow_test=np.sort(order[1478:]),
        )

    return make


@pytest.fixture
def run_cli(tmp_path_factory):
    """Run the command line in a process of its own; returns the finished process, or the one that was killed.

    With ``kill_after`` seconds it gets a SIGKILL unless it has ended by then.
    """
    from command_line import run_command

    def run(
        *arguments: object, timeout: float = 300, kill_after: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        folder = tmp_path_factory.mktemp("streams")
        return run_command(list(map(str, arguments)), folder, timeout=timeout, kill_after=kill_after)

    return run


@pytest.fixture
def forked_workers(monkeypatch):
    """Studies that this process runs get workers that need not import torch again."""
    from forked_worker import ForkedWorker
    from securitynet.studies.execution.executors import local

    monkeypatch.setattr(local, "subprocess", types.SimpleNamespace(**{**vars(subprocess), "Popen": ForkedWorker}))


@pytest.fixture
def run_refused(capsys, monkeypatch, tmp_path):
    """Runs a command on a hostile input, and checks what must hold of each: it is refused, soon and in little memory.

    Returns its message, which is one and printable. Small files may grow to 10 MB, so that small bombs do.
    """
    import resource
    import sys
    import time

    from securitynet.cli.main import main
    from securitynet.untrusted import MAX_SIZE_VARIABLE

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(MAX_SIZE_VARIABLE, "0.01")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["securitynet", *map(str, arguments)])
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        assert stop.value.code == 1, captured.err
        assert time.process_time() - started < 10
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # in KB
        messages = [line for line in captured.err.splitlines() if line.startswith("error:")]
        assert len(messages) == 1 and "Traceback" not in captured.err, captured.err
        assert len(captured.err) < 6000
        assert not set(captured.out + captured.err) & set(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))
        return captured.err

    return call
