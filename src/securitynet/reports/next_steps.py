"""What to do next about each family: a sentence, and a command that can be copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from securitynet.assessments.repair_config import RepairConfig
from securitynet.metrics.backdoor_verdict import SETTLED
from securitynet.metrics.outlier_blocks import FEWEST
from securitynet.records import Access
from securitynet.reports import settings
from securitynet.reports.families import _membership_controls as controls
from securitynet.reports.grades import GradedFamily, find_blind_judge
from securitynet.reports.what_helps import describe_outcome, helps
from securitynet.results.document import DefenseEffect, ResultDocument

LADDERS = {
    "membership": ("modified-entropy", "lira", "rmia"),
    "stealing": ("ml-doctor-surrogate", "knockoff"),
    "inversion": ("fredrikson", "plug-and-play", "generative"),
    "attribute": ("embedding-mlp",),
    "evasion": ("fgsm", "auto-attack", "square"),
    "backdoor": ("mm-bd", "neural-cleanse"),
}
"""Family -> attacks or detectors in the order in which they are proposed: the first one is quick, so that its result
can be waited for; the others find more and take longer."""

BLACK_BOX_LADDERS = {
    "inversion": ("boundary-repulsion",),
    "attribute": (),
    "evasion": ("square", "common-corruptions"),
    "backdoor": (),
}
"""What stands in for those of `LADDERS` where the adversary has black-box access alone. The detectors that need no
weights judge inputs, not the model."""

LABEL_LADDERS = BLACK_BOX_LADDERS | {
    "membership": ("augmentation-agreement", "label-only-boundary", "label-only-lira"),
    "stealing": ("ml-doctor-surrogate",),
    "evasion": ("fgsm-transfer", "common-corruptions"),
}
"""The same where the target returns labels only."""

NEED_SHADOW_DATA = frozenset({"plug-and-play", "generative", "boundary-repulsion"})
"""Those that are left out where the split has no shadow data."""

LABEL_SETTINGS = {"ml-doctor-surrogate": "ml-doctor-surrogate.recipe.loss=cross-entropy"}
"""Setting without which a method of `LABEL_LADDERS` would need posteriors."""


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
    trials = [trial for trial in document.trials if trial.name.startswith(f"{finding.family}.")]
    ran = {trial.name.partition("@")[0] for trial in trials}
    untried = [name for name in list_proposed(document, finding.family) if f"{finding.family}.{name}" not in ran]
    if not any(trial.status == "ok" for trial in trials):
        if document.target.head == "labels" and untried and finding.family != "backdoor":
            return NextStep("Try an attack that needs labels only.", write_command(document, out, attacks=untried[:1]))
        reason = "Find the reason under “What was not assessed” in the report"
        if finding.family == "evasion" and "square" in untried:
            command = write_command(document, out, attacks=["square"])
            return NextStep(f"{reason}, or try an attack that needs no gradients.", command)
        return NextStep(f"{reason}.")
    if finding.family == "backdoor":
        return _propose_detector(document, finding, ran, out)
    if finding.family == "membership" and controls.groups_differ(document):
        return NextStep("Give non-members from the same source as the members, with --non-members.")
    if finding.grade in ("high", "moderate"):
        return _propose_defense(document, finding, out)
    if finding.family == "inversion" and find_blind_judge(document) is not None:
        learns = "the classifier that judges reconstructions learns from non-members."
        if document.settings.get("limit") is not None:
            return NextStep(f"Use all records: {learns}", write_command(document, out, limit=None))
        return NextStep(f"Give more non-members: {learns}")
    if finding.grade == "not assessed":  # what ran gives no number that could be graded
        return propose_first(document, [finding.family], out)
    stronger = [name for name in untried if name != list_proposed(document, finding.family)[0]]
    if stronger:
        return NextStep("Try a stronger attack.", write_command(document, out, attacks=stronger[:1]))
    if finding.grade == "undecided" and document.settings.get("limit") is not None:
        return NextStep("Use all records.", write_command(document, out, limit=None))
    if finding.grade == "undecided" and finding.family == "inversion":
        return NextStep(
            "Look at the reconstructions in the report: more records would not make the number surer, because it "
            "counts the model's classes."
        )
    if finding.grade == "undecided":
        above_all = ", non-members above all" if finding.family == "membership" else ""
        return NextStep(f"Give more records{above_all}.")
    return NextStep("Assess the model again when it, its data or the attacks change.")


def list_proposed(document: ResultDocument, family: str) -> list[str]:
    """The attacks or detectors of a family that can be proposed: those for which access, outputs and data suffice.

    Args:
        document: The result, which states them.
        family: Key in `LADDERS`.
    """
    ladder = LADDERS[family]
    if document.target.access != Access.WHITE_BOX.value:
        ladder = BLACK_BOX_LADDERS.get(family, ladder)
    if document.target.head == "labels":
        ladder = LABEL_LADDERS.get(family, ladder)
    return _select_with_data(document, ladder)


def _select_with_data(document: ResultDocument, ladder: Sequence[str]) -> list[str]:
    return [name for name in ladder if document.dataset.split != "public" or name not in NEED_SHADOW_DATA]


def propose_first(document: ResultDocument, families: Sequence[str], out: Path | None = None) -> NextStep:
    """The step for families of which nothing was requested: one quick attack or detector of each.

    Args:
        document: The result.
        families: Keys in `LADDERS`, at least one; either all can be assessed under the access of the result, or none.
        out: As for `propose_step`.
    """
    first = {family: list_proposed(document, family)[:1] for family in families}
    if not any(first.values()):
        return NextStep("Assess the weights: the access and the data of this assessment do not suffice to judge this.")
    changes = {
        "attacks": [name for family, names in first.items() if family != "backdoor" for name in names],
        "detectors": [*first.get("backdoor", ())],
    }
    kinds = " or ".join(kind.removesuffix("s") for kind, names in changes.items() if names)
    each = f" {kinds} of each" if len(families) > 1 else f" {kinds}"
    return NextStep(
        f"Try one quick{each}; stronger ones can follow.",
        write_command(document, out, **{kind: names for kind, names in changes.items() if names}),
    )


def write_command(document: ResultDocument, out: Path | None, **changes: object) -> str:
    """The command of the result with changed settings; attacks and detectors are added to those that it has.

    Args:
        document: The result.
        out: The folder of the result; left out if it is absolute.
        **changes: Settings of `securitynet.assessments.config.AssessConfig`.
    """
    altered = dict(document.settings)
    if document.target.head == "labels" or changes.get("defense") == "label-only":
        added = changes.get("attacks")
        needed = [LABEL_SETTINGS[name] for name in added if name in LABEL_SETTINGS] if isinstance(added, list) else []
        changes |= {"configure": needed} if needed else {}
    if changes.get("defense"):
        altered["try_defenses"] = False
    if changes.get("try_defenses") and (defense := altered.pop("defense", None)):
        # They start from the undefended model.
        altered["configure"] = [one for one in altered.get("configure", ()) if not one.startswith(f"{defense}.")]
    for name, value in changes.items():
        if isinstance(value, list):
            present = [item for item in altered.get(name, ()) if item != "none"]
            altered[name] = [*present, *(item for item in value if item not in present)]
        else:
            altered[name] = value
    if out is not None and not PurePath(out).is_absolute():
        altered["out"] = str(out)
    return settings.write_assess_command(document.model_copy(update={"settings": altered}))


def _propose_defense(document: ResultDocument, finding: GradedFamily, out: Path | None) -> NextStep:
    if finding.family == "membership":
        best = find_best_defense(document)
        if best is not None and best.stage == "output":
            configured = [f"{best.name}.{name}={value}" for name, value in best.settings.items()]
            changes: dict[str, object] = {"configure": configured} if configured else {}
            return NextStep(
                f"Give out outputs behind the defense that helped most, {best.name}, and assess them.",
                write_command(document, out, defense=best.name, **changes),
            )
        if best is not None:
            return NextStep(f"Train the model with the defense that helped most, {best.name}; see “What would help”.")
        if document.remedies is None:
            return NextStep("Measure which defenses help.", write_command(document, out, try_defenses=True))
        return NextStep(
            "No defense that was tried is shown to help: give fewer people access, or train without sensitive records."
        )
    by_labels = _select_with_data(document, LABEL_LADDERS[finding.family])
    if finding.family in ("stealing", "inversion") and by_labels and document.settings.get("defense") is None:
        return NextStep(
            "Measure whether it helps to give out the predicted class alone.",
            write_command(document, out, attacks=by_labels, defense="label-only"),
        )
    if finding.family == "attribute":
        return NextStep("Do not give out embeddings or weights, from which attributes are inferred.")
    if finding.family == "evasion":
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
    # The fields of the same names of an assessment mean other things.
    changed = {**stated, "out": "repaired.safetensors"}
    return settings.write_command_line("repair", str(stated["model"]), RepairConfig, changed, ("defense", "configure"))


def _was_too_short(document: ResultDocument) -> bool:
    """Whether a search for triggers ended before enough norms had settled."""
    return any(
        measured.name.startswith("backdoor.neural-cleanse")
        and measured.name.endswith(".settled")
        and measured.value is not None
        and measured.value < SETTLED
        for measured in document.measurements
    )


def _propose_detector(
    document: ResultDocument, finding: GradedFamily, ran: Sequence[str] | set[str], out: Path | None
) -> NextStep:
    missing = [name for name in list_proposed(document, "backdoor") if f"backdoor.{name}" not in ran]
    if finding.grade == "moderate" and missing:
        return NextStep(
            "Do not deploy the model before another detector has confirmed or refuted this.",
            write_command(document, out, detectors=missing[:1]),
        )
    if finding.grade in ("high", "moderate"):
        return NextStep(
            "Do not deploy the model before you can explain the trigger; try to remove it.", write_repair(document)
        )
    if _was_too_short(document):
        kept = [one for one in document.settings.get("configure", ()) if not one.startswith("neural-cleanse.")]
        longer = document.model_copy(update={"settings": {**document.settings, "configure": kept}})
        return NextStep("Search for triggers with the default settings, for long enough.", write_command(longer, out))
    configured = [*document.settings.get("configure", ())]
    compared = any(one.startswith("neural-cleanse.reference=") for one in configured)
    if document.target.num_classes < FEWEST and "backdoor.neural-cleanse" in ran and not compared:
        changed = [*configured, "neural-cleanse.reference=19"]
        few = f"Compare with clean models: a test among the classes needs {FEWEST} of them."
        return NextStep(few, write_command(document, out, configure=changed))
    if missing:
        how = (
            "Search for triggers." if missing[0] == "neural-cleanse" else "Scan the weights, for triggers of any kind."
        )
        return NextStep(how, write_command(document, out, detectors=missing[:1]))
    if not list_proposed(document, "backdoor"):
        return propose_first(document, ["backdoor"], out)
    return NextStep("Assess the model again when it, its data or the detectors change.")
