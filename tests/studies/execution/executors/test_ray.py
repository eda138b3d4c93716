"""The Ray executor: two nodes on this machine, and what is lost with one of them."""

from __future__ import annotations

import os
import random
import signal
import time

import pandas
import pytest

from securitynet.results.store import TrialStore
from study_box import run_together

ray = pytest.importorskip("ray")

STEPS = """
[[attacks]]
name = "noop"
threat_models = ["black-box/none"]
[attacks.settings]
seconds = 0.6
shares = ["p"]
[attacks.grid]
number = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
mode = ["ok", "once-kill"]
"""


@pytest.fixture
def cluster(make_box, monkeypatch):
    """A box, and a cluster of a head without CPUs and two nodes of one CPU each, as processes of this machine."""
    from ray.cluster_utils import Cluster

    box = make_box("disturbed")
    for name, value in box.environment.items():
        monkeypatch.setenv(name, value)
    memory = {"object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory})
    for _ in range(2):
        cluster.add_node(num_cpus=1, **memory)
    yield box, cluster, memory
    cluster.shutdown()


@pytest.mark.slow
def test_nodes_and_runners_are_killed_and_the_table_is_the_same(cluster, make_box):
    box, nodes, memory = cluster
    box.write(STEPS)
    generator = random.Random(1)
    out = f"file://{box.out}"  # through fsspec, as to an object store
    arguments = ("run", box.folder / "study.toml", "--out", out, "--executor", "ray", "--address", nodes.address,
                 "--workers", 2, "--attempts", 30)  # fmt: skip
    lost: dict[str, int] = {"node": 0, "runner": 0}
    written: dict[str, set[int]] = {}

    def look() -> int:
        for path in (box.out / "trials").rglob("[0-9a-f]*.json"):
            written.setdefault(path.name, set()).add(path.stat().st_ino)
        return len(written)

    while sum(lost.values()) < 6:
        runner = box.start(*arguments)
        enough = look() + generator.randint(1, 4)  # not at fixed times: a busy machine may not have begun by then
        while runner.poll() is None:
            if look() >= enough and sum(lost.values()) < 6:
                time.sleep(generator.uniform(0, 0.8))
                enough = look() + generator.randint(1, 4)
                if lost["node"] <= lost["runner"]:
                    nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
                    nodes.add_node(num_cpus=1, **memory)
                    lost["node"] += 1
                else:
                    os.kill(runner.pid, signal.SIGKILL)
                    lost["runner"] += 1
            time.sleep(0.02)
        output = runner.communicate()
        assert runner.returncode in (0, -signal.SIGKILL), output
        if runner.returncode == 0 and sum(lost.values()) < 6:
            for path in generator.sample(sorted((box.out / "trials").rglob("*.json")), 20):
                path.unlink()
                del written[path.name]
    last = box.call(*arguments)
    assert last.returncode == 0, last.stderr
    assert look() == 40 and max(len(inodes) for inodes in written.values()) == 1
    stored = list(TrialStore(box.out))
    assert len(stored) == 40 and all(r.status == "ok" for r in stored)
    disturbed = box.table()
    calm = make_box("calm")
    calm.write(STEPS)
    assert calm.run().failed == 0
    pandas.testing.assert_frame_equal(calm.table(), disturbed)


@pytest.mark.slow
def test_a_poisonous_trial_and_a_cluster_that_is_too_small(cluster):
    box, nodes, _ = cluster
    box.write("""
[[attacks]]
name = "noop"
threat_models = ["black-box/none"]
[attacks.grid]
mode = ["ok", "raise", "exit", "hang"]
""", models='[[models]]\nreference = "python:a.py:make"')  # fmt: skip
    arguments = ("run", box.folder / "study.toml", "--out", box.out, "--executor", "ray", "--address", nodes.address)
    small = box.call(*arguments, "--cpus-per-worker", 8)
    assert small.returncode == 1 and "fits the cluster" in small.stderr
    done = box.call(*arguments, "--attempts", 2, "--time-limit", 6)
    assert done.returncode == 4, done.stderr
    results = {r.spec.configuration["mode"]: r for r in TrialStore(box.out)}
    assert results["ok"].status == "ok"
    assert "RuntimeError" in results["raise"].reason
    assert "2 times" in results["exit"].reason
    assert "time limit" in results["hang"].reason


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ok", "once-kill"])
def test_trials_of_several_targets_run_in_one_task_on_a_cluster(cluster, make_box, mode):
    box, nodes, _ = cluster
    attacks = run_together(bad="c.py", mode=mode, when="storing")
    box.write_networks(attacks, "abcdefgh")
    done = box.call("run", box.folder / "study.toml", "--out", box.out, "--executor", "ray", "--address", nodes.address,
                    "--workers", 2)  # fmt: skip
    assert done.returncode == 0, done.stderr
    groups = [line.count("+") + 1 for line in box.log("together")]
    assert groups and max(groups) > 1
    if mode == "ok":
        assert sum(groups) + len(box.log("alone")) == 8
    here = make_box("here")
    here.write_networks(run_together(bad="c.py", mode="ok", when="storing"), "abcdefgh")
    assert here.run().ok == 8
    if mode == "ok":
        pandas.testing.assert_frame_equal(here.table(), box.table())
    else:
        assert len(list(TrialStore(box.out))) == 8
