"""Results name the file of each record, with its class, its prediction and its score under each attack."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from securitynet.assessments.records import rank_among_non_members, write_records
from securitynet.assessments.result import to_document
from securitynet.attacks.membership._scores import MembershipScores
from securitynet.reports.build import render_report


@pytest.fixture
def named(assessed):
    """The assessment, of a dataset whose records have files."""
    _, found = assessed
    dataset = found.assessed_target.dataset
    names = [f"train/{dataset.labels[index]}/{index:05d}.png" for index in range(len(dataset))]
    subject = dataclasses.replace(found.assessed_target, dataset=dataclasses.replace(dataset, record_names=names))
    return dataclasses.replace(found, assessed_target=subject)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_row_for_each_scored_record(named, tmp_path: Path) -> None:
    assert write_records(named, tmp_path / "exposed.csv")
    rows = rows_of(tmp_path / "exposed.csv")
    dataset, signals = named.assessed_target.dataset, named.signals
    trials = {trial.name: trial.output for trial in named.trials if isinstance(trial.output, MembershipScores)}
    assert set(trials) == {"membership.correctness", "membership.modified-entropy"}
    assert len({row["record"] for row in rows}) == len(rows) >= max(len(output.indices) for output in trials.values())
    position = {int(index): at for at, index in enumerate(signals.indices)}
    for row in rows:
        record = int(row["record"])
        at = position[record]
        assert row["file"] == f"train/{dataset.labels[record]}/{record:05d}.png"
        assert row["member"] == str(int(record in set(named.assessed_target.splits.members.tolist())))
        assert row["class"] == dataset.class_names[dataset.labels[record]]
        assert row["prediction"] == dataset.class_names[signals.predictions[at]]
        assert float(row["posterior"]) == pytest.approx(float(signals.posteriors[at].max()), rel=1e-4)
        for name, output in trials.items():
            (where,) = np.flatnonzero(output.indices == record)
            assert float(row[f"score:{name}"]) == pytest.approx(output.scores[where])
            others = output.scores[~output.is_member]
            assert float(row[f"share:{name}"]) == pytest.approx((others >= output.scores[where]).mean())
    members = [row["member"] for row in rows]
    assert members == sorted(members, reverse=True)
    lowest = [min(float(row[f"share:{name}"]) for name in trials) for row in rows if row["member"] == "1"]
    assert lowest == sorted(lowest)


def test_the_document_and_the_report_name_files(named) -> None:
    document = to_document(named)
    assert [exposed.trial for exposed in document.exposed] == ["membership.correctness", "membership.modified-entropy"]
    dataset = named.assessed_target.dataset
    for exposed in document.exposed:
        assert len(exposed.members) == 12
        for member in exposed.members:
            assert member.file == f"train/{dataset.labels[member.record]}/{member.record:05d}.png"
            assert member.label == dataset.class_names[dataset.labels[member.record]]
            assert 0 <= member.non_members_as_high <= exposed.non_members
        ranks = [member.rank for member in exposed.members]
        assert ranks[0] == 1 and ranks == sorted(ranks)
    page = render_report([document], [named])
    assert document.exposed[1].members[0].file in page
    assert type(document).model_validate_json(document.model_dump_json(by_alias=True)) == document


def test_an_infinite_score_is_null_in_json(named) -> None:
    trial = next(trial for trial in named.trials if trial.name == "membership.modified-entropy")
    scores = trial.output.scores.copy()
    scores[np.flatnonzero(trial.output.is_member)[0]] = np.inf
    endless = dataclasses.replace(trial, output=dataclasses.replace(trial.output, scores=scores))
    (exposed,) = to_document(dataclasses.replace(named, trials=[endless])).exposed
    assert exposed.members[0].score is None and exposed.members[0].rank == 1


def test_share_as_high_by_hand() -> None:
    scores = MembershipScores(
        indices=np.arange(5),
        scores=np.array([3.0, 1.0, 2.0, 2.0, 0.0]),
        is_member=np.array([True, True, False, False, False]),
        threshold=0.5,
        held_out=np.ones(5, dtype=bool),
    )
    np.testing.assert_allclose(rank_among_non_members(scores), [0, 2 / 3, 2 / 3, 2 / 3, 1])


def test_without_membership_attacks_there_is_nothing_to_write(named, tmp_path: Path) -> None:
    assert not write_records(dataclasses.replace(named, trials=[]), tmp_path / "exposed.csv")
    assert not (tmp_path / "exposed.csv").exists()
