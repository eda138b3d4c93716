"""The results in docs/results are whole, name no machine, and can be read by everything that reads a study."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pandas
import pytest

from securitynet.analysis import claims, findings, sources
from securitynet.analysis.figures.declared import list_figures
from securitynet.analysis.findings import ClaimFinding
from securitynet.results.store import TrialStore, parse_trial
from securitynet.results.study_targets import StudyTargetStore, parse_study_target
from securitynet.studies.definition.file import read_study

RESULTS = Path(__file__).parents[2] / "docs" / "results"
NETWORKS, DOCTOR, EPOCHS = (RESULTS / name for name in ("public-networks", "ml-doctor", "ml-doctor-epochs"))
READY = {NETWORKS: "public-networks", DOCTOR: "cifar10-ml-doctor", EPOCHS: "ml-doctor-epochs-small"}
FEWEST = {NETWORKS: (101, 10), DOCTOR: (336, 28), EPOCHS: (50, 5)}
"""Folder -> the fewest trials and targets that it must hold."""
PUBLISHED = pytest.mark.parametrize("folder", READY, ids=lambda path: path.name)


@cache
def load(folder: Path) -> pandas.DataFrame:
    return sources.load_frames(str(folder))


@PUBLISHED
def test_every_file_has_the_digest_of_its_content_and_no_path_of_a_machine(folder: Path) -> None:
    trials, targets = sorted((folder / "trials").rglob("*.json")), sorted((folder / "subjects").glob("*.json"))
    assert len(trials) >= FEWEST[folder][0] and len(targets) >= FEWEST[folder][1]
    for path in trials:
        assert parse_trial(path.read_bytes()).id == path.stem
    for path in targets:
        assert parse_study_target(path.read_bytes()).key == path.stem
    for path in (*trials, *targets, folder / "study.toml"):
        assert not re.search(r"/(work|root|home|tmp|Users)/", path.read_text(encoding="utf-8")), path
    assert not [path for path in folder.rglob("*") if path.suffix in (".npz", ".pth", ".png", ".safetensors")]
    assert sum(path.stat().st_size for path in (*trials, *targets)) < 5_000_000


def test_networks_that_fail_a_check_are_left_out_with_the_reason() -> None:
    doubtful = [record for record in StudyTargetStore(NETWORKS) if record.doubtful]
    assert [check.what for record in doubtful for check in record.checks if not check.agrees] == ["chance"]
    skipped = [trial for trial in TrialStore(NETWORKS) if trial.status == "skipped"]
    assert {trial.reason for trial in skipped} == {
        "the target fails the check of its accuracy, which is hardly better than chance"
    }
    assert {trial.spec.target.checksum for trial in skipped} == {record.means.target.checksum for record in doubtful}
    assert not set(load(NETWORKS)["model"]).intersection(record.label for record in doubtful)


@PUBLISHED
def test_the_study_is_the_ready_one(folder: Path) -> None:
    assert read_study(folder / "study.toml") == read_study(RESULTS.parents[1] / "studies" / f"{READY[folder]}.toml")


@pytest.mark.parametrize("folder", [DOCTOR, EPOCHS], ids=lambda path: path.name)
def test_every_target_and_trial_of_ml_doctor_is_there(folder: Path) -> None:
    assert {record.status for record in StudyTargetStore(folder)} == {"ok"}
    assert {trial.status for trial in TrialStore(folder)} == {"ok"}


def cells(line: str) -> list[str]:
    """The cells of a row of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def read_page() -> list[list[str]]:
    """The rows of all tables of the page."""
    text = (RESULTS / "ml-doctor.md").read_text(encoding="utf-8")
    return [cells(line) for line in text.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_the_page_shows_the_tables_that_figures_draw(number: int) -> None:
    both = sources.load_frames(["ml-doctor", str(DOCTOR)])
    drawn = list_figures()[f"ml-doctor-table-{number}"].make(both).data.astype(str)
    measured = {cell for column in drawn for cell in drawn[column] if "[" in cell}
    assert len(measured) > 3
    shown = {cell for row in read_page() for cell in row}
    assert measured <= shown
    printed = {
        cell.partition(" (no interval)")[0] for column in drawn for cell in drawn[column] if "no interval" in cell
    }
    assert printed <= shown | {"–"}


def test_the_page_states_each_finding_with_its_verdict() -> None:
    rows = {row[0]: row[1:] for row in read_page()}
    judged = [
        one for one in findings.judge_claims(claims.EVERY, load(DOCTOR)) if one.claim.source.startswith("ML-Doctor")
    ]
    tested = [one for one in judged if one.status != "not tested"]
    assert len(tested) > 10
    for one in tested:
        here, verdict = rows[one.claim.sentence]
        assert describe(one) in here and verdict == VERDICTS[one.status], one.sentence


def test_the_page_shows_the_figure_of_epochs_in_numbers() -> None:
    drawn = list_figures()["ml-doctor-9"].make(load(EPOCHS)).data
    rows = {row[0]: row[1:] for row in read_page()}
    for condition, part in drawn.groupby("condition"):
        part = part.sort_values("epochs", key=pandas.to_numeric)
        values = part[["value", "low", "high"]].to_numpy(float)
        assert rows[condition] == [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in values]


VERDICTS = {"supported": "yes", "contradicted": "no", "undecided": "undecided"}


def describe(one: ClaimFinding) -> str:
    """The estimate as the finding writes it, with n."""
    found = re.search(r"[−0-9.]+ \[[^]]+\], n = [0-9,]+", one.sentence)
    assert found, one.sentence
    return found.group()
