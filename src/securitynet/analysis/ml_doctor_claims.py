"""The claims of the ML-Doctor paper that measured values can support or contradict.

Figures 7, 8 and 10 of the paper show the targets of four datasets together, and its sections 6.2 to 6.4 speak of them
together: correlations are pooled, and those within datasets stand beside them.
"""

from __future__ import annotations

import pandas

from securitynet.analysis import quantities as q
from securitynet.analysis.frames import Quantity
from securitynet.analysis.hypotheses import cases
from securitynet.analysis.hypotheses.claim import CORRELATION_MARGIN, MARGIN, RELATIVE_MARGIN, Claim, Sign
from securitynet.analysis.hypotheses.correlations import correlate, correlate_datasets
from securitynet.analysis.hypotheses.defenses import compare_defenses, compare_with_undefended
from securitynet.analysis.hypotheses.differences import compare_all_groups, compare_values
from securitynet.analysis.hypotheses.tested import Test
from securitynet.analysis.ml_doctor_quantities import ATTRIBUTE, BEST, INVERSION, MEMBERSHIP, STEALING

CORRELATION = "correlation"
EPOCHS = 100
"""From as many epochs on nothing changes (section 6.3)."""

WORDS = {
    "membership": "membership inference",
    "inversion": "model inversion",
    "attribute": "attribute inference",
    "stealing": "model stealing",
}
SIGNALS = {
    "loss": q.define_membership("loss", "Loss: AUC"),
    "posteriors": q.define_membership("entropy", "Entropy of the posteriors: AUC"),
    "gradient": q.define_membership("gradient-norm", "Norm of the gradient: AUC"),
}

COMPLEXITY: tuple[tuple[str, str, Sign], ...] = (
    ("membership", "Complex datasets make membership inference stronger.", 1),
    ("stealing", "Complex datasets make model stealing weaker.", -1),
    ("inversion", "Complex datasets make model inversion weaker.", -1),
    ("attribute", "The complexity of the dataset makes no difference to attribute inference.", 0),
)
"""Attack, claim, and the sign of its relation to the complexity of the dataset (section 6.2, Figure 7)."""


def _pooled(x: str = "x", y: str = "y") -> Test:
    return correlate(x, y, estimand="pooled")


def _epochs(quantity: str) -> Test:
    """Rank correlation with the number of epochs, among targets that differ in nothing else but the seed."""
    return correlate("epochs", quantity, "spearman", groups=("dataset", "architecture"))


def _strongest_other(wide: pandas.DataFrame, tidy: pandas.DataFrame) -> pandas.DataFrame:
    """Adds ``other``: the largest AUC of the signals besides the loss."""
    return wide.assign(other=wide[["posteriors", "gradient"]].max(axis=1))


def _overfitting(attack: str, quantity: Quantity, sentence: str, sign: Sign) -> Claim:
    return Claim(f"overfitting-{attack}", sentence, "ML-Doctor, section 6.3", {"x": q.OVERFITTING, "y": quantity},
                 _pooled(), sign, CORRELATION, margin=None if sign else CORRELATION_MARGIN)  # fmt: skip


CLAIMS = [
    Claim("white-box-membership-stronger",
          "White-box access makes membership inference with shadow data stronger.", "ML-Doctor, section 6.1",
          {"black": MEMBERSHIP["black_shadow"], "white": MEMBERSHIP["white_shadow"]}, compare_values("black", "white"),
          1,
          "mean change of accuracy"),
    Claim("white-box-partial-stronger",
          "White-box access makes membership inference with partial data stronger.", "ML-Doctor, section 6.1",
          {"black": MEMBERSHIP["black_partial"], "white": MEMBERSHIP["white_partial"]}, compare_values("black",
                                                                                                       "white"),
          1, "mean change of accuracy"),
    Claim("partial-membership-stronger",
          "Partial data makes black-box membership inference stronger than shadow data.", "ML-Doctor, section 6.1",
          {"shadow": MEMBERSHIP["black_shadow"], "partial": MEMBERSHIP["black_partial"]},
          compare_values("shadow", "partial"), 1, "mean change of accuracy"),
    Claim("loss-strongest",
          "The loss is a stronger signal of membership than the posteriors and the gradients are.",
          "ML-Doctor, section 6.1", SIGNALS, compare_values("other", "loss"), 1,
          "mean difference of AUCs to the strongest other signal", prepare=_strongest_other),
    Claim("partial-attribute",
          "Partial data makes attribute inference no stronger than shadow data.", "ML-Doctor, section 6.1",
          {"shadow": ATTRIBUTE["attribute_shadow"], "partial": ATTRIBUTE["attribute_partial"]},
          compare_values("shadow", "partial"), 0, "mean change of accuracy", margin=MARGIN),
    Claim("shadow-steals-better",
          "Shadow data steals better than partial data.", "ML-Doctor, section 6.1",
          {"partial": STEALING["stealing_partial"], "shadow": STEALING["stealing_shadow"]},
          compare_values("partial", "shadow"), 1, "mean change of agreement"),
]  # fmt: skip

CLAIMS += [
    Claim(f"complexity-{attack}", sentence, "ML-Doctor, section 6.2", {"y": BEST[attack]},
          correlate_datasets("difficulty", "y"), sign,
          "rank correlation with the lowest test error of the dataset's targets", prepare=cases.add_difficulty,
          margin=None if sign else CORRELATION_MARGIN)
    for attack, sentence, sign in COMPLEXITY
]  # fmt: skip
CLAIMS += [
    Claim(f"architecture-{attack}", f"The architecture makes no difference to {WORDS[attack]}.",
          "ML-Doctor, section 6.2", {"y": quantity},
          compare_all_groups("y", "architecture", match=("dataset", "epochs", "seed")), 0,
          "largest mean difference between two architectures on the same data", margin=MARGIN)
    for attack, quantity in BEST.items()
]  # fmt: skip

CLAIMS += [
    _overfitting("membership", MEMBERSHIP["white_shadow"], "Membership inference grows with the overfitting level.", 1),
    _overfitting("stealing", STEALING["stealing_shadow"], "Overfitted targets are harder to steal.", -1),
    _overfitting("inversion", INVERSION["inversion_accuracy"], "Overfitted targets are harder to invert.", -1),
    _overfitting("attribute", ATTRIBUTE["attribute_shadow"],
                 "The overfitting level has no relation to attribute inference.", 0),
    Claim("epochs-membership",
          "Up to 100 epochs, membership inference grows with the number of epochs.", "ML-Doctor, section 6.3",
          {"y": MEMBERSHIP["white_shadow"]}, _epochs("y"), 1, "rank correlation",
          prepare=cases.limit_epochs(EPOCHS)),
    Claim("epochs-stealing",
          "Up to 100 epochs, stealing falls with the number of epochs.", "ML-Doctor, section 6.3",
          {"y": STEALING["stealing_shadow"]}, _epochs("y"), -1, "rank correlation",
          prepare=cases.limit_epochs(EPOCHS)),
]  # fmt: skip
CLAIMS += [
    Claim(f"plateau-{attack}", f"After 100 epochs, {WORDS[attack]} does not change any more.",
          "ML-Doctor, section 6.3", {"y": quantity}, compare_values("early", "late"), 0,
          "mean change from 100 to the most epochs", margin=MARGIN, prepare=cases.pair_epochs("y", EPOCHS))
    for attack, quantity in BEST.items()
]  # fmt: skip

CLAIMS += [
    Claim("membership-against-stealing",
          "Where membership inference succeeds, stealing does not.", "ML-Doctor, section 6.4",
          {"x": MEMBERSHIP["black_shadow"], "y": STEALING["stealing_shadow"]}, _pooled(), -1, CORRELATION,
          printed=("membership-stealing",)),
    Claim("membership-against-stealing-partial",
          "Where membership inference with partial data succeeds, stealing with partial data does not.",
          "ML-Doctor, section 6.4", {"x": MEMBERSHIP["black_partial"], "y": STEALING["stealing_partial"]}, _pooled(),
          -1, CORRELATION),
    Claim("membership-against-inversion",
          "Where membership inference succeeds, inversion does not.", "ML-Doctor, section 6.4",
          {"x": MEMBERSHIP["white_shadow"], "y": INVERSION["inversion_accuracy"]}, _pooled(), -1, CORRELATION),
    Claim("membership-attribute",
          "Membership inference and attribute inference have no relation.", "ML-Doctor, section 6.4",
          {"x": MEMBERSHIP["white_shadow"], "y": ATTRIBUTE["attribute_shadow"]}, _pooled(), 0, CORRELATION,
          margin=CORRELATION_MARGIN),
    Claim("attribute-inversion",
          "Attribute inference and inversion have no relation.", "ML-Doctor, section 6.4",
          {"x": ATTRIBUTE["attribute_shadow"], "y": INVERSION["inversion_accuracy"]}, _pooled(), 0, CORRELATION,
          margin=CORRELATION_MARGIN),
]  # fmt: skip


def _defense(
    name: str, sentence: str, quantity: Quantity, defense: str, sign: Sign, measure: str = "accuracy"
) -> Claim:
    return Claim(name, sentence, "ML-Doctor, section 7.3", {"x": quantity}, compare_with_undefended("x", defense),
                 sign, f"mean change of {measure}", margin=None if sign else MARGIN, with_defenses=True)  # fmt: skip


CLAIMS += [
    _defense("dp-sgd-membership", "DP-SGD weakens membership inference.", MEMBERSHIP["white_shadow"], "dp-sgd", -1),
    _defense("dp-sgd-inversion", "DP-SGD hardly changes model inversion.", INVERSION["inversion_accuracy"],
             "dp-sgd", 0),
    Claim("dp-sgd-inversion-error", "DP-SGD hardly changes the mean squared error of model inversion.",
          "ML-Doctor, section 7.3", {"x": INVERSION["inversion_error"]},
          compare_with_undefended("x", "dp-sgd", relative=True), 0, "mean relative change of the mean squared error",
          margin=RELATIVE_MARGIN, with_defenses=True),
    _defense("dp-sgd-attribute", "DP-SGD hardly changes attribute inference.", ATTRIBUTE["attribute_shadow"],
             "dp-sgd", 0),
    _defense("dp-sgd-stealing", "DP-SGD hardly changes model stealing.", STEALING["stealing_shadow"], "dp-sgd", 0,
             "agreement"),
    _defense("dp-sgd-utility", "DP-SGD costs accuracy.", q.TARGET_ACCURACY, "dp-sgd", -1),
    _defense("distillation-membership", "Distillation weakens membership inference.", MEMBERSHIP["white_shadow"],
             "distillation", -1),
    Claim("distillation-weaker-than-dp-sgd",
          "Distillation weakens membership inference less than DP-SGD does.", "ML-Doctor, section 7.3",
          {"x": MEMBERSHIP["white_shadow"]}, compare_defenses("x", "dp-sgd", "distillation"), 1,
          "difference of the mean changes of accuracy", with_defenses=True),
    _defense("distillation-inversion", "Distillation hardly changes model inversion.",
             INVERSION["inversion_accuracy"], "distillation", 0),
    _defense("distillation-attribute", "Distillation hardly changes attribute inference.",
             ATTRIBUTE["attribute_shadow"], "distillation", 0),
    _defense("distillation-stealing", "Distillation hardly changes model stealing.", STEALING["stealing_shadow"],
             "distillation", 0, "agreement"),
    _defense("distillation-utility", "Distillation hardly costs accuracy.", q.TARGET_ACCURACY, "distillation", 0),
]  # fmt: skip
