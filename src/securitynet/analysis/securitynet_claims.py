"""The claims of the SecurityNet paper that measured values can support or contradict.

That prediction correctness follows the overfitting level (section 4.2) is not among them: its AUC *equals* one half
plus half the overfitting level for any model. An identity is not a finding, and does not count among the claims that
are tested together.

Claims that name data are judged on that data and on no other. The others are judged on benchmark models and the five
datasets of sections 4.1 and 4.2 where there are such models, and on all models otherwise.
"""

from __future__ import annotations

from securitynet.analysis import quantities as q
from securitynet.analysis.hypotheses import cases
from securitynet.analysis.hypotheses.cases import Only
from securitynet.analysis.hypotheses.claim import CORRELATION_MARGIN, MARGIN, Claim
from securitynet.analysis.hypotheses.correlations import correlate, correlate_datasets, correlate_in_cluster
from securitynet.analysis.hypotheses.differences import (
    compare_all_groups,
    compare_groups,
    compare_groups_adjusted,
    compare_groups_relative,
    compare_relative,
    compare_values,
)
from securitynet.analysis.hypotheses.shares import average, average_ratio, measure_share
from securitynet.analysis.papers import securitynet as paper
from securitynet.analysis.papers.securitynet import DATASETS, NEO, NEURAL_CLEANSE, STRIP, THRESHOLDS, limit_to

PAPER: Only = {"purpose": ("benchmark",), "dataset": DATASETS}
BENCHMARK: Only = {"purpose": ("benchmark",)}
IMAGENET = limit_to("ImageNet-1k")
CIFAR10: Only = {"dataset": ("CIFAR-10",)}
STEALING = {"y": q.STEALING_ACCURACY}
MEMBERSHIP = {"y": q.MODIFIED_ENTROPY_AUC}
CORRELATION = "correlation"
WEAK = 0.6
"""The AUC that the paper calls generally not reached on CIFAR-10 and ImageNet-1k (section 4.2)."""


def _printed(beginning: str) -> tuple[str, ...]:
    """Names of the paper's numbers that begin with something."""
    return tuple(printed.name for printed in paper.PRINTED if printed.name.startswith(beginning))


CLAIMS = [
    Claim("agreement-follows-accuracy",
          "A stolen model that is more accurate agrees more with its target.", "SecurityNet, section 4.1",
          {"x": q.STEALING_ACCURACY, "y": q.STEALING_AGREEMENT}, correlate("x", "y", estimand="pooled"), 1,
          CORRELATION, prefer=PAPER, printed=("agreement-accuracy",)),
    Claim("stealing-falls-with-accuracy",
          "Stealing accuracy falls as the target's accuracy rises.", "SecurityNet, section 4.1",
          paper.STEALING, correlate("x", "y"), -1, CORRELATION, prefer=PAPER,
          printed=tuple(f"stealing-{paper.shorten_dataset(name)}" for name in DATASETS[:4])),
    Claim("stealing-falls-with-complexity",
          "Models of datasets with many classes and few images of each are harder to steal.",
          "SecurityNet, section 4.1", STEALING, correlate_datasets("images_per_class", "y"), 1,
          "rank correlation of stealing accuracy with the training images per class", prefer=BENCHMARK,
          prepare=cases.add_images_per_class, printed=_printed("ratio-")),
    Claim("cub-below-imagenet",
          "Models of CUB-200-2011 are harder to steal than those of ImageNet-1k.", "SecurityNet, section 4.1",
          STEALING, compare_groups("y", "dataset", "ImageNet-1k", "CUB-200-2011"), -1,
          "difference of mean stealing accuracies", only=limit_to("ImageNet-1k", "CUB-200-2011")),
    Claim("high-accuracy-imagenet",
          "Most ImageNet-1k models with an accuracy above 75% are stolen with an accuracy of less than 40%.",
          "SecurityNet, section 4.1", paper.STEALING, measure_share("y", below=0.40), 1, "share", against=0.5,
          only=IMAGENET, prepare=lambda wide, tidy: wide[wide["x"] > 0.75], printed=("stealing-regnety-320",)),
    Claim("other-data-steals-worse",
          "Out-of-distribution auxiliary data makes stealing worse.", "SecurityNet, section 4.1",
          paper.OTHER_DATA, compare_relative("same", "other"), -1, "mean relative change of the surrogate's accuracy",
          prefer=PAPER, printed=_printed("other-data-")),
    Claim("other-data-svhn",
          "Out-of-distribution auxiliary data costs more on SVHN than on CIFAR-10.", "SecurityNet, section 4.1",
          paper.OTHER_DATA, compare_groups_relative("same", "other", "dataset", "CIFAR-10", "SVHN"), -1,
          "difference of the mean relative changes", only=limit_to("CIFAR-10", "SVHN"),
          printed=("other-data-svhn", "other-data-cifar10")),
    Claim("larger-surrogate-no-help",
          "A larger surrogate steals worse.", "SecurityNet, section 4.1",
          paper.LARGER, compare_relative("usual", "larger"), -1, "mean relative change of the surrogate's accuracy",
          prefer=PAPER, printed=_printed("larger-surrogate-")),
    Claim("budget-helps",
          "More queries steal better.", "SecurityNet, appendix B", STEALING, compare_values("least", "most"), 1,
          "mean change of the surrogate's accuracy from the smallest to the largest query budget", prefer=PAPER,
          prepare=cases.add_budgets),
]  # fmt: skip

CLAIMS += [
    Claim("security-models-less-accurate",
          "Security models on CIFAR-10 are less accurate than benchmark models of like architecture.",
          "SecurityNet, section 2.3", {"accuracy": q.TARGET_ACCURACY},
          compare_groups("accuracy", "purpose", "benchmark", "security", shared="family"), -1,
          "difference of mean accuracies", only=CIFAR10),
    Claim("stealing-high-cluster",
          "High-performing security models on CIFAR-10 behave like benchmark models: stealing falls with their "
          "accuracy.",
          "SecurityNet, section 4.1", paper.STEALING, correlate_in_cluster("high", "x", "y"), -1, CORRELATION,
          only=CIFAR10,
          prepare=cases.add_clusters, printed=("stealing-security-high",)),
    Claim("stealing-low-cluster",
          "Low-performing security models on CIFAR-10 behave the other way: stealing rises with their accuracy.",
          "SecurityNet, section 4.1", paper.STEALING, correlate_in_cluster("low", "x", "y"), 1, CORRELATION,
          only=CIFAR10,
          prepare=cases.add_clusters, printed=("stealing-security-low",)),
    Claim("newer-harder-to-steal",
          "Newer ImageNet-1k models are harder to steal.", "SecurityNet, section 4.1", STEALING,
          correlate("year", "y", "spearman"), -1, "rank correlation with the year", only=IMAGENET),
    Claim("newer-more-accurate",
          "Newer ImageNet-1k models are more accurate.", "SecurityNet, section 4.1", {"y": q.TARGET_ACCURACY},
          correlate("year", "y", "spearman"), 1, "rank correlation with the year", only=IMAGENET),
    Claim("venue-stealing",
          "The type of venue makes no difference to the stealing of ImageNet-1k models.", "SecurityNet, section 4.1",
          STEALING, compare_all_groups("y", "venue_type"), 0, "largest difference of mean stealing accuracies",
          margin=MARGIN, only=IMAGENET),
]  # fmt: skip

CLAIMS += [
    Claim("membership-follows-overfitting",
          "Modified entropy separates members better where the overfitting level is higher.",
          "SecurityNet, section 4.2", paper.MEMBERSHIP, correlate("x", "y"), 1, CORRELATION, prefer=PAPER,
          printed=("membership-cifar10", "membership-imagenet1k")),
    Claim("membership-both-purposes",
          "On CIFAR-10, membership inference follows the overfitting level of benchmark and security models alike.",
          "SecurityNet, section 4.2", paper.MEMBERSHIP, correlate("x", "y", estimand="pooled", groups=("purpose",)),
          1, CORRELATION, only={**CIFAR10, "purpose": ("benchmark", "security")},
          printed=("membership-both-purposes",)),
    Claim("membership-low-cluster",
          "Low-performing security models on CIFAR-10 are less exposed than benchmark models of equal overfitting "
          "level.", "SecurityNet, section 4.2", paper.MEMBERSHIP,
          compare_groups_adjusted("y", "x", "overfitting levels", "cluster", "benchmark", "low"), -1,
          "difference of AUCs", only=CIFAR10, prepare=cases.add_clusters),
    Claim("membership-weak-simple",
          "Membership inference by modified entropy is weak on CIFAR-10 and SVHN.", "SecurityNet, section 4.2",
          MEMBERSHIP, average("y", (0, 1)), -1, "mean AUC", against=WEAK, only=limit_to("CIFAR-10", "SVHN"),
          printed=("membership-simple",)),
    Claim("membership-weak-imagenet",
          "Membership inference by modified entropy is weak on ImageNet-1k.", "SecurityNet, section 4.2",
          MEMBERSHIP, average("y", (0, 1)), -1, "mean AUC", against=WEAK, only=IMAGENET),
    Claim("membership-cub",
          "Modified entropy exceeds an AUC of 0.8 on most models of CUB-200-2011.", "SecurityNet, section 4.2",
          MEMBERSHIP, measure_share("y", above=0.8), 1, "share", against=0.5, only=limit_to("CUB-200-2011")),
    Claim("correctness-weaker",
          "Prediction correctness separates members worse than modified entropy.", "SecurityNet, section 4.2",
          {"correctness": q.CORRECTNESS_AUC, "entropy": q.MODIFIED_ENTROPY_AUC},
          compare_values("correctness", "entropy"), 1, "mean difference of AUCs", prefer=PAPER),
    Claim("top3-helps",
          "An attack network does better on the top 3 posteriors than on all posteriors.", "SecurityNet, section 4.2",
          {"all": q.MLP_AUC, "top3": q.MLP_TOP3_AUC}, compare_values("all", "top3"), 1, "mean difference of AUCs",
          prefer=PAPER, printed=("top3-imagenet",)),
    Claim("top3-gains-with-classes",
          "The top 3 posteriors gain more where there are more classes.", "SecurityNet, section 4.2",
          {"all": q.MLP_AUC, "top3": q.MLP_TOP3_AUC}, correlate_datasets("log_classes", "gain"), 1,
          "rank correlation of the gain with the number of classes", prefer=PAPER,
          prepare=lambda wide, tidy: cases.add_images_per_class(wide.assign(gain=wide["top3"] - wide["all"]), tidy)),
    Claim("year-membership",
          "The year makes no difference to membership inference on ImageNet-1k models.", "SecurityNet, section 4.2",
          MEMBERSHIP, correlate("year", "y", "spearman"), 0, "rank correlation with the year",
          margin=CORRELATION_MARGIN, only=IMAGENET),
    Claim("venue-membership",
          "The type of venue makes no difference to membership inference on ImageNet-1k models.",
          "SecurityNet, section 4.2", MEMBERSHIP, compare_all_groups("y", "venue_type"), 0,
          "largest difference of mean AUCs", margin=MARGIN, only=IMAGENET),
]  # fmt: skip

CLAIMS += [
    Claim("neural-cleanse-flags",
          "Neural Cleanse flags more clean models than the 5% that its threshold is meant to.",
          "SecurityNet, section 4.3", {"y": NEURAL_CLEANSE}, measure_share("y", above=THRESHOLDS["neural-cleanse"]), 1,
          "share of models", against=0.05, prefer=PAPER, printed=_printed("flagged-neural-cleanse")),
    Claim("strip-flags-none",
          "STRIP flags no clean model.", "SecurityNet, section 4.3", {"y": STRIP},
          measure_share("y", above=THRESHOLDS["strip"]), 0, "share of models", margin=MARGIN, prefer=PAPER,
          printed=_printed("flagged-strip")),
    Claim("neo-flags-none",
          "NEO flags no clean model.", "SecurityNet, section 4.3", {"y": NEO}, measure_share("y",
                                                                                             above=THRESHOLDS["neo"]),
                                                                                             0,
          "share of models", margin=MARGIN, prefer=PAPER, printed=_printed("flagged-neo")),
    Claim("neural-cleanse-slow",
          "Neural Cleanse takes at least 25 times as long as STRIP and NEO.", "SecurityNet, section 4.3",
          {"y": NEURAL_CLEANSE}, average_ratio("cleanse", ("strip", "neo")), 1, "mean ratio to the slower of them",
          against=25.0, prefer=PAPER, printed=("seconds-ratio",),
          prepare=cases.add_seconds(cleanse="neural-cleanse", strip="strip", neo="neo")),
    Claim("evasion-falls-with-accuracy",
          "FGSM lowers the accuracy of more accurate targets less.", "SecurityNet, appendix C",
          paper.WHITE_BOX, correlate("x", "y"), -1, CORRELATION, prefer=PAPER, printed=("evasion-imagenet",)),
    Claim("transfer-falls-with-accuracy",
          "FGSM by transfer lowers the accuracy of more accurate targets less.", "SecurityNet, appendix C",
          {"x": q.TARGET_ACCURACY, "y": q.define_evasion("fgsm-transfer", "0.03",
                                                         "Accuracy drop by transfer at ε = 0.03")},
          correlate("x", "y"), -1, CORRELATION, prefer=PAPER),
    Claim("transfer-weaker",
          "FGSM by transfer lowers the accuracy less than FGSM with the target's own gradients.",
          "SecurityNet, appendix C",
          {"white": q.define_evasion("fgsm", "0.03", "Accuracy drop by FGSM at ε = 0.03"),
           "black": q.define_evasion("fgsm-transfer", "0.03", "Accuracy drop by transfer at ε = 0.03")},
          compare_values("white", "black"), -1, "mean change of the accuracy drop", prefer=PAPER),
    Claim("transfer-small-noise",
          "FGSM by transfer at ε = 0.01 lowers the accuracy by less than 5 points.", "SecurityNet, appendix C",
          {"y": q.define_evasion("fgsm-transfer", "0.01", "Accuracy drop by transfer at ε = 0.01")}, average("y"), -1,
          "mean accuracy drop", against=MARGIN, prefer=PAPER),
]  # fmt: skip
