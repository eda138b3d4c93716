"""The quantities that figures show, by the names of their measurements, published and our own."""

from __future__ import annotations

from typing import Literal

from securitynet.analysis.frames import Quantity

TARGET_ACCURACY = Quantity("Target's test accuracy", ("test_accuracy",), {"attack": ("target",)})
TRAIN_ACCURACY = Quantity("Target's training accuracy", ("train_accuracy",), {"attack": ("target",)})
OVERFITTING = Quantity("Overfitting level", ("overfitting",), {"attack": ("target",)}, "points", 0.0)


def define_stealing(measure: str, label: str, **where: tuple[str | None, ...]) -> Quantity:
    """A measure of model stealing with all queries, the usual auxiliary data and the usual surrogate.

    Args:
        measure: Name of the measure.
        label: For axes and tables.
        where: Column -> values that differ from the usual.
    """
    usual = {"attack": ("stealing",), "auxiliary": ("partial", None), "surrogate": ("usual", None), "at": (None,)}
    return Quantity(label, (measure,), {**usual, **where})


STEALING_ACCURACY = define_stealing("accuracy", "Surrogate's test accuracy")
STEALING_AGREEMENT = define_stealing("agreement", "Agreement with the target")
STEALING_OTHER_DATA = define_stealing(
    "accuracy", "Surrogate's test accuracy (other data)", auxiliary=("out-of-distribution",)
)
STEALING_LARGER = define_stealing("accuracy", "Surrogate's test accuracy (larger surrogate)", surrogate=("larger",))


def define_membership(
    method: str, label: str, measure: tuple[str, ...] = ("auc",), **where: tuple[str | None, ...]
) -> Quantity:
    """A measure of one membership attack.

    Args:
        method: Name of the attack.
        label: For axes and tables.
        measure: Names of the measure, the preferred one first.
        where: Further columns -> values.
    """
    chance = 0.5 if measure[0] in ("auc", "balanced-accuracy") else None
    unit = "plain" if measure[0] == "auc" else "share"
    return Quantity(label, measure, {"attack": ("membership",), "method": (method,), **where}, unit, chance)  # type: ignore[arg-type]


CORRECTNESS_AUC = define_membership("correctness", "Prediction correctness: AUC (identity: 0.5 + overfitting/2)")
MODIFIED_ENTROPY_AUC = define_membership("modified-entropy", "Modified entropy: AUC")
MLP_AUC = define_membership("mlp-posteriors", "MLP on posteriors: AUC")
MLP_TOP3_AUC = define_membership("mlp-top3", "MLP on the top 3 posteriors: AUC")

BLIND_AUC = Quantity(
    "Blind baseline, without the model: AUC", ("blind-auc",), {"attack": ("membership",)}, "plain", 0.5, largest=True
)

STRONGEST_MEMBERSHIP = Quantity(
    "Largest AUC of any membership attack", ("auc",), {"attack": ("membership",)}, "plain", 0.5, largest=True
)

WORST_RECORDS = {
    f"worst_{percent}": Quantity(
        f"LiRA on the most exposed records: TPR at {percent}% FPR",
        ("tpr",),
        {"attack": ("membership",), "method": ("lira-most-exposed",), "at": (f"fpr={percent / 100:g}",)},
        "share",
        percent / 100,
    )
    for percent in (1, 10)
}
"""The rates by which a defense is judged: what an average hides."""

BALANCED = ("balanced-accuracy",)
"""Accuracy on as many members as non-members: ML-Doctor's measure."""


def define_inversion(method: str, measure: str, label: str, unit: Literal["share", "plain"]) -> Quantity:
    """A measure of one model inversion attack.

    Args:
        method: Name of the attack.
        measure: Name of the measure.
        label: For axes and tables.
        unit: How values are written.
    """
    return Quantity(label, (measure,), {"attack": ("inversion",), "method": (method,)}, unit)


def define_attribute(measure: str, label: str, **where: tuple[str | None, ...]) -> Quantity:
    """A measure of attribute inference; of several attributes, the one that most models have.

    Args:
        measure: Name of the measure.
        label: For axes and tables.
        where: Further columns -> values.
    """
    return Quantity(label, (measure,), {"attack": ("attribute",), **where})


def define_evasion(method: str, epsilon: str, label: str, measure: str = "accuracy-drop") -> Quantity:
    """A measure of an evasion attack at one epsilon.

    Args:
        method: Name of the attack.
        epsilon: As measurements write it.
        label: For axes and tables.
        measure: Name of the measure.
    """
    where = {"attack": ("evasion",), "method": (method,), "at": (f"epsilon={epsilon}",)}
    return Quantity(label, (measure,), where, "points", 0.0)


def define_detector(method: str, measure: str, label: str) -> Quantity:
    """A measure of a backdoor detector.

    Args:
        method: Name of the detector.
        measure: Name of the measure.
        label: For axes and tables.
    """
    return Quantity(label, (measure,), {"attack": ("backdoor",), "method": (method,)}, "plain")
