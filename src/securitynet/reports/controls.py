"""The controls of membership inference as the report's template shows them."""

from __future__ import annotations

from dataclasses import dataclass

from securitynet.reports.families._membership_controls import describe_controls, groups_differ
from securitynet.results.document import CopiedRecord, ResultDocument

PREFIXES = ("membership.blind.", "membership.copies.")


@dataclass(frozen=True)
class ControlsPart:
    """What the template shows beside the rows of the controls' measurements.

    Attributes:
        sentences: In words.
        differ: Whether members and non-members differ without the model.
        copies: The first copies, by the names of their records.
    """

    sentences: list[str]
    differ: bool
    copies: tuple[CopiedRecord, ...]


def find_controls(document: ResultDocument) -> ControlsPart | None:
    """The controls of a result; None if it has none or no membership attack finished."""
    finished = any(trial.name.startswith("membership.") and trial.status == "ok" for trial in document.trials)
    if document.controls is None or not finished:
        return None
    copies = document.controls.copies.named if document.controls.copies else ()
    return ControlsPart(describe_controls(document), groups_differ(document), copies)
