"""What a report says about input filters and activation clustering; part of ``backdoor``."""

from __future__ import annotations

from collections.abc import Sequence

from securitynet.records import Measurement
from securitynet.reports import verdict, words
from securitynet.reports.kinds import Kind
from securitynet.results.document import ResultDocument, TrialSummary

KINDS: dict[str, Kind] = {
    "false-rejection-rate": Kind("Clean images that are stopped", "share"),
    "trigger-success-rate": Kind("Images whose prediction the trigger changes", "share"),
    "detection-rate": Kind("Of those, stopped", "share"),
    "localisation": Kind("Overlap of the located region with the trigger", "share"),
    "suspects-flagged": Kind("Suspect images that are stopped", "share"),
    "suspects-excess": Kind("Suspect images stopped, beyond the share of clean ones", "points", chance=0.0),
    "foreign-p-value": Kind("p-value of the most suspicious class"),
    "spectral-p-value": Kind("p-value of the most suspicious class"),
    "two-sample-p-value": Kind("p-value of the most suspicious class"),
    "foreign-classes": Kind("Classes with a part that clean images avoid", "share"),
    "rule-flagged-classes": Kind("Classes flagged by silhouette and size (Chen et al.)", "share"),
    "suspect-records": Kind("Training records that look poisoned", "share"),
}

TITLES = {"strip": "STRIP", "neo": "NEO", "scale-up": "SCALE-UP", "ibd-psc": "IBD-PSC", "teco": "TeCo"}
CLUSTERING = "activation-clustering"
SPECTRAL = "spectral-signatures"
TWO_SAMPLE = "two-sample"
ALPHA = 0.05


def write_sentences(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """What each filter stops, and whether activation clustering shows poisoned records."""
    lines: list[str] = []
    for trial in trials:
        name = trial.name.partition(".")[2].partition("@")[0]
        measured = {m.name.removeprefix(f"{trial.name}."): m for m in verdict.select_measurements(document, trial)}
        if name in TITLES:
            lines += _of_filter(TITLES[name], measured)
        elif name == CLUSTERING:
            lines += _of_clusters(measured)
        elif name == SPECTRAL:
            lines += _of_signatures(measured)
        elif name == TWO_SAMPLE:
            lines += _of_classifier(measured)
    return lines


def _of_filter(title: str, measured: dict[str, Measurement]) -> list[str]:
    rejected = measured.get("false-rejection-rate")
    if rejected is None:
        return []
    sentences = [f"As an input filter, {title} stops {_share(rejected)} of {rejected.n:,} clean images."]
    caught, success = measured.get("detection-rate"), measured.get("trigger-success-rate")
    if caught is not None and success is not None:
        if caught.value is None:
            sentences.append("The known trigger changes no prediction, so there is nothing for the filter to stop.")
        else:
            better = "" if (caught.low or 0.0) > (rejected.high or 1.0) else ", no more often than clean ones"
            sentences.append(
                f"The known trigger changes the prediction of {_share(success)} of the images that "
                f"carry it; {title} stops {_share(caught)} of these{better}."
            )
    elif measured.get("suspects-flagged") is None:
        sentences.append("No trigger is known, so this rate says nothing about whether the model has a backdoor.")
    excess, flagged = measured.get("suspects-excess"), measured.get("suspects-flagged")
    if excess is not None and flagged is not None:
        if (excess.low or 0.0) > 0:
            meaning = "more often than clean images, as would be the case if they carried a trigger of this model"
        else:
            meaning = "which is not distinguishable from clean images"
        sentences.append(f"Of {flagged.n:,} suspect images {title} stops {_share(flagged)}, {meaning}.")
    return sentences


def _of_clusters(measured: dict[str, Measurement]) -> list[str]:
    p_value, suspect = measured.get("foreign-p-value"), measured.get("suspect-records")
    if p_value is None or p_value.value is None or suspect is None:
        return []
    if p_value.value >= ALPHA:
        return [
            "The activations of the training records show no part of a class that clean images avoid (adjusted "
            f"p\u00a0=\u00a0{p_value.value:.2g}); a small number of poisoned records could go unnoticed."
        ]
    number = "p\u00a0<\u00a01e-6" if p_value.value < 1e-6 else f"p\u00a0=\u00a0{p_value.value:.2g}"
    return [
        f"Clean images avoid a part of at least one class of the training records (adjusted {number}), as they would "
        f"if it were poisoned: {_share(suspect)} of the training records lie in such parts."
    ]


def _of_signatures(measured: dict[str, Measurement]) -> list[str]:
    p_value, suspect = measured.get("spectral-p-value"), measured.get("suspect-records")
    if p_value is None or p_value.value is None or suspect is None:
        return []
    number = "p\u00a0<\u00a01e-6" if p_value.value < 1e-6 else f"p\u00a0=\u00a0{p_value.value:.2g}"
    if p_value.value >= ALPHA:
        return [
            "Spectral signatures show no class whose training records lie further out than clean images (adjusted "
            f"{number}); a small number of poisoned records could go unnoticed."
        ]
    return [
        f"Training records of at least one class lie beyond all clean images (adjusted {number}), as they would if it "
        f"were poisoned: {_share(suspect)} of the training records do."
    ]


def _of_classifier(measured: dict[str, Measurement]) -> list[str]:
    p_value = measured.get("two-sample-p-value")
    if p_value is None or p_value.value is None:
        return []
    number = "p\u00a0<\u00a01e-6" if p_value.value < 1e-6 else f"p\u00a0=\u00a0{p_value.value:.2g}"
    if p_value.value >= ALPHA:
        return [
            "A classifier cannot distinguish the training records of any class from clean images (adjusted "
            f"{number}); a small number of poisoned records could go unnoticed."
        ]
    return [
        f"A classifier distinguishes the training records of at least one class from clean images (adjusted {number}), "
        "as it could if the class were poisoned, but also if the clean images came from another source."
    ]


def _share(measurement: Measurement) -> str:
    numbers = words.write_numbers(measurement)
    if numbers is None:
        return "an unknown share"
    return f"{numbers.value} ({words.write_level(measurement)} interval {words.keep_unbroken(numbers.interval)})"
