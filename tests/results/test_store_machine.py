"""Any order of writes, full disks, damage and deletions: the store and its index hold what was last written whole."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from failing_disk import failing_disk
from securitynet.results.index import Index
from securitynet.results.root import FolderRoot
from securitynet.results.store import TrialStore
from trial_files import make_trial

SEEDS = st.integers(0, 2)
REASONS = st.sampled_from(["disk", "memory", "crash"])


IDS = {seed: make_trial(seed).id for seed in range(3)}


class StoreMachine(RuleBasedStateMachine):
    """A store beside a plain dictionary of what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = TrialStore(self.folder)
        self.index = Index(self.folder / "index.sqlite", FolderRoot(self.folder))
        self.content: dict[int, str] = {}

    def teardown(self) -> None:
        self.index.close()
        shutil.rmtree(self.folder)

    def save(self, seed: int, reason: str) -> None:
        self.store.save(make_trial(seed, reason=reason), {"scores": np.full(2, len(reason))})

    @rule(seed=SEEDS, reason=REASONS)
    def write(self, seed: int, reason: str) -> None:
        self.save(seed, reason)
        self.content[seed] = reason

    @rule(seed=SEEDS, reason=REASONS, at=st.integers(1, 12))
    def write_on_a_full_disk(self, seed: int, reason: str, at: int) -> None:
        with failing_disk(at):
            try:
                self.save(seed, reason)
            except OSError:
                return
        self.content[seed] = reason

    @rule(seed=SEEDS, share=st.floats(0, 0.99), flip=st.booleans())
    def damage(self, seed: int, share: float, flip: bool) -> None:
        path = self.store.path(IDS[seed])
        if path.exists():
            content = bytearray(path.read_bytes())
            position = int(share * len(content))
            if flip:
                content[position] ^= 1
            path.write_bytes(content if flip else content[:position])
            self.content.pop(seed, None)

    @rule(seed=SEEDS)
    def delete(self, seed: int) -> None:
        self.store.path(IDS[seed]).unlink(missing_ok=True)
        self.content.pop(seed, None)

    @rule()
    def rebuild_the_index(self) -> None:
        self.index.rebuild()

    @invariant()
    def the_store_holds_what_was_written(self) -> None:
        for seed, id_ in IDS.items():
            trial = self.store.load(id_)
            assert (None if trial is None else trial.reason) == self.content.get(seed)
            assert trial is None or self.store.load_arrays(trial) is not None
        assert not list(self.folder.rglob(".*.tmp"))

    @invariant()
    def the_index_says_the_same(self) -> None:
        self.index.refresh()
        states = {id_: state.reason for id_, state in self.index.trial_states().items()}
        assert states == {IDS[seed]: reason for seed, reason in self.content.items()}


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=6, stateful_step_count=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
