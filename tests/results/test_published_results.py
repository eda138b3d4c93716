"""The results in docs/results are whole, name no machine, and can be read by everything that reads a study."""

from __future__ import annotations

import re
from pathlib import Path

from securitynet.analysis import sources
from securitynet.results.store import TrialStore, parse_trial
from securitynet.results.study_targets import StudyTargetStore, parse_study_target
from securitynet.studies.definition.file import read_study

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "public-networks"


def test_every_file_has_the_digest_of_its_content_and_no_path_of_a_machine() -> None:
    trials, targets = sorted((RESULTS / "trials").rglob("*.json")), sorted((RESULTS / "subjects").glob("*.json"))
    assert len(trials) > 100 and len(targets) >= 10
    for path in trials:
        assert parse_trial(path.read_bytes()).id == path.stem
    for path in targets:
        assert parse_study_target(path.read_bytes()).key == path.stem
    for path in (*trials, *targets, RESULTS / "study.toml"):
        assert not re.search(r"/(work|root|home|tmp|Users)/", path.read_text(encoding="utf-8")), path
    assert not [path for path in RESULTS.rglob("*") if path.suffix in (".npz", ".pth", ".png", ".safetensors")]
    assert sum(path.stat().st_size for path in (*trials, *targets)) < 5_000_000


def test_networks_that_fail_a_check_are_left_out_with_the_reason() -> None:
    doubtful = [record for record in StudyTargetStore(RESULTS) if record.doubtful]
    assert [check.what for record in doubtful for check in record.checks if not check.agrees] == ["chance"]
    skipped = [trial for trial in TrialStore(RESULTS) if trial.status == "skipped"]
    assert {trial.reason for trial in skipped} == {
        "the target fails the check of its accuracy, which is hardly better than chance"
    }
    assert {trial.spec.target.checksum for trial in skipped} == {record.means.target.checksum for record in doubtful}
    tidy = sources.load_frames(str(RESULTS))
    assert not set(tidy["model"]).intersection(record.label for record in doubtful)


def test_the_study_is_the_ready_one() -> None:
    ready = RESULTS.parents[2] / "studies" / "public-networks.toml"
    assert read_study(RESULTS / "study.toml") == read_study(ready)
