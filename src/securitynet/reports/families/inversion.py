"""What a report says about model inversion: whether reconstructions show the class, approach it, or copy records."""

from __future__ import annotations

from collections.abc import Sequence

from securitynet.records import Measurement
from securitynet.reports import words
from securitynet.reports.kinds import Kind
from securitynet.results.document import ResultDocument, TrialSummary

KINDS = {
    "accuracy": Kind("Recognised as the requested class", "share"),
    "top5-accuracy": Kind("Requested class among the first five", "share"),
    "accuracy-ratio": Kind("Recognised, relative to real images"),
    "judge-accuracy": Kind("Real images that the evaluation classifier recognises", "share"),
    "mse": Kind("MSE to the class mean"),
    "mse@class": Kind("MSE to the mean of class {value}"),
    "mse-blank": Kind("MSE of a blank image"),
    "mse-mean-colour": Kind("MSE of an image in the mean colour"),
    "mse-other-class": Kind("MSE of another class's mean"),
    "mse-gain": Kind("MSE below that of the mean colour", chance=0.0),
    "ssim": Kind("SSIM to the class mean"),
    "embedding-distance": Kind("Distance to the class in the target's embedding"),
    "feature-distance": Kind("Distance to the class in the judge's embedding"),
    "knn-distance": Kind("Distance to the nearest training image"),
    "closer-to-member": Kind("Nearest real image is a member", "share", chance=0.5),
    "posterior": Kind("Target's posterior of the requested class", "share"),
}


def write_sentences(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """Sentences on the most recognisable reconstructions, those nearest to the class means, and copied records."""
    measured = {m.name: m for m in document.measurements if m.low is not None}

    def of(measure: str) -> list[tuple[TrialSummary, Measurement]]:
        measurements = [(trial, measured.get(f"{trial.name}.{measure}")) for trial in trials]
        return sorted(
            ((t, m) for t, m in measurements if m is not None), key=lambda pair: pair[1].low or 0.0, reverse=True
        )

    lines = []
    if recognised := of("accuracy"):
        lines.append(_recognised(document, *recognised[0], measured))
    elif judges := of("judge-accuracy"):
        lines.append(_unjudged(*judges[0]))
    if gains := of("mse-gain"):
        lines.append(_near(*gains[0], measured))
    if copies := of("closer-to-member"):
        lines.append(_copied(*copies[0]))
    return lines


def _recognised(
    document: ResultDocument, trial: TrialSummary, accuracy: Measurement, measured: dict[str, Measurement]
) -> str:
    numbers = words.write_numbers(accuracy)
    assert numbers is not None and accuracy.low is not None  # only measurements with a value are passed
    chance = 1 / document.target.num_classes
    images = words.count_noun(accuracy.n, "reconstruction")
    verdict = "more than guessing would give" if accuracy.low > chance else "which guessing could give too"
    judge, ratio = (measured.get(f"{trial.name}.{name}") for name in ("judge-accuracy", "accuracy-ratio"))
    seen, relative = (None if m is None else words.write_numbers(m) for m in (judge, ratio))
    beside = ""
    if seen and relative:
        beside = (
            f" It recognises {seen.value} of real images, so that the reconstructions reach {relative.value} times "
            f"({relative.interval}) what real images would."
        )
    return (
        f"Model inversion by {_short(trial)}: a classifier trained on other data recognises the requested class in "
        f"{numbers.value} of {images} ({words.write_level(accuracy)} interval {numbers.interval}), {verdict} "
        f"({words.write_rate(chance)}).{beside}"
    )


def _unjudged(trial: TrialSummary, judge: Measurement) -> str:
    numbers = words.write_numbers(judge)
    assert numbers is not None  # only measurements with a value are passed
    return (
        f"Whether the images of {_short(trial)} show the requested classes cannot be judged: the classifier trained on "
        f"other data recognises {numbers.value} of {words.count_noun(judge.n, 'real image')} "
        f"({words.write_level(judge)} "
        f"interval {numbers.interval}), which guessing could give too. Give it more data, or set "
        "evaluator.architecture and evaluator.recipe."
    )


def _near(trial: TrialSummary, gain: Measurement, measured: dict[str, Measurement]) -> str:
    assert gain.low is not None and gain.high is not None  # only measurements with a value are passed
    own, plain = (words.write_numbers(measured[f"{trial.name}.{name}"]) for name in ("mse", "mse-mean-colour"))
    values = f"MSE {own.value} against {plain.value}" if own and plain else "by MSE"
    if gain.low > 0:
        where = "nearer to the mean training images of their classes than"
    elif gain.high < 0:
        where = "farther from the mean training images of their classes than"
    else:
        where = "not shown to be nearer to the mean training images of their classes, nor farther from them, than"
    return f"The images of {_short(trial)} are {where} an image in the data's mean colour ({values})."


def _copied(trial: TrialSummary, share: Measurement) -> str:
    numbers = words.write_numbers(share)
    assert numbers is not None and share.low is not None  # only measurements with a value are passed
    if share.low > 0.5:
        return (
            f"In {numbers.value} ({words.write_level(share)} interval {numbers.interval}) of the images of "
            f"{_short(trial)} "
            "the nearest real image is a member, among equally many members and non-members: they show more than "
            "what the classes look like."
        )
    return (
        "No attack's images are shown to be nearer to members than to non-members of their class: as far as this "
        "measure shows, they reveal what the classes look like, not single records."
    )


def _short(trial: TrialSummary) -> str:
    return trial.name.partition(".")[2]
