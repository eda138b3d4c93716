"""The claims of the two papers that measured values can support or contradict, declared."""

from __future__ import annotations

from securitynet.analysis import quantities as q
from securitynet.analysis.findings import Claim, between, correlation, difference

PAPERS = {"purpose": ("benchmark",), "dataset": ("CIFAR-10", "SVHN", "CIFAR-100", "ImageNet-1k", "CUB-200-2011")}
"""What SecurityNet's sections 4.1 and 4.2 speak of."""

SECURITYNET = [
    Claim("agreement-follows-accuracy",
          "A stolen model that is more accurate agrees more with its target.", "SecurityNet, section 4.1",
          {"x": q.STEALING_ACCURACY, "y": q.STEALING_AGREEMENT}, correlation("x", "y"), 1,
          "correlation within datasets", PAPERS),
    Claim("stealing-falls-with-accuracy",
          "Stealing accuracy falls as the target's accuracy rises.", "SecurityNet, section 4.1",
          {"x": q.TARGET_ACCURACY, "y": q.STEALING_ACCURACY}, correlation("x", "y"), -1,
          "correlation within datasets", PAPERS),
    Claim("other-data-steals-worse",
          "Auxiliary data of another kind makes stealing worse.", "SecurityNet, section 4.1",
          {"same": q.STEALING_ACCURACY, "other": q.STEALING_OTHER_DATA}, difference("same", "other"), -1,
          "mean change of the stolen model's accuracy", PAPERS),
    Claim("larger-surrogate-no-help",
          "A larger surrogate steals no better, but worse.", "SecurityNet, section 4.1",
          {"small": q.STEALING_ACCURACY, "large": q.STEALING_LARGER}, difference("small", "large"), -1,
          "mean change of the stolen model's accuracy", PAPERS),
    Claim("security-models-less-accurate",
          "Security models on CIFAR-10 are less accurate than benchmark models.", "SecurityNet, section 2.3",
          {"accuracy": q.TARGET_ACCURACY}, between("accuracy", "purpose", "benchmark", "security"), -1,
          "difference of mean accuracies", {"dataset": ("CIFAR-10",)}),
    Claim("newer-harder-to-steal",
          "Newer models are harder to steal.", "SecurityNet, section 4.1",
          {"x": q.STEALING_ACCURACY}, correlation("year", "x", "spearman"), -1,
          "rank correlation with the year", {"purpose": ("benchmark",), "dataset": ("ImageNet-1k",)}),
    Claim("membership-follows-overfitting",
          "Modified entropy tells members better where the overfitting level is higher.", "SecurityNet, section 4.2",
          {"x": q.OVERFITTING, "y": q.MODIFIED_ENTROPY_AUC}, correlation("x", "y"), 1,
          "correlation within datasets", PAPERS),
    Claim("correctness-follows-overfitting",
          "Prediction correctness follows the overfitting level.", "SecurityNet, section 4.2",
          {"x": q.OVERFITTING, "y": q.CORRECTNESS_AUC}, correlation("x", "y"), 1,
          "correlation within datasets", PAPERS),
    Claim("correctness-weaker",
          "Prediction correctness tells members worse than modified entropy.", "SecurityNet, section 4.2",
          {"correctness": q.CORRECTNESS_AUC, "entropy": q.MODIFIED_ENTROPY_AUC},
          difference("correctness", "entropy"), 1,          "mean difference of AUCs", PAPERS),
    Claim("top3-helps",
          "An attack network does better on the top 3 posteriors than on all.", "SecurityNet, section 4.2",
          {"all": q.MLP_AUC, "top3": q.MLP_TOP3_AUC}, difference("all", "top3"), 1, "mean difference of AUCs", PAPERS),
]  # fmt: skip
