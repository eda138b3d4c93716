"""What is doubtful about a target is recorded with each of its trials, whichever worker runs them."""

from __future__ import annotations

from securitynet.results.store import TrialStore

MODEL = """
[[train]]
architecture = "simple-cnn"
epochs = 2
"""
ATTACKS = """
[[attacks]]
name = "noop"
threat_models = ["black-box/none"]
settings = { number = 1 }

[[attacks]]
name = "noop"
threat_models = ["black-box/none"]
settings = { number = 2, mode = "exit" }

[[attacks]]
name = "noop"
threat_models = ["black-box/none"]
settings = { number = 3 }
"""


def test_a_worker_that_follows_another_finds_the_same_doubts(box):
    path = box.write(ATTACKS, models=MODEL)
    path.write_text(path.read_text().replace("limit = 60", "limit = 200").replace('head = "logits"', ""))
    box.run()
    trials = [trial for trial in TrialStore(box.out) if trial.status == "ok"]
    assert len(trials) == 2 and len({trial.doubts for trial in trials}) == 1, [trial.doubts for trial in trials]
