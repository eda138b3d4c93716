"""Controls of membership inference: what tells members from non-members without the model, and records that are both.

They depend on the records alone, so they are computed once for a dataset and a split, and cached.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securitynet.attacks.membership._scores import MembershipScores
from securitynet.datasets.appearance import describe_records
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.copies import find_copies
from securitynet.datasets.ordering import shuffle, unite
from securitynet.datasets.splits import Splits
from securitynet.errors import DatasetError
from securitynet.files import hash_stably, read_with_digest, write_with_digest
from securitynet.methods.output import Output
from securitynet.metrics import blind, rates, roc
from securitynet.metrics.blind import BlindScores
from securitynet.records import Direction, Measurement
from securitynet.results.document import BlindFacts, CopiedRecord, CopyFacts, MembershipControlFacts

logger = logging.getLogger(__name__)

VERSION = 3
"""Of what is cached; raise it when features, the classifier or the search for copies change."""

MOST_RECORDS = 2000
"""Records of each group that the blind baseline sees at most."""

MOST_NUMBERS = 400_000_000
"""Numbers in the images that it sees at most: of large images it sees fewer."""

FEWEST_PAIRS = 50
"""Matched pairs without which attacks are not judged on them."""

NAMED = 20
"""Copies that ``result.json`` names."""

BLIND_AUC = "membership.blind.auc"
MATCHED_BLIND_AUC = "membership.blind.matched-auc"
COPIED_SHARE = "membership.copies.share"

Records = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MembershipControls:
    """What must be known of members and non-members before an attack's success means anything.

    Attributes:
        facts: For ``result.json``.
        measurements: AUC of the blind baseline, on all records it saw and on matched ones; share of copies.
        left_out: Records of either group of which the other group holds a copy, sorted; they are not judged.
        scores: Of the blind baseline; None if there is none.
        matched_members: A member for each matched pair; empty unless the groups differ.
        matched_non_members: Its non-member.
    """

    facts: MembershipControlFacts
    measurements: tuple[Measurement, ...]
    left_out: Records
    scores: BlindScores | None
    matched_members: Records
    matched_non_members: Records

    def restrict(self, output: Output) -> Output:
        """An output without the records that are left out."""
        return output.without(self.left_out) if len(self.left_out) else output

    def measure(self, output: Output, level: float) -> list[Measurement]:
        """What stands beside an attack's own measurements: the blind baseline's AUC, and its own on matched records.

        Args:
            output: Of any method; there is nothing to add but for membership attacks.
            level: Confidence level of the intervals.
        """
        if not isinstance(output, MembershipScores):
            return []
        beside = [m.model_copy(update={"name": "blind-auc"}) for m in self.measurements if m.name == BLIND_AUC]
        if self.facts.blind is not None and self.facts.blind.differ:
            beside.append(self._measure_matched(output, level))
        return beside

    def _measure_matched(self, output: MembershipScores, level: float) -> Measurement:
        scores = dict(zip(output.indices.tolist(), output.scores.tolist(), strict=True))
        pairs = zip(self.matched_members.tolist(), self.matched_non_members.tolist(), strict=True)
        judged = [(scores[one], scores[other]) for one, other in pairs if one in scores and other in scores]
        if len(judged) < FEWEST_PAIRS:
            return Measurement(
                name="matched-auc",
                value=None,
                level=level,
                n=2 * len(judged),
                direction=Direction.LOWER,
                method="none",
                note=f"not resolvable: {len(judged)} matched pairs, {FEWEST_PAIRS} are needed",
            )
        members, non_members = np.array(judged, dtype=np.float64).T
        return roc.measure_auc(members, non_members, level=level, name="matched-auc")


def measure_controls(dataset: ImageDataset, splits: Splits, *, level: float, cache: Path | None) -> MembershipControls:
    """Find copies between members and non-members, and fit the blind baseline to the others.

    Args:
        dataset: Where the records are.
        splits: Who is a member.
        level: Confidence level of the intervals.
        cache: Folder; None keeps nothing.
    """
    if dataset.images is None:
        return make_empty_controls("only outputs were recorded, so there are no images to look at")
    arrays = _load(dataset, splits, level, cache)
    if arrays is None:
        try:
            arrays = _compute(dataset, splits, level)
        except DatasetError as error:  # an image that breaks here breaks the target's queries too, and is said there
            return make_empty_controls(error.message)
        if cache is not None:
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **arrays)
            write_with_digest(_path(dataset, splits, level, cache), buffer.getvalue())
    return _conclude(dataset, splits, arrays, level)


def _compute(dataset: ImageDataset, splits: Splits, level: float) -> dict[str, NDArray[Any]]:
    copies = find_copies((dataset, splits.members), (dataset, splits.non_members))
    members, non_members = splits.members[~copies.first], splits.non_members[~copies.second]
    arrays: dict[str, NDArray[Any]] = {
        "copied_members": np.stack([copies.first_exact, copies.first_near]),
        "copied_non_members": np.stack([copies.second_exact, copies.second_near]),
        "partner": copies.partner,
        "searched": np.asarray(copies.searched),
    }
    shape = dataset.image_shape
    most = min(MOST_RECORDS, max(200, MOST_NUMBERS // (2 * int(np.prod(shape)))))
    sample = [np.sort(part[shuffle(len(part), "blind baseline")[:most]]) for part in (members, non_members)]
    if min(map(len, sample)) < blind.FEWEST:
        return arrays
    records = np.concatenate(sample)
    is_member = np.arange(len(records)) < len(sample[0])
    features = describe_records(dataset, records)
    fitted = blind.fit_blind(features, is_member, level=level)
    arrays |= {"records": records, "is_member": is_member, "scores": fitted.scores, "permuted": fitted.permuted}
    if not _beats_chance(fitted.auc(level=level)):
        return arrays
    one, other = blind.match(fitted.scores, is_member)
    arrays |= {"matched_members": records[one], "matched_non_members": records[other]}
    if len(one) >= max(FEWEST_PAIRS, blind.FEWEST):
        matched = np.concatenate([one, other])
        again = blind.fit_blind(features[matched], is_member[matched], level=level)
        arrays |= {"matched_scores": again.scores, "matched_permuted": again.permuted}
    return arrays


def _conclude(
    dataset: ImageDataset, splits: Splits, arrays: dict[str, NDArray[Any]], level: float
) -> MembershipControls:
    copied_members, copied_non_members = arrays["copied_members"], arrays["copied_non_members"]
    left_out = unite(splits.members[copied_members.any(axis=0)], splits.non_members[copied_non_members.any(axis=0)])
    copied = np.flatnonzero(copied_non_members.any(axis=0))
    partners = splits.members[arrays["partner"][copied]]
    share = rates.rate(COPIED_SHARE, len(copied), len(splits.non_members), direction=Direction.LOWER, level=level)
    facts = CopyFacts(
        members=int(copied_members.any(axis=0).sum()),
        non_members=len(copied),
        equal=int(copied_non_members[0].sum()),
        near=int(copied_non_members[1].sum()),
        searched=int(arrays["searched"]),
        named=tuple(
            CopiedRecord(
                non_member=dataset.get_record_name(int(record)),
                member=dataset.get_record_name(int(partner)),
                equal=bool(copied_non_members[0, at]),
            )
            for at, record, partner in zip(
                copied[:NAMED], splits.non_members[copied[:NAMED]], partners[:NAMED], strict=True
            )
        ),
    )
    nobody = np.empty(0, dtype=np.int64)
    if "scores" not in arrays:
        why = f"fewer than {blind.FEWEST} members or non-members are left that are no copies of one another"
        return MembershipControls(
            MembershipControlFacts(copies=facts, why_not=why), (share,), left_out, None, nobody, nobody
        )
    fitted = BlindScores(arrays["scores"], arrays["is_member"], arrays["permuted"])
    auc = fitted.auc(level=level, name=BLIND_AUC)
    measurements = [auc, share]
    if "matched_scores" in arrays:
        half = np.arange(len(arrays["matched_scores"])) < len(arrays["matched_scores"]) // 2
        again = BlindScores(arrays["matched_scores"], half, arrays["matched_permuted"])
        measurements.insert(1, again.auc(level=level, name=MATCHED_BLIND_AUC))
    pairs = arrays.get("matched_members", nobody)
    document = MembershipControlFacts(
        copies=facts,
        blind=BlindFacts(
            members=int(fitted.is_member.sum()),
            non_members=int((~fitted.is_member).sum()),
            differ=_beats_chance(auc),
            matched_pairs=len(pairs) if _beats_chance(auc) else None,
        ),
    )
    others = arrays.get("matched_non_members", nobody)
    return MembershipControls(document, tuple(measurements), left_out, fitted, pairs, others)


def _beats_chance(auc: Measurement) -> bool:
    return auc.low is not None and auc.low > 0.5


def make_empty_controls(why: str = "none was asked for") -> MembershipControls:
    """No controls: everything is judged, and nothing stands beside it; ``why`` completes "there is none because"."""
    nobody = np.empty(0, dtype=np.int64)
    return MembershipControls(MembershipControlFacts(why_not=why), (), nobody, None, nobody, nobody)


def _load(dataset: ImageDataset, splits: Splits, level: float, cache: Path | None) -> dict[str, NDArray[Any]] | None:
    if cache is None:
        return None
    try:
        payload = read_with_digest(_path(dataset, splits, level, cache))
    except FileNotFoundError:
        return None
    if payload is None:
        logger.warning("The cached controls of %s are damaged and are computed again.", dataset.reference)
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _path(dataset: ImageDataset, splits: Splits, level: float, cache: Path) -> Path:
    return cache / "controls" / f"{_key(dataset.fingerprint, splits.fingerprint, level)}.npz"


def _key(dataset: str, split: str, level: float) -> str:
    return hash_stably({"version": VERSION, "dataset": dataset, "split": split, "level": level})
