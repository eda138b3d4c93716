"""Declarations of the figures of the SecurityNet paper that need no more than measured values."""

from __future__ import annotations

from securitynet.analysis import quantities as q
from securitynet.analysis.figures import budgets, counts, galleries, groups, points, tables
from securitynet.analysis.figures.base import WITHOUT_BACKDOOR, Figure, need_both_purposes

PAPER_DATASETS = ("CIFAR-10", "SVHN", "CIFAR-100", "ImageNet-1k", "CUB-200-2011")
BENCHMARK = {"purpose": ("benchmark",), "dataset": PAPER_DATASETS, **WITHOUT_BACKDOOR}
OTHER_DATA = {**BENCHMARK, "dataset": ("CIFAR-10", "SVHN", "CIFAR-100", "CUB-200-2011")}
"""Images of ImageNet-1k are the other data."""
LARGER = {**BENCHMARK, "dataset": ("CIFAR-10", "SVHN", "CIFAR-100")}
IMAGENET = {"purpose": ("benchmark",), "dataset": ("ImageNet-1k",), **WITHOUT_BACKDOOR}
EPSILONS = ("0.01", "0.03", "0.1")
CIFAR10 = {"dataset": ("CIFAR-10",), **WITHOUT_BACKDOOR}
PURPOSES = {"purpose": ("benchmark", "security")}
BOTH = {"dataset": ("CIFAR-10", "CIFAR-100", "ImageNet-1k"), **PURPOSES, **WITHOUT_BACKDOOR}
CLUSTERED = {**CIFAR10, **PURPOSES}


def _drop(epsilon: str) -> str:
    """Name of a column. It contains no dot, because Vega reads a dot in a field name as a path."""
    return f"drop_{epsilon.replace('.', '_')}"


FIGURES = [
    Figure("securitynet-1", "Composition of the models", "SecurityNet, Figure 1", {}, counts.draw),
    Figure("securitynet-2", "Test accuracy of benchmark and security models", "SecurityNet, Figure 2",
           {"accuracy": q.TARGET_ACCURACY}, groups.draw, BOTH,
           options={"by": "dataset", "split": "purpose", "alike": "family"},
           check=need_both_purposes(q.TARGET_ACCURACY)),
    Figure("securitynet-3", "Overfitting level of benchmark and security models", "SecurityNet, Figure 3",
           {"overfitting": q.OVERFITTING}, groups.draw, BOTH,
           options={"by": "dataset", "split": "purpose", "alike": "family"}, check=need_both_purposes(q.OVERFITTING)),
    Figure("securitynet-4", "Agreement and accuracy of stolen models", "SecurityNet, Figure 4",
           {"accuracy": q.STEALING_ACCURACY, "agreement": q.STEALING_AGREEMENT}, points.draw, BENCHMARK,
           options={"diagonal": True}),
    Figure("securitynet-5", "Model stealing and the target's accuracy", "SecurityNet, Figure 5",
           {"target": q.TARGET_ACCURACY, "stealing": q.STEALING_ACCURACY}, points.draw, BENCHMARK,
           options={"panels": "dataset"}),
    Figure("securitynet-6", "Model stealing with out-of-distribution data", "SecurityNet, Figure 6",
           {"target": q.TARGET_ACCURACY, "stealing": q.STEALING_OTHER_DATA}, points.draw, OTHER_DATA,
           options={"panels": "dataset"}),
    Figure("securitynet-7", "Model stealing with a larger surrogate", "SecurityNet, Figure 7",
           {"target": q.TARGET_ACCURACY, "stealing": q.STEALING_LARGER}, points.draw, LARGER,
           options={"panels": "dataset"}),
    Figure("securitynet-8", "Agreement and accuracy of stolen benchmark and security models", "SecurityNet, Figure 8",
           {"accuracy": q.STEALING_ACCURACY, "agreement": q.STEALING_AGREEMENT}, points.draw, CLUSTERED,
           options={"colour": "cluster", "diagonal": True}, check=need_both_purposes(q.STEALING_ACCURACY)),
    Figure("securitynet-9", "Stealing benchmark and security models", "SecurityNet, Figure 9",
           {"target": q.TARGET_ACCURACY, "stealing": q.STEALING_ACCURACY}, points.draw, CLUSTERED,
           options={"colour": "cluster"}, check=need_both_purposes(q.STEALING_ACCURACY)),
    Figure("securitynet-10", "Model stealing by year of publication", "SecurityNet, Figure 10",
           {"stealing": q.STEALING_ACCURACY}, groups.draw, IMAGENET, options={"by": "year", "ordered": True}),
    Figure("securitynet-11", "Accuracy by year of publication", "SecurityNet, Figure 11",
           {"target": q.TARGET_ACCURACY}, groups.draw, IMAGENET, options={"by": "year", "ordered": True}),
    Figure("securitynet-12", "Model stealing by type of venue", "SecurityNet, Figure 12",
           {"stealing": q.STEALING_ACCURACY}, groups.draw, IMAGENET, options={"by": "venue_type", "violin": True}),
    Figure("securitynet-13", "Membership inference and the overfitting level", "SecurityNet, Figure 13",
           {"overfitting": q.OVERFITTING, "correctness": q.CORRECTNESS_AUC, "entropy": q.MODIFIED_ENTROPY_AUC,
            "mlp": q.MLP_AUC, "blind": q.BLIND_AUC}, points.draw, BENCHMARK,
           optional=("correctness", "entropy", "mlp", "blind"),
           options={"untested": ("correctness", "blind"), "controls": ("blind",)}),
    Figure("securitynet-14", "Membership inference from all and from the top 3 posteriors", "SecurityNet, Figure 14",
           {"overfitting": q.OVERFITTING, "entropy": q.MODIFIED_ENTROPY_AUC, "mlp": q.MLP_AUC, "top3": q.MLP_TOP3_AUC},
           points.draw, BENCHMARK, optional=("entropy", "mlp", "top3")),
    Figure("securitynet-15", "Membership inference on benchmark and security models", "SecurityNet, Figure 15",
           {"overfitting": q.OVERFITTING, "entropy": q.MODIFIED_ENTROPY_AUC}, points.draw, CLUSTERED,
           options={"colour": "cluster"}, check=need_both_purposes(q.MODIFIED_ENTROPY_AUC)),
    Figure("securitynet-16", "Membership inference by year of publication", "SecurityNet, Figure 16",
           {"entropy": q.MODIFIED_ENTROPY_AUC}, groups.draw, IMAGENET, options={"by": "year", "ordered": True}),
    Figure("securitynet-17", "Membership inference by type of venue", "SecurityNet, Figure 17",
           {"entropy": q.MODIFIED_ENTROPY_AUC}, groups.draw, IMAGENET, options={"by": "venue_type", "violin": True}),
    Figure("securitynet-18", "Triggers that Neural Cleanse optimises on models", "SecurityNet, Figure 18", {},
           galleries.draw, options={"methods": ("neural-cleanse",), "pictures": True},
           check=galleries.need_pictures(("neural-cleanse",))),
    Figure("securitynet-19", "Model stealing by query budget", "SecurityNet, Figure 19",
           {"target": q.TARGET_ACCURACY}, budgets.draw_points, CIFAR10, check=budgets.list_lacking),
    Figure("securitynet-20", "White-box evasion and the target's accuracy", "SecurityNet, Figure 20",
           {"target": q.TARGET_ACCURACY, **{_drop(e): q.define_evasion("fgsm", e, f"Accuracy drop at ε = {e}")
                                            for e in EPSILONS}},
           points.draw, BENCHMARK, optional=tuple(map(_drop, EPSILONS))),
    Figure("securitynet-21", "Black-box evasion and the target's accuracy", "SecurityNet, Figure 21",
           {"target": q.TARGET_ACCURACY, **{_drop(e): q.define_evasion("fgsm-transfer", e, f"Accuracy drop at ε = {e}")
                                            for e in EPSILONS}},
           points.draw, BENCHMARK, optional=tuple(map(_drop, EPSILONS))),
    Figure("securitynet-table-1", "Models that backdoor detectors flag", "SecurityNet, Table 1",
           {"nc_verdict": q.define_detector("neural-cleanse", "verdict", "Neural Cleanse, suspicious or found"),
            "nc": q.define_detector("neural-cleanse", "anomaly-index", "Neural Cleanse, anomaly index above 2"),
            "nc_p": q.define_detector("neural-cleanse", "p-value", "Neural Cleanse, p-value below 5%"),
            "strip": q.define_detector("strip", "false-rejection-rate", "STRIP, more than 5% of the images"),
            "neo": q.define_detector("neo", "false-rejection-rate", "NEO, any image")},
           tables.draw_flagged, optional=("nc_verdict", "nc", "nc_p", "strip", "neo"),
           options={"thresholds": {"nc_verdict": 1.0, "nc": 2.0, "nc_p": -0.05, "strip": 0.05, "neo": 0.0}}),
]  # fmt: skip
