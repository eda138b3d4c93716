"""One verdict from several scans of a model for backdoors, which may disagree.

Each scan (Neural Cleanse, MM-BD, the last layer, pairs of classes) holds its level alone, so of several
scans of a clean model more than one in twenty gives a false alarm. Their p-values are therefore corrected by Holm's
method (Scandinavian Journal of Statistics 6, 1979), which holds the level over all of them however they depend on each
other.

- **Backdoor found**: a scan finds one, and its p-value is at most `ALPHA` after the correction.
- **Suspicious**: a scan accuses a class, and its p-value is at most `ALPHA` after the correction. Also where a scan
  finds a backdoor without that, because it rests on more than a p-value: on how small the trigger is and how well it
  works.
- **Undecided**: a scan accuses a class, but not after the correction; or no scan accuses, and one is undecided.
- **Nothing found**: all scans find nothing.

A scan that finds nothing never weakens the accusation of another, since each one looks for other kinds of triggers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from securitynet.metrics.backdoor_verdict import ALPHA, WORDS, Word
from securitynet.records import Direction, Measurement

FAMILY = "backdoor"

SCANS = {
    "neural-cleanse": "Neural Cleanse",
    "mm-bd": "MM-BD",
    "last-layer": "the last-layer scan",
    "class-pairs": "the class-pair search",
    "neuron-noise": "the neuron-noise search",
    "patch-margins": "the search of patches by position",
}
"""Detectors that judge a model as a whole, in words; those of plug-ins go by their names."""

NAME = f"{FAMILY}.verdict"
"""Name of the measurement that holds the joint verdict."""

REFERENCES = 19
"""Clean models without which Neural Cleanse's comparison with them decides nothing."""

SUSPICIOUS, FOUND = WORDS.index("suspicious"), WORDS.index("backdoor found")


@dataclass(frozen=True)
class Scan:
    """What one scan of a model says.

    Attributes:
        title: Name in words.
        rank: Of its verdict, from 0 for "nothing found" to 3 for "backdoor found".
        p_value: Of the test that accuses; None if there was none.
        label: The class that stands out; None if none does.
    """

    title: str
    rank: int
    p_value: float | None = None
    label: int | None = None


@dataclass(frozen=True)
class JointVerdict:
    """The verdict of all scans.

    Attributes:
        word: In words.
        sentence: In a sentence or two.
        p_value: Smallest corrected p-value of the scans that accuse, or of all scans if none does; None without tests.
    """

    word: Word
    sentence: str
    p_value: float | None

    @property
    def rank(self) -> int:
        """0 nothing found, 1 undecided, 2 suspicious, 3 backdoor found."""
        return WORDS.index(self.word)


def correct_p_values(scans: Sequence[Scan]) -> list[float | None]:
    """The p-values of the scans, corrected by Holm's method; None where there is none.

    Args:
        scans: The scans. Those without a p-value made no test, so they are not counted.
    """
    tested = sorted((scan.p_value, place) for place, scan in enumerate(scans) if scan.p_value is not None)
    corrected: list[float | None] = [None] * len(scans)
    largest = 0.0
    for number, (p_value, place) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - number) * p_value))
        corrected[place] = largest
    return corrected


def join_verdicts(scans: Sequence[Scan], names: Sequence[str] = ()) -> JointVerdict:
    """Combine the verdicts of several scans; the module's documentation states the rules.

    Args:
        scans: At least one.
        names: Names of the classes.
    """
    corrected = correct_p_values(scans)
    accusing = [pair for pair in zip(scans, corrected, strict=True) if pair[0].rank >= SUSPICIOUS]
    known = [p_value for _, p_value in accusing or zip(scans, corrected, strict=True) if p_value is not None]
    smallest = min(known, default=None)
    if not accusing:
        return _join_without_accusation(scans, smallest)
    # A scan of a plug-in may accuse without a p-value. Nothing can be corrected there, so its own verdict counts.
    held = [scan for scan, p_value in accusing if p_value is None or p_value <= ALPHA]
    if any(scan.rank == FOUND for scan in held):
        word: Word = "backdoor found"
    elif held or any(scan.rank == FOUND for scan, _ in accusing):
        word = "suspicious"
    else:
        word = "undecided"
    accusations = ", ".join(_accuse(scan, p_value, names) for scan, p_value in accusing)
    sentence = f"{word.capitalize()}: {accusations} (p-values corrected for {len(scans)} scans by Holm's method)."
    if word == "undecided":
        sentence = f"{sentence[:-1]}, which is not significant after the correction."
    if len({scan.label for scan, _ in accusing}) > 1:
        sentence += " They accuse different classes: a backdoor may have several targets, or a scan is wrong."
    silent = [scan for scan in scans if scan.rank < SUSPICIOUS]
    if silent:
        verb = "does not accuse it" if len(silent) == 1 else "do not accuse it"
        sentence += (
            f" {_capitalise(_list(silent))} {verb}; that does not clear the model, because each scan looks for other "
            "kinds of triggers."
        )
    return JointVerdict(word, sentence, smallest)


def measure_joint_verdict(
    measurements: Iterable[Measurement], names: Sequence[str] = (), level: float = 0.95
) -> Measurement | None:
    """The joint verdict as a number that a policy can bound, with the verdict in words as its note.

    Args:
        measurements: Of all trials of one target; the names of the scans' own begin with ``backdoor.``.
        names: Names of the classes.
        level: Confidence level that the measurement states.

    Returns:
        None if fewer than two scans gave a verdict.
    """
    scans = read_scans(measurements)
    if len(scans) < 2:
        return None
    joint = join_verdicts(scans, names)
    rank = float(joint.rank)
    return Measurement(
        name=NAME,
        value=rank,
        low=rank,
        high=rank,
        level=level,
        n=len(scans),
        direction=Direction.LOWER,
        method="verdicts of all scans, p-values corrected by Holm's method",
        note=joint.sentence,
    )


def read_scans(measurements: Iterable[Measurement]) -> list[Scan]:
    """The scans that gave a verdict, whatever their names, from the measurements of their trials."""
    by_trial: dict[str, dict[str, Measurement]] = {}
    for measurement in measurements:
        trial, _, part = measurement.name.rpartition(".")
        if trial.startswith(f"{FAMILY}."):
            by_trial.setdefault(trial, {})[part] = measurement
    scans = []
    for trial, own in by_trial.items():
        name = trial.removeprefix(f"{FAMILY}.").partition("@")[0]
        verdict, label = own.get("verdict"), own.get("suspect-label")
        if verdict is None or verdict.value is None:
            continue
        place = None if label is None or label.value is None else int(label.value)
        scans.append(Scan(SCANS.get(name, name), int(verdict.value), _read_p_value(own), place))
    return scans


def _read_p_value(measured: dict[str, Measurement]) -> float | None:
    """The p-value that decides: that among clean models where there are enough of them."""
    reference, own = measured.get("reference-p-value"), measured.get("p-value")
    if reference is not None and reference.value is not None and reference.n >= REFERENCES:
        return reference.value
    return None if own is None else own.value


def _join_without_accusation(scans: Sequence[Scan], smallest: float | None) -> JointVerdict:
    undecided = [scan for scan in scans if scan.rank > 0]
    silent = [scan for scan in scans if scan.rank == 0]
    if not undecided:
        shown = "" if smallest is None else f" (smallest p-value, corrected for their number: {smallest:.3f})"
        missed = "What each of them would miss is part of its own verdict."
        return JointVerdict("nothing found", f"Nothing found by {len(scans)} scans{shown}. {missed}", smallest)
    verb = "is" if len(undecided) == 1 else "are"
    rest = f"; {_list(silent)} found nothing, which does not decide it" if silent else ""
    return JointVerdict("undecided", f"Undecided: {_list(undecided)} {verb} undecided{rest}.", smallest)


def _accuse(scan: Scan, p_value: float | None, names: Sequence[str]) -> str:
    """A clause: which class a scan accuses, and how surely."""
    if scan.label is None:
        whom = "the model"
    else:
        name = names[scan.label] if scan.label < len(names) else str(scan.label)
        whom = f"class {scan.label}" + (f" ({name})" if name != str(scan.label) else "")
    if p_value is None:
        return f"{scan.title} accuses {whom}"
    shown = f"=\u00a0{p_value:.3f}" if p_value >= 0.001 else "<\u00a00.001"
    return f"{scan.title} accuses {whom} with p\u00a0{shown}"


def _list(scans: Sequence[Scan]) -> str:
    titles = [scan.title for scan in scans]
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]
