"""What a report says of the controls of membership inference: the blind baseline, and copies between the groups."""

from __future__ import annotations

from securitynet.records import Measurement
from securitynet.reports import words
from securitynet.results.document import CopyFacts, ResultDocument

BLIND_AUC = "membership.blind.auc"
MATCHED_BLIND_AUC = "membership.blind.matched-auc"

NOTABLE = 0.01
"""Share of the non-members from which on copies of members are a matter for the verdict."""


def find_blind_auc(document: ResultDocument, name: str = BLIND_AUC) -> Measurement | None:
    """AUC of the blind baseline; None if there is none."""
    return next((m for m in document.measurements if m.name == name and m.value is not None), None)


def groups_differ(document: ResultDocument) -> bool:
    """Whether members can be distinguished from non-members without the model."""
    return document.controls is not None and document.controls.blind is not None and document.controls.blind.differ


def describe_difference(document: ResultDocument) -> list[str]:
    """Warn, before any membership attack, of many copies or of groups that differ."""
    auc, copies = find_blind_auc(document), document.controls.copies if document.controls is not None else None
    sentences = []
    if copies is not None and copies.non_members > NOTABLE * document.dataset.non_members:
        sentences.append(describe_copies(copies, document.dataset.non_members))
    if auc is None or not groups_differ(document):
        return sentences
    sentences.append(
        "Members and non-members differ anyway: a classifier that sees images, classes and files, and never the model, "
        f"tells them apart with {_write(auc)}. By itself, no membership attack below shows that the model gives "
        "anything away."
    )
    if document.dataset.membership == "assumed":
        sentences.append(
            "Who is a member is only assumed here. Together with groups that differ, this means that nothing below "
            "shows that the model was trained on any of these records."
        )
    return sentences


def describe_controls(document: ResultDocument) -> list[str]:
    """The controls in sentences, for their section of the report and for the terminal."""
    controls = document.controls
    if controls is None:
        return []
    sentences = []
    auc = find_blind_auc(document)
    if controls.blind is not None and auc is not None:
        seen = f"{controls.blind.members:,} members and {controls.blind.non_members:,} non-members"
        if controls.blind.differ:
            sentences.append(
                f"On {seen}, the blind baseline, which never sees the model, reaches {_write(auc)}: "
                "the groups differ anyway."
            )
            sentences.append(_describe_matching(document, controls.blind.matched_pairs or 0))
        else:
            sentences.append(
                f"On {seen}, the blind baseline, which never sees the model, is not shown to tell the groups apart: "
                f"{_write(auc)}. It sees colours, frequencies, traces of compression, classes and files; a difference "
                "in anything else would escape it."
            )
    elif controls.why_not is not None:
        sentences.append(
            f"There is no blind baseline: {controls.why_not}. Whether members and non-members differ without the model "
            "is not known."
        )
    if controls.copies is not None:
        sentences.append(describe_copies(controls.copies, document.dataset.non_members))
    return sentences


def describe_copies(copies: CopyFacts, non_members: int) -> str:
    """Describe how many non-members are copies of members."""
    part = "" if copies.searched >= non_members else f", searched for among {copies.searched:,} of them"
    if not copies.non_members:
        return f"No non-member is a copy of a member, equal or nearly so{part}."
    are = "is a copy" if copies.non_members == 1 else "are copies"
    return (
        f"{copies.non_members:,} of {non_members:,} non-members {are} of members ({copies.equal:,} with the same "
        f"pixels, {copies.near:,} nearly the same{part}). They, and the {words.count_noun(copies.members, 'member')} "
        "in "
        "question, are left out of everything that is judged below."
    )


def describe_matched(document: ResultDocument, matched: Measurement | None, verdict: str | None) -> str:
    """Describe what an attack achieves on matched records, where the groups differ.

    Args:
        document: Of the assessment.
        matched: The attack's AUC on them; None if it was not measured.
        verdict: How that compares with guessing, in words.
    """
    if matched is None or matched.value is None or verdict is None:
        return "Too few members and non-members are alike for judging it on matched records."
    again = find_blind_auc(document, MATCHED_BLIND_AUC)
    still = again is not None and again.low is not None and again.low > 0.5
    caution = f"; but these differ without the model too ({_write(again)})" if again is not None and still else ""
    return (
        f"On {matched.n // 2:,} pairs of a member and a non-member that the blind baseline does not tell apart, it "
        f"has {_write(matched)}: {verdict}{caution}."
    )


def _describe_matching(document: ResultDocument, pairs: int) -> str:
    again = find_blind_auc(document, MATCHED_BLIND_AUC)
    if again is None:
        return (
            f"Only {words.count_noun(pairs, 'pair')} of a member and a non-member are alike for it, which are too few "
            "to "
            "judge attacks on."
        )
    return (
        f"Attacks are judged on {words.count_noun(pairs, 'matched pair')} as well. Fitted again to these alone, the "
        "blind "
        f"baseline has {_write(again)}."
    )


def _write(auc: Measurement) -> str:
    numbers = words.write_numbers(auc)
    assert numbers is not None
    return f"AUC\u00a0{numbers.value} ({words.write_level(auc)} interval {words.keep_unbroken(numbers.interval)})"
