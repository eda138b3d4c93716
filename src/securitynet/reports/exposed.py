"""The most exposed records of a target, as the report shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from securitynet.attacks.membership._scores import MembershipScores
from securitynet.metrics import rates
from securitynet.metrics.exposure import ExposedRecord, Exposure, rank_most_exposed
from securitynet.records import Direction
from securitynet.reports import verdict, words
from securitynet.reports.families import membership
from securitynet.reports.pictures import encode_data_uri, is_reduced
from securitynet.results.document import ResultDocument

if TYPE_CHECKING:
    from securitynet.assessments.assessment import Assessment
    from securitynet.assessments.run_trial import Trial
    from securitynet.models.targets.signals import Signals

COUNT = 12


@dataclass(frozen=True)
class Exhibit:
    """One record.

    Attributes:
        record: Index, score and rank.
        file: Its file, relative to the dataset's folder, or where it stands in the dataset.
        label: Its class.
        prediction: The class that the target predicts.
        posterior: The target's posterior of that class, as text.
        score: As text.
        share: Non-members that score at least as high, as text.
        picture: Data URI, None if there are no images.
    """

    record: ExposedRecord
    file: str
    label: str
    prediction: str
    posterior: str
    score: str
    share: str
    picture: str | None


@dataclass(frozen=True)
class Exposed:
    """The most exposed members, by the strongest attack that ranks them.

    Attributes:
        attack: The attack that the scores are from.
        exhibits: Highest score first; empty if no attack ranks the members.
        tied: Further members that score as high as the last one.
        without_ranking: Attacks that give the same highest score to too many members: (title, how many).
        reduced: Whether the pictures are smaller than the images.
        price: How many non-members would be accused along with these members, in a sentence.
        shown: Whether accusing them is shown to be better than guessing.
    """

    attack: str
    exhibits: list[Exhibit]
    tied: int
    without_ranking: list[tuple[str, str]]
    reduced: bool
    price: str = ""
    shown: bool = True

    @property
    def has_pictures(self) -> bool:
        """Whether there are images to show."""
        return any(exhibit.picture for exhibit in self.exhibits)


def find_exposed(document: ResultDocument, assessment: Assessment, count: int = COUNT) -> Exposed | None:
    """The members with the highest scores, by the strongest attack that ranks members.

    Args:
        document: The results of one target.
        assessment: The same with raw outputs and images.
        count: How many members are shown.

    Returns:
        None if no attack finished.
    """
    without: list[tuple[str, str]] = []
    ranked = membership.rank_attacks(document)
    for strength in ranked:
        trial = _trial(assessment, strength.trial.id)
        groups = strength.trial.name.startswith("membership.group-membership")  # their scores are of no single record
        if trial is None or groups or not isinstance(trial.output, MembershipScores):
            continue
        scores = trial.output
        title = verdict.title_attack(trial.name)
        exposure = rank_most_exposed(scores.indices, scores.scores, scores.is_member, count)
        if not exposure.ranks:
            without.append((title, words.write_small_share(exposure.top_block, int(scores.is_member.sum()))))
            continue
        exhibits = _exhibits(exposure.records, assessment)
        images = assessment.assessed_target.dataset.images
        reduced = images is not None and is_reduced(tuple(images.shape))
        # The strongest of several attacks that only guess exposes somebody more often than one of them does.
        level = 1 - (1 - assessment.config.level) / len(ranked)
        price, shown = _price(exposure, int(scores.is_member.sum()), level)
        return Exposed(title, exhibits, exposure.tied_with_last, without, reduced, price, shown)
    return Exposed("", [], 0, without, False) if without else None


def _trial(assessment: Assessment, trial_id: str) -> Trial | None:
    return next((trial for trial in assessment.trials if trial.result.id == trial_id), None)


def _price(exposure: Exposure, members: int, level: float) -> tuple[str, bool]:
    """How often an adversary is right who accuses every record that scores as high as the last one shown.

    Args:
        exposure: The records shown.
        members: Number of members that were judged.
        level: Confidence level of the comparison with guessing.

    Returns:
        A sentence, and whether that is better than guessing.
    """
    last = exposure.records[-1]
    right = len(exposure.records) + exposure.tied_with_last
    sentence = (
        f"Calling every record a member that scores at least as high as the last one shown is right about "
        f"{words.write_small_share(right, members)} members ({words.write_rate(right / members)}), and wrong about "
        f"{words.write_small_share(last.false_positives, last.non_members)} non-members "
        f"({words.write_rate(last.share)})"
    )
    gain = rates.measure_difference(
        "gain", (right, members), (last.false_positives, last.non_members), direction=Direction.LOWER, level=level
    )
    if gain.low is not None and gain.low > 0:
        return f"{sentence}.", True
    return (
        f"{sentence}: not distinguishable from guessing. These records rank highest but are not shown to be exposed.",
        False,
    )


def _posterior(signals: Signals, row: int) -> str:
    if signals.head == "labels":
        return "hidden"
    return words.write_probability(float(signals.posteriors[row, signals.predictions[row]]))


def _exhibits(records: tuple[ExposedRecord, ...], assessment: Assessment) -> list[Exhibit]:
    dataset = assessment.assessed_target.dataset
    indices = np.array([record.index for record in records], dtype=np.int64)
    signals = assessment.signals.select(indices)
    pictures: list[str | None] = [None] * len(records)
    if dataset.images is not None:
        pictures = [encode_data_uri(image) for image in dataset.batch(indices).numpy()]
    names = dataset.class_names
    return [
        Exhibit(
            record=record,
            file=dataset.get_record_name(record.index),
            label=names[int(signals.labels[row])],
            prediction=names[int(signals.predictions[row])],
            posterior=_posterior(signals, row),
            score=words.score(record.score),
            share=words.write_small_share(record.false_positives, record.non_members),
            picture=picture,
        )
        for row, (record, picture) in enumerate(zip(records, pictures, strict=True))
    ]
