"""The numbers that the SecurityNet paper (USENIX Security 2024) prints about its results."""

from __future__ import annotations

from securitynet.analysis import quantities as q
from securitynet.analysis.hypotheses import cases
from securitynet.analysis.hypotheses.cases import Only
from securitynet.analysis.hypotheses.correlations import correlate, correlate_in_cluster
from securitynet.analysis.hypotheses.differences import compare_relative, compare_values
from securitynet.analysis.hypotheses.shares import average, average_ratio, compare_means, count, measure_share
from securitynet.analysis.papers.printed import Printed

DATASETS = ("CIFAR-10", "SVHN", "CIFAR-100", "ImageNet-1k", "CUB-200-2011")
BENCHMARK = ("benchmark", None)
"""Models whose purpose is not known are no security models."""

CORRELATION = "Pearson's r within one dataset"
STEALING = {"x": q.TARGET_ACCURACY, "y": q.STEALING_ACCURACY}
OTHER_DATA = {"same": q.STEALING_ACCURACY, "other": q.STEALING_OTHER_DATA}
LARGER = {"usual": q.STEALING_ACCURACY, "larger": q.STEALING_LARGER}
MEMBERSHIP = {"x": q.OVERFITTING, "y": q.MODIFIED_ENTROPY_AUC}
WHITE_BOX = {"x": q.TARGET_ACCURACY, "y": q.define_evasion("fgsm", "0.03", "Accuracy drop by FGSM at ε = 0.03")}
LARGE_NOISE = {"y": q.define_evasion("fgsm", "0.1", "Accuracy drop by FGSM at ε = 0.1")}
NEURAL_CLEANSE = q.define_detector("neural-cleanse", "anomaly-index", "Neural Cleanse: anomaly index")
STRIP = q.define_detector("strip", "false-rejection-rate", "STRIP: false rejection rate")
NEO = q.define_detector("neo", "false-rejection-rate", "NEO: false rejection rate")
THRESHOLDS = {"neural-cleanse": 2.0, "strip": 0.05, "neo": 0.0}
"""Above these a detector calls a model backdoored: Neural Cleanse's own bound of the anomaly index, more images than
STRIP's threshold is meant to stop, any image that NEO confirms."""


def limit_to(*datasets: str) -> Only:
    """Benchmark models of some datasets."""
    return {"dataset": datasets, "purpose": BENCHMARK}


def shorten_dataset(dataset: str) -> str:
    """A dataset in the name of a number."""
    return dataset.lower().replace("-", "")


PRINTED = [
    Printed("agreement-accuracy", "SecurityNet", "section 4.1, Figure 4", "Agreement × accuracy of surrogates",
            "Pearson's r, pooled over five datasets", 0.991, 3,
            {"x": q.STEALING_ACCURACY, "y": q.STEALING_AGREEMENT}, correlate("x", "y", estimand="pooled"),
            limit_to(*DATASETS), figures=("securitynet-4",)),
    Printed("stolen-models", "SecurityNet", "section 4.1", "Stolen benchmark models of the five datasets", "count",
            389, 0, {"y": q.STEALING_ACCURACY}, count(having="y"), limit_to(*DATASETS), figures=("securitynet-5",)),
]  # fmt: skip

PRINTED += [
    Printed(f"stealing-{shorten_dataset(dataset)}", "SecurityNet", "section 4.1, Figure 5",
            f"Stealing × the target's accuracy, {dataset}", CORRELATION, value, 3, STEALING,
            correlate("x", "y"), limit_to(dataset), figures=("securitynet-5",))
    for dataset, value in (("CIFAR-10", -0.693), ("SVHN", -0.603), ("ImageNet-1k", -0.844), ("CIFAR-100", -0.873))
]  # fmt: skip
PRINTED += [
    Printed(f"ratio-{shorten_dataset(dataset)}", "SecurityNet", "section 4.1, Figure 5",
            f"Surrogates' accuracy over their targets', {dataset}", "ratio of means over models", value, 3, STEALING,
            compare_means("y", "x"), limit_to(dataset), figures=("securitynet-5",))
    for dataset, value in (("CIFAR-10", 0.796), ("SVHN", 0.953), ("ImageNet-1k", 0.496))
]  # fmt: skip
PRINTED += [
    Printed("stealing-imagenet-mean", "SecurityNet", "section 4.1", "Surrogates' accuracy, ImageNet-1k",
            "mean over models", 0.363, 3, {"y": q.STEALING_ACCURACY}, average("y", (0, 1)), limit_to("ImageNet-1k"),
            figures=("securitynet-5",), percent=True),
    Printed("accuracy-imagenet-mean", "SecurityNet", "section 4.1", "Targets' accuracy, ImageNet-1k",
            "mean over models", 0.731, 3, {"y": q.TARGET_ACCURACY}, average("y", (0, 1)), limit_to("ImageNet-1k"),
            figures=("securitynet-5",), percent=True),
    Printed("accuracy-cifar100-mean", "SecurityNet", "section 2.3", "Benchmark models' accuracy, CIFAR-100",
            "mean over models", 0.785, 3, {"y": q.TARGET_ACCURACY}, average("y", (0, 1)), limit_to("CIFAR-100"),
            figures=("securitynet-2",), percent=True),
    Printed("stealing-regnety-320", "SecurityNet", "section 4.1", "Surrogate of RegNetY-320, ImageNet-1k",
            "one model", 0.256, 3, {"y": q.STEALING_ACCURACY}, average("y", (0, 1)),
            {**limit_to("ImageNet-1k"), "architecture": ("regnety_320", "regnety-320", "regnet_y_32gf")},
            figures=("securitynet-5",), percent=True),
]  # fmt: skip
PRINTED += [
    Printed(f"{name}-{shorten_dataset(dataset)}", "SecurityNet", f"section 4.1, Figure {figure}",
            f"Change of surrogates' accuracy with {what}, {dataset}", "mean over models of the relative change",
            -value, 3, quantities, compare_relative(*quantities), limit_to(dataset), figures=(f"securitynet-{figure}",),
            percent=True)
    for name, what, figure, quantities, values in (
        ("other-data", "other data", 6, OTHER_DATA,
         {"SVHN": 0.278, "CIFAR-10": 0.190, "CIFAR-100": 0.417, "CUB-200-2011": 0.214}),
        ("larger-surrogate", "a larger one", 7, LARGER, {"SVHN": 0.058, "CIFAR-10": 0.290, "CIFAR-100": 0.473}),
    )
    for dataset, value in values.items()
]  # fmt: skip
PRINTED += [
    Printed(f"stealing-security-{name}", "SecurityNet", "section 4.1, Figure 9",
            f"Stealing × the target's accuracy, {name}-performing security models on CIFAR-10",
            "Pearson's r within the cluster", value, 3, STEALING, correlate_in_cluster(name, "x", "y"),
            {"dataset": ("CIFAR-10",)}, cases.add_clusters, figures=("securitynet-9",))
    for name, value in (("low", 0.998), ("high", -0.362))
]  # fmt: skip
PRINTED += [
    Printed(f"membership-{shorten_dataset(dataset)}", "SecurityNet", "section 4.2, Figure 13",
            f"Modified entropy × overfitting level, {dataset}", CORRELATION, value, 3, MEMBERSHIP,
            correlate("x", "y"), limit_to(dataset), figures=("securitynet-13",))
    for dataset, value in (("CIFAR-10", 0.204), ("ImageNet-1k", 0.247))
]  # fmt: skip
PRINTED += [
    Printed("membership-both-purposes", "SecurityNet", "section 4.2, Figure 15",
            "Modified entropy × overfitting level, benchmark and security models on CIFAR-10",
            "Pearson's r, both purposes pooled", 0.609, 3, MEMBERSHIP, correlate("x", "y"),
            {"dataset": ("CIFAR-10",), "purpose": ("benchmark", "security")}, figures=("securitynet-15",)),
    Printed("membership-simple", "SecurityNet", "section 4.2", "AUC of modified entropy, CIFAR-10 and SVHN",
            "mean over models", 0.565, 3, {"y": q.MODIFIED_ENTROPY_AUC}, average("y", (0, 1)), limit_to("CIFAR-10",
                                                                                                        "SVHN"),
            figures=("securitynet-13",)),
    Printed("top3-imagenet", "SecurityNet", "section 1.1", "Gain of the top 3 posteriors, AUC, ImageNet-1k",
            "mean over models of the difference", 0.051, 3, {"all": q.MLP_AUC, "top3": q.MLP_TOP3_AUC},
            compare_values("all", "top3"), limit_to("ImageNet-1k"), figures=("securitynet-14",), percent=True),
]  # fmt: skip
PRINTED += [
    Printed(f"flagged-{method}-{shorten_dataset(dataset)}", "SecurityNet", "section 4.3, Table 1",
            f"False positives of {quantity.label.partition(':')[0]}, {dataset}", "share of models", value, 3,
            {"y": quantity}, measure_share("y", above=THRESHOLDS[method]), limit_to(dataset),
            figures=("securitynet-table-1",),
            percent=True)
    for method, quantity, values in (("neural-cleanse", NEURAL_CLEANSE, (0.209, 0.137)), ("strip", STRIP, (0.0, 0.0)),
                                     ("neo", NEO, (0.0, 0.0)))
    for dataset, value in zip(("CIFAR-10", "SVHN"), values, strict=True)
]  # fmt: skip
PRINTED += [
    Printed(f"seconds-{method}", "SecurityNet", "section 4.3, Table 1",
            f"Seconds of {quantity.label.partition(':')[0]}, ResNet-18, CIFAR-10 (on an NVIDIA A100)", "mean over runs",
            value, 1, {"y": quantity}, average("seconds"), {**limit_to("CIFAR-10"), "architecture": ("resnet18",
                                                                                                     "ResNet-18")},
            cases.add_seconds(seconds=method), figures=("securitynet-table-1",))
    for method, quantity, value in (("neural-cleanse", NEURAL_CLEANSE, 802.1), ("strip", STRIP, 32.1),
                                    ("neo", NEO, 18.0))
]  # fmt: skip
PRINTED += [
    Printed("seconds-ratio", "SecurityNet", "section 4.3", "Neural Cleanse's runtime over the slower filter's",
            "ratio, at least", 25.0, 0, {"y": NEURAL_CLEANSE}, average_ratio("cleanse", ("strip", "neo")),
            limit_to("CIFAR-10", "SVHN"), cases.add_seconds(cleanse="neural-cleanse", strip="strip", neo="neo"),
            figures=("securitynet-table-1",)),
    Printed("evasion-imagenet", "SecurityNet", "appendix C, Figure 20",
            "Accuracy drop by FGSM at ε = 0.03 × the target's accuracy, ImageNet-1k (the paper leaves its ε unsaid)",
            CORRELATION, -0.491, 3, WHITE_BOX, correlate("x", "y"), limit_to("ImageNet-1k"),
            figures=("securitynet-20",)),
    Printed("evasion-resnet1202", "SecurityNet", "appendix C",
            "Accuracy drop by FGSM at ε = 0.1, ResNet-1202, CIFAR-10",
            "one model", 0.161, 3, LARGE_NOISE, average("y"),
            {**limit_to("CIFAR-10"), "architecture": ("resnet1202", "ResNet-1202", "cifar-resnet1202")},
            figures=("securitynet-20",)),
    Printed("evasion-resnet20", "SecurityNet", "appendix C", "Accuracy drop by FGSM at ε = 0.1, ResNet-20, CIFAR-10",
            "one model", 0.491, 3, LARGE_NOISE, average("y"),
            {**limit_to("CIFAR-10"), "architecture": ("resnet20", "ResNet-20", "cifar-resnet20")},
            figures=("securitynet-20",)),
]  # fmt: skip
DATABASE = [
    Printed(f"models-{name}", "SecurityNet", "section 2.3, Figure 1", f"{words} in the database", "count", value, 0,
            {}, test)
    for name, words, value, test in (
        ("all", "Models", 910, count()),
        ("benchmark", "Benchmark models", 665, count(purpose="benchmark")),
        ("security", "Security models", 245, count(purpose="security")),
    )
]  # fmt: skip
"""Counts, which only a catalog can be compared with."""
DATABASE += [
    Printed(f"models-{column}", "SecurityNet", "section 2.3", words, "count of distinct values", value, 0, {},
            count(column))
    for column, words, value in (("dataset", "Datasets", 42), ("topic_category", "Topics", 13),
                                 ("architecture", "Architectures", 220), ("family", "Families of architectures", 60))
]  # fmt: skip
