"""The grade of each family of a result, with the number behind it and what that number means for a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from securitynet.records import FAMILIES, Measurement
from securitynet.reports import verdict, words
from securitynet.reports.evidence import FINDERS, FamilyEvidence
from securitynet.results.document import ResultDocument
from securitynet.results.grades import DEFAULT_BOUNDS, FamilyGrade, Grade, GradeBounds, GradeTable, decide_grade


@dataclass(frozen=True)
class GradedFamily:
    """The grade of one family and the number behind it.

    Attributes:
        family: Key in `FAMILIES`.
        title: In words.
        grade: One of `securitynet.results.grades.GRADES`.
        measurement: The number behind the grade; None if nothing was measured.
        label: What the number is.
        numbers: The number as text.
        attack: The attack or detector that gave it, in words.
        meaning: A sentence for a person who knows no metric.
    """

    family: str
    title: str
    grade: Grade
    measurement: Measurement | None
    label: str
    numbers: words.Numbers | None
    attack: str
    meaning: str

    @property
    def colon(self) -> str:
        """What stands between the label and the number: a colon where the label is long and has none itself."""
        return "" if self.label == "AUC" or ":" in self.label else ":"


def grade_families(document: ResultDocument, table: GradeTable | None = None) -> tuple[GradedFamily, ...]:
    """Grade all families of a result.

    Args:
        document: The result.
        table: Where grades begin; by default as in the result, else `DEFAULT_BOUNDS`.
    """
    bounds = {**DEFAULT_BOUNDS, **find_table(document), **(table or {})}
    return tuple(_grade(document, family, bounds) for family in FAMILIES)


def add_grades(document: ResultDocument, table: GradeTable | None = None) -> ResultDocument:
    """The result with its grades, which ``result.json`` holds."""
    bounds = {**DEFAULT_BOUNDS, **(table or {})}
    grades = tuple(
        FamilyGrade(
            family=finding.family,
            grade=finding.grade,
            measurement=finding.measurement.name if finding.measurement else None,
            bounds={scale: own for scale, own in bounds.items() if scale.startswith(f"{finding.family}.")},
        )
        for finding in grade_families(document, bounds)
    )
    return document.model_copy(update={"grades": grades})


def find_wrong_verdicts(document: ResultDocument) -> list[str]:
    """Grades, controls and checks of the policy that do not follow from the measurements of a result, a sentence each.

    Args:
        document: The result; one of an earlier version has no grades.
    """
    due = (
        {grade.family: grade for grade in add_grades(document, find_table(document)).grades} if document.grades else {}
    )
    wrong = [
        f"The grade of {FAMILIES.get(grade.family, grade.family).lower()} does not follow from the measurements."
        for grade in document.grades
        if grade != due.get(grade.family)
    ]
    values = {measurement.name: measurement for measurement in document.measurements}
    blind, auc = document.controls.blind if document.controls is not None else None, values.get("membership.blind.auc")
    if blind is not None and auc is not None and auc.low is not None and blind.differ != (auc.low > 0.5):
        wrong.append("Whether the controls hold does not follow from the blind baseline.")
    for check in document.policy.checks if document.policy is not None else ():
        measurement = values.get(check.metric)
        if check.comparator not in (">=", "<=") or measurement is None:
            continue
        end = measurement.low if check.comparator == ">=" else measurement.high
        compared = measurement.value if check.on == "value" else end
        holds = compared is not None and (
            compared >= check.threshold if check.comparator == ">=" else compared <= check.threshold
        )
        if check.passed != holds or check.value != measurement.value:
            wrong.append(f"The check {check.metric} {check.comparator} {check.threshold:g} is not as the numbers say.")
    if document.policy is not None and document.policy.checks:
        passed = all(check.passed for check in document.policy.checks)
        if document.policy.met and not (passed and not document.policy.violations):
            wrong.append("The policy is stated to be met, and a check of it failed.")
    return wrong


def find_table(document: ResultDocument) -> Mapping[str, GradeBounds]:
    """The bounds that the grades of a result were given by; empty for results of earlier versions."""
    return {scale: bounds for grade in document.grades for scale, bounds in grade.bounds.items()}


def describe_table(document: ResultDocument) -> str:
    """Describe in words where moderate and high begin for each number."""
    table = {**DEFAULT_BOUNDS, **find_table(document)}
    return "; ".join(f"{_SCALES[scale]} {own.moderate:g} and {own.high:g}" for scale, own in table.items())


_SCALES = {
    "membership.auc": "AUC of membership inference",
    "membership.tpr-over-fpr": "TPR divided by FPR",
    "stealing.agreement": "agreement of a surrogate",
    "inversion.accuracy": "recognised reconstructions",
    "attribute.gain": "gain of attribute inference",
    "evasion.success": "success of evasion",
    "backdoor.verdict": "verdict on a backdoor",
}
"""Numbers that grades follow from, in words."""


def _grade(document: ResultDocument, family: str, table: GradeTable) -> GradedFamily:
    trials = verdict.select_finished(document, family)
    evidence = FINDERS[family](document, trials) if trials else []
    if not evidence:
        return GradedFamily(
            family, FAMILIES[family], "not assessed", None, "", None, "", _explain_absence(document, family)
        )
    graded = [(_decide(one, table, document), one) for one in evidence]
    shown = [(order, pair) for order, pair in enumerate(graded) if pair[0] in ("high", "moderate", "slight")]
    undecided = [pair for pair in graded if pair[0] == "undecided"]
    # The worst grade that anything shows; where nothing does, a number that cannot tell comes before those that clear.
    grade, one = min(shown, key=lambda item: (_SEVERITY[item[1][0]], item[0]))[1] if shown else (undecided or graded)[0]
    trial = next(
        (t for t in sorted(trials, key=lambda t: -len(t.name)) if one.measurement.name.startswith(f"{t.name}.")), None
    )
    return GradedFamily(
        family=family,
        title=FAMILIES[family],
        grade=grade,
        measurement=one.measurement,
        label=words.find_kind(one.measurement.name).label,
        numbers=None if family == "backdoor" else words.write_numbers(one.measurement, significant=1),
        attack=verdict.title_attack(trial.name) if trial is not None else "",
        meaning=_explain(grade, one, document) + _qualify(grade, one, table),
    )


_SEVERITY = {"high": 0, "moderate": 1, "slight": 2}


def _decide(evidence: FamilyEvidence, table: GradeTable, document: ResultDocument) -> Grade:
    if evidence.obstacle is not None and evidence.blocks:
        return "undecided"
    grade = decide_grade(evidence.low, evidence.high, chance=evidence.chance, bounds=table[evidence.scale])
    if grade == "none shown" and _find_obstacle(evidence, document) is not None:
        return "undecided"
    return grade


def _find_obstacle(evidence: FamilyEvidence, document: ResultDocument) -> str | None:
    """Why a number cannot show that there is nothing: a model that may not be the stated one is not cleared."""
    if evidence.obstacle is not None:
        return evidence.obstacle
    if verdict.write_doubts(document):
        return "A check of the model failed, so that it may not be the stated one."
    if evidence.scale.startswith("membership.") and document.dataset.membership == "assumed":
        return "Who the members are is assumed: a model that was trained on other records would look like this, too."
    return None


def _explain(grade: Grade, evidence: FamilyEvidence, document: ResultDocument) -> str:
    if grade in ("high", "moderate", "slight"):
        return evidence.meaning
    if grade == "none shown":
        return f"{evidence.nothing} {CORRECTED}" if _is_above_chance_uncorrected(evidence) else evidence.nothing
    obstacle = _find_obstacle(evidence, document)
    if obstacle is not None:
        return obstacle if evidence.blocks else f"{evidence.nothing} {obstacle}"
    if _is_above_chance_uncorrected(evidence):
        return f"Too little data to tell. {CORRECTED}"
    numbers = words.write_numbers(evidence.measurement, significant=1)
    interval = f" ({words.keep_unbroken(numbers.interval)})" if numbers else ""
    return (
        f"Too little data to tell: the interval{interval} includes {_describe_chance(evidence)}, and a moderate "
        "weakness as well."
    )


def _qualify(grade: Grade, evidence: FamilyEvidence, table: GradeTable) -> str:
    """A sentence for an estimate that looks high, whose interval begins so low that the grade is only slight."""
    value, bounds = evidence.measurement.value, table[evidence.scale]
    numbers = words.write_numbers(evidence.measurement, significant=1)
    if grade != "slight" or value is None or numbers is None:
        return ""
    if decide_grade(value, value, chance=evidence.chance, bounds=bounds) != "high":
        return ""
    return f" So few data allow for much less, too ({words.keep_unbroken(numbers.interval)})."


CORRECTED = (
    "The interval lies above chance only until it is corrected for the choice of the strongest of several results."
)


def _is_above_chance_uncorrected(evidence: FamilyEvidence) -> bool:
    """Whether the interval that is shown lies above chance, and the corrected one does not."""
    low = evidence.measurement.low
    return low is not None and low * evidence.factor > evidence.chance >= evidence.low


def _describe_chance(evidence: FamilyEvidence) -> str:
    return "no effect" if evidence.chance == 0 else "guessing"


def find_blind_judge(document: ResultDocument) -> Measurement | None:
    """How many real images the judge of reconstructions recognises, where that is too few for it to judge any.

    Args:
        document: The result.
    """
    measured = [m for m in document.measurements if m.name.startswith("inversion.") and m.value is not None]
    judges = [m for m in measured if m.name.endswith(".judge-accuracy")]
    return judges[0] if judges and not any(m.name.endswith(".accuracy") for m in measured) else None


def _explain_absence(document: ResultDocument, family: str) -> str:
    """Why there is no grade: the trials failed or were skipped, show nothing that is graded, or did not run."""
    own = [trial for trial in document.trials if trial.name.startswith(f"{family}.")]
    if family == "inversion" and (judge := find_blind_judge(document)) is not None:
        numbers = words.write_numbers(judge)
        seen = (
            f"{numbers.value} of {words.count_noun(judge.n, 'real image')} ({numbers.interval})" if numbers else "none"
        )
        return f"Cannot be judged: the classifier that judges reconstructions recognises {seen}, as guessing might."
    if any(trial.status == "ok" for trial in own):
        return "What ran gives no number that could be graded; see below."
    if own:
        failed = sum(trial.status == "failed" for trial in own)
        how = "failed" if failed == len(own) else "could not run" if not failed else "failed or could not run"
        return f"All that was requested {how}; see below."
    return "Not tried; nothing is known."
