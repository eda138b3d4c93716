"""What to do next about each family: a sentence, and a command that can be copied."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from securitynet.attacks import ATTACKS
from securitynet.detectors import DETECTORS
from securitynet.reports import settings
from securitynet.reports.families import _membership_controls as controls
from securitynet.reports.grades import GradedFamily
from securitynet.reports.what_helps import describe_outcome, helps
from securitynet.results.document import DefenseEffect, ResultDocument

STRONGER = {
    "membership": ("lira", "rmia"),
    "stealing": ("knockoff", "ml-doctor-surrogate"),
    "inversion": ("plug-and-play", "generative"),
    "attribute": ("embedding-mlp",),
    "evasion": ("auto-attack", "square"),
}
"""Family -> attacks that find more than cheaper ones, in the order in which they are proposed."""


@dataclass(frozen=True)
class NextStep:
    """What to do next.

    Attributes:
        what: In a sentence.
        command: Quoted for a POSIX shell; None if no command does it.
    """

    what: str
    command: str | None = None


def propose_step(document: ResultDocument, finding: GradedFamily, out: Path | None = None) -> NextStep:
    """The next step for a family: a defense where a weakness is shown, a stronger attack or more data where not.

    Args:
        document: The result.
        finding: The family's grade.
        out: The folder of the result, where the command goes on; left out if it is absolute.
    """
    ran = {trial.name.partition("@")[0] for trial in document.trials if trial.name.startswith(f"{finding.family}.")}
    if finding.family == "backdoor":
        return _propose_detector(document, finding, ran, out)
    if finding.family == "membership" and controls.groups_differ(document):
        return NextStep("Give non-members from the same source as the members, with --non-members.")
    if finding.grade == "not assessed" and not ran:
        return NextStep("Try it.", write_command(document, out, attacks=[finding.family]))
    if finding.grade in ("high", "moderate"):
        return _propose_defense(document, finding, out)
    stronger = [name for name in STRONGER[finding.family] if f"{finding.family}.{name}" not in ran]
    known = [name for name in stronger if f"{finding.family}.{name}" in ATTACKS.entries]
    if known:
        return NextStep("Try a stronger attack.", write_command(document, out, attacks=[known[0]]))
    if finding.grade == "undecided" and document.settings.get("limit") is not None:
        return NextStep("Use all records.", write_command(document, out, limit=None))
    if finding.grade == "undecided":
        above_all = ", non-members above all" if finding.family == "membership" else ""
        return NextStep(f"Give more records{above_all}.")
    return NextStep("Assess the model again when it, its data or the attacks change.")


def write_command(document: ResultDocument, out: Path | None, **changes: object) -> str:
    """The command of the result with changed settings; attacks and detectors are added to those that it has.

    Args:
        document: The result.
        out: The folder of the result; left out if it is absolute.
        **changes: Settings of `securitynet.assessments.config.AssessConfig`.
    """
    altered = dict(document.settings)
    for name, value in changes.items():
        if isinstance(value, list):
            present = [item for item in altered.get(name, ()) if item != "none"]
            altered[name] = [*present, *(item for item in value if item not in present)]
        else:
            altered[name] = value
    if out is not None and not PurePath(out).is_absolute():
        altered["out"] = str(out)
    return settings.command_line(document.model_copy(update={"settings": altered}))


def _propose_defense(document: ResultDocument, finding: GradedFamily, out: Path | None) -> NextStep:
    if finding.family == "membership":
        best = find_best_defense(document)
        if best is not None and best.stage == "output":
            configured = [f"{best.name}.{name}={value}" for name, value in best.settings.items()]
            changes: dict[str, object] = {"configure": configured} if configured else {}
            return NextStep(
                f"Give out outputs behind the defense that helped most, {best.name}, and assess them.",
                write_command(document, out, defense=best.name, try_defenses=False, **changes),
            )
        if best is not None:
            return NextStep(f"Train the model with the defense that helped most, {best.name}; see “What would help”.")
        if document.remedies is None:
            return NextStep("Measure which defenses help.", write_command(document, out, try_defenses=True))
        return NextStep(
            "No defense that was tried is shown to help: give fewer people access, or train without sensitive records."
        )
    if finding.family in ("stealing", "inversion") and document.settings.get("defense") is None:
        return NextStep(
            "Measure whether it helps to give out the predicted class alone.",
            write_command(document, out, attacks=[finding.family], defense="label-only"),
        )
    if finding.family == "attribute":
        return NextStep("Do not give out embeddings or weights, from which attributes are inferred.")
    if finding.family == "evasion" and "evasion.randomized-smoothing" in ATTACKS.entries:
        return NextStep(
            "Measure what a vote over noisy copies of each image can guarantee, and retrain the model on noisy images.",
            write_command(document, out, attacks=["randomized-smoothing"]),
        )
    return NextStep("Limit how many queries one user may send, and watch for unusual ones.")


def find_best_defense(document: ResultDocument) -> DefenseEffect | None:
    """The defense that was tried with the lowest AUC, among those that are shown to help; None if there is none."""
    if document.remedies is None:
        return None
    undefended = document.remedies.undefended
    helped = [tried for tried in document.remedies.tried if tried.auc is not None and helps(tried, undefended)]
    free = [tried for tried in helped if "costs accuracy" not in describe_outcome(tried, undefended)]
    return min(free or helped, key=lambda tried: (tried.auc and tried.auc.value) or 1.0, default=None)


def write_repair(document: ResultDocument) -> str | None:
    """The command that removes a backdoor from the model; None if it was not given as a reference with weights."""
    stated = document.settings
    if not stated.get("weights") or not stated.get("dataset"):
        return None
    words = ["securitynet", "repair", str(stated["model"]), "--weights", str(stated["weights"])]
    return shlex.join([*words, "--dataset", str(stated["dataset"]), "--out", "repaired.safetensors"])


def _propose_detector(
    document: ResultDocument, finding: GradedFamily, ran: Sequence[str] | set[str], out: Path | None
) -> NextStep:
    if finding.grade in ("high", "moderate"):
        return NextStep(
            "Do not deploy the model before you can explain the trigger; try to remove it.", write_repair(document)
        )
    missing = [
        name for name in ("neural-cleanse", "mm-bd") if f"backdoor.{name}" not in ran and name in DETECTORS.entries
    ]
    if missing:
        return NextStep("Search for triggers.", write_command(document, out, detectors=missing))
    return NextStep("Assess the model again when it, its data or the detectors change.")
