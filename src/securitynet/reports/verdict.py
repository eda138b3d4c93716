"""What the numbers say, in sentences. Each is computed; none claims more than its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from securitynet.records import FAMILIES, Measurement
from securitynet.reports import families, words
from securitynet.results.document import ResultDocument, TrialSummary

_OTHERS = FAMILIES.keys() - {"membership"}

DEGREES = (
    (0.95, "close to certainty"),
    (0.75, "far better than guessing"),
    (0.60, "clearly better than guessing"),
)
"""(least lower end of the interval, words) for an AUC."""

SLIGHT = 0.55
"""An AUC whose whole interval lies between 0.5 and this is only slightly better than guessing."""


MARGIN = 10
"""Non-members that are expected above the threshold of a FPR, for a verdict to speak of it."""


@dataclass(frozen=True)
class Strength:
    """How well one membership attack did.

    Attributes:
        trial: The attack.
        auc: Its AUC.
        tpr: Its TPR at the lowest FPR that is resolved with margin; None if none is.
    """

    trial: TrialSummary
    auc: Measurement
    tpr: Measurement | None

    @property
    def fpr(self) -> float | None:
        """The FPR of ``tpr``."""
        return None if self.tpr is None else words.kind(self.tpr.name).fpr


def measurements_of(document: ResultDocument, trial: TrialSummary) -> list[Measurement]:
    """The measurements of a trial that finished, by its name before theirs."""
    if trial.status != "ok":
        return []
    return [m for m in document.measurements if m.name.startswith(f"{trial.name}.")]


def by_strength(document: ResultDocument) -> list[Strength]:
    """Attacks that have an AUC, strongest first: by the lower end of its interval, then by the AUC.

    The lower end is what an attack is sure to achieve. TPRs could not order attacks: those that train on a part of the
    records are judged on fewer, and resolve other FPRs.
    """
    found = []
    for trial in document.trials:
        measured = measurements_of(document, trial)
        if trial.name.partition(".")[0] in _OTHERS:
            continue
        aucs = [m for m in measured if m.name == f"{trial.name}.auc" and m.value is not None]
        rates = [(words.kind(m.name).fpr, m) for m in measured if m.value is not None]
        resolved = sorted(
            ((fpr, m) for fpr, m in rates if fpr is not None and fpr * _non_members(document, m) >= MARGIN),
            key=lambda pair: pair[0],
        )
        if aucs:
            found.append(Strength(trial, aucs[0], resolved[0][1] if resolved else None))
    return sorted(found, key=lambda s: (s.auc.low or 0.0, _value(s.auc)), reverse=True)


def _non_members(document: ResultDocument, measurement: Measurement) -> float:
    """Non-members behind a measurement: an attack that knows some of the records is judged on the others."""
    dataset = document.dataset
    return measurement.n * dataset.non_members / max(dataset.members + dataset.non_members, 1)


def lower_end(measurement: Measurement, among: int) -> float:
    """The lower end of an interval that holds for the best of several attacks (Bonferroni).

    The distance from the value grows as the normal quantile does, on the scale of the arcsine of the square root.

    Args:
        measurement: A rate, or an AUC.
        among: Attacks that it was picked from.
    """
    assert measurement.value is not None and measurement.low is not None
    if among <= 1 or measurement.low <= 0:
        return measurement.low
    tail = (1 - measurement.level) / 2
    stretch = NormalDist().inv_cdf(1 - tail / among) / NormalDist().inv_cdf(1 - tail)
    value, low = (math.asin(math.sqrt(share)) for share in (measurement.value, measurement.low))
    return math.sin(max(value - (value - low) * stretch, 0.0)) ** 2


def lowest_rate(ranked: list[Strength]) -> Strength | None:
    """The attack that identifies most members at the lowest FPR that any resolves; None if none resolves one.

    It need not be the one with the strongest AUC: an attack with two scores, such as correctness, may have that and
    yet identify nobody at a low FPR. The lower end of the interval decides here too.
    """
    resolved = [strength for strength in ranked if strength.fpr is not None]
    if not resolved:
        return None
    lowest = min(strength.fpr for strength in resolved if strength.fpr is not None)
    at_lowest = [strength for strength in resolved if strength.fpr == lowest]
    return max(at_lowest, key=lambda s: ((s.tpr.low or 0.0) if s.tpr else 0.0, _value(s.tpr)))


def opening(document: ResultDocument) -> str:
    """What was assessed, in one sentence."""
    target, dataset = document.target, document.dataset
    finished = sum(trial.status == "ok" for trial in document.trials)
    membership = "known" if dataset.membership == "known" else "assumed from the dataset's own parts"
    return (
        f"A classifier of {words.plural(target.num_classes, 'class', 'classes')}, assessed with "
        f"{words.plural(finished, 'trial')} on {dataset.members:,} members of its training set and "
        f"{dataset.non_members:,} non-members; membership is {membership}."
    )


def sentences(document: ResultDocument) -> list[str]:
    """The verdict: a sentence or two for each family of which something finished."""
    if not any(trial.status == "ok" for trial in document.trials):
        return [
            "No attack finished with a result, so nothing can be said about what can be inferred from this model. "
            "That is not evidence that it is safe."
        ]
    others = [family for family in FAMILIES if family != "membership"]
    said = [families.sentences(family, document, finished_of(document, family)) for family in others]
    return [
        *doubt_sentences(document),
        *membership_sentences(document),
        *(sentence for family in said for sentence in family),
    ]


def doubt_sentences(document: ResultDocument) -> list[str]:
    """What speaks against believing the numbers at all: the checks of the target that failed."""
    failed = [check for check in document.target.checks if not check.agrees]
    return [
        f"Do not take the numbers below for this model's: {check.note or f'its {check.what} is {check.found}.'}"
        for check in failed
    ]


def finished_of(document: ResultDocument, family: str) -> list[TrialSummary]:
    """The finished trials of a family."""
    found = [trial for trial in document.trials if trial.status == "ok"]
    return [trial for trial in found if trial.name.startswith(f"{family}.")]


def membership_sentences(document: ResultDocument) -> list[str]:
    """What the strongest membership attack achieves, and what is achieved at the lowest FPR; nothing if none ran."""
    ranked = by_strength(document)
    if not ranked:
        return []
    best = ranked[0]
    auc = words.numbers(best.auc)
    assert auc is not None  # `by_strength` takes only those with a value
    who = best.trial.threat_model.in_words().removeprefix("The adversary ").removesuffix(".")
    found = [
        f"An adversary who {who}, tells members from non-members with AUC\u00a0{auc.value} ({words.level(best.auc)} "
        f"interval {_unbroken(auc.interval)}): {auc_in_words(best.auc, len(ranked))}."
    ]
    quietest = lowest_rate(ranked)
    if quietest is not None and quietest.tpr is not None:
        same = quietest.trial.id == best.trial.id
        found.append(tpr_in_words(quietest.tpr, None if same else attack_title(quietest.trial.name), len(ranked)))
    return found


def auc_in_words(auc: Measurement, among: int = 1) -> str:
    """How an AUC compares with guessing, by its interval; ``among`` how many attacks it is the strongest."""
    assert auc.low is not None and auc.high is not None
    if auc.low <= 0.5 <= auc.high:
        return "not distinguishable from guessing, as 0.5 lies in the interval"
    if auc.high < 0.5:
        return "worse than guessing, as members score below non-members"
    low = lower_end(auc, among)
    if low <= 0.5:
        return f"not distinguishable from guessing, as the strongest of {among} attacks that only guess may do as well"
    for least, degree in DEGREES:
        if low >= least:
            return degree
    return "slightly better than guessing" if auc.high <= SLIGHT else "better than guessing"


def tpr_in_words(tpr: Measurement, attack: str | None = None, among: int = 1) -> str:
    """A TPR at a FPR as a sentence, compared with guessing by its interval.

    Args:
        tpr: The rate.
        attack: The attack, if it is to be named.
        among: How many attacks it is the best of.
    """
    numbers, fpr = words.numbers(tpr), words.kind(tpr.name).fpr
    assert numbers is not None and fpr is not None and tpr.low is not None and tpr.high is not None
    guess = words.percent(fpr)
    if lower_end(tpr, among) > fpr:
        compared = f"more than guessing, which identifies {guess}"
    elif tpr.high < fpr:
        compared = f"fewer than guessing, which identifies {guess}"
    else:
        compared = f"not distinguishable from guessing, which identifies {guess}"
    who = "they identify" if attack is None else f"the attack “{attack}” identifies"
    return (
        f"At a false-positive rate of {guess} {who} {numbers.value} of the members ({words.level(tpr)} "
        f"interval {_unbroken(numbers.interval)}): {compared}."
    )


def choice(document: ResultDocument) -> str | None:
    """How the attack of the verdict was chosen, where there was a choice."""
    ranked = by_strength(document)
    if len(ranked) < 2:
        return None
    return (
        f"{attack_title(ranked[0].trial.name)} is the strongest of {len(ranked)} attacks: its AUC's interval has the "
        "highest lower end. It is said to beat guessing only where an interval corrected for that choice says so too."
    )


def unresolved(document: ResultDocument) -> str | None:
    """A sentence on rates that were asked for and that take more non-members, or None."""
    asked = {words.kind(m.name).fpr for m in document.measurements if m.value is None}
    rates = sorted(fpr for fpr in asked if fpr is not None)
    if not rates:
        return None
    n = document.dataset.non_members
    return (
        f"{n:,} non-members resolve no false-positive rate below about {words.rate(3.7 / n)}; nothing is said about "
        f"{words.listed([words.percent(fpr) for fpr in rates])}."
    )


def apart(first: Measurement, second: Measurement) -> bool | None:
    """Whether two intervals do not overlap; None if one of them is missing, or is a bound without a second end."""
    if words.kind(first.name).one_sided:
        return None
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return None
    return first.high < second.low or second.high < first.low


def comparison(documents: list[ResultDocument], labels: list[str]) -> list[str]:
    """Which target leaks most, for each attack that all of them have an AUC for."""
    found = []
    per_target = [{s.trial.name: s.auc for s in by_strength(document)} for document in documents]
    for name in [n for n in per_target[0] if all(n in aucs for aucs in per_target)]:
        order = sorted(zip(labels, (aucs[name] for aucs in per_target), strict=True), key=lambda pair: -_value(pair[1]))
        (most, highest), (least, lowest) = order[0], order[-1]
        numbers = words.numbers(highest), words.numbers(lowest)
        assert numbers[0] is not None and numbers[1] is not None
        if apart(highest, lowest):
            how = f"tells the members of “{most}” apart better than those of “{least}”"
            why = "the intervals do not overlap"
        else:
            how = f"is not shown to tell the members of “{most}” apart better than those of “{least}”"
            why = "the intervals overlap"
        found.append(
            f"{attack_title(name)} {how}: AUC\u00a0{numbers[0].value} ({_unbroken(numbers[0].interval)}) against "
            f"{numbers[1].value} ({_unbroken(numbers[1].interval)}); {why}."
        )
    return found


def attack_title(name: str) -> str:
    """An attack's name as words: ``membership.modified-entropy`` becomes ``Modified entropy``.

    What follows an ``@`` says which data the adversary holds, for attacks that are run with several kinds.
    """
    attack, _, auxiliary = name.rpartition(".")[2].partition("@")
    words_of_title = [_NAMES.get(word, word) for word in attack.split("-")]
    title = " ".join([words_of_title[0][:1].upper() + words_of_title[0][1:], *words_of_title[1:]])
    return f"{title} ({auxiliary} data)" if auxiliary else title


_NAMES = {
    "ml": "ML",
    "doctor": "Doctor",
    "mlp": "MLP",
    "lira": "LiRA",
    "rmia": "RMIA",
    "top3": "top-3",
    "fgsm": "FGSM",
    "pgd": "PGD",
}
"""Words of attacks' names that are written in their own way."""


def _unbroken(interval: str) -> str:
    """An interval that stays on one line: a word joiner on both sides of its dash."""
    return interval.replace("–", "\u2060–\u2060")


def _value(measurement: Measurement | None) -> float:
    return -1.0 if measurement is None or measurement.value is None else measurement.value
