"""The claims of the two papers that measured values can support or contradict.

That prediction correctness follows the overfitting level (SecurityNet, section 4.2) is not among them: its AUC
*equals* one half plus half the overfitting level for any model. An identity is not a finding, and does not count among
the claims that are tested together.
"""

from __future__ import annotations

from securitynet.analysis import quantities as q
from securitynet.analysis.findings import Claim, against_undefended, between, correlation, difference
from securitynet.analysis.ml_doctor_quantities import ATTRIBUTE, INVERSION, MEMBERSHIP, STEALING

PAPERS = {"purpose": ("benchmark",), "dataset": ("CIFAR-10", "SVHN", "CIFAR-100", "ImageNet-1k", "CUB-200-2011")}
"""The models that SecurityNet's sections 4.1 and 4.2 are about."""

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
          "Out-of-distribution auxiliary data makes stealing worse.", "SecurityNet, section 4.1",
          {"same": q.STEALING_ACCURACY, "other": q.STEALING_OTHER_DATA}, difference("same", "other"), -1,
          "mean change of the stolen model's accuracy", PAPERS),
    Claim("larger-surrogate-no-help",
          "A larger surrogate steals worse.", "SecurityNet, section 4.1",
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
          "Modified entropy separates members better where the overfitting level is higher.",
          "SecurityNet, section 4.2",
          {"x": q.OVERFITTING, "y": q.MODIFIED_ENTROPY_AUC}, correlation("x", "y"), 1,
          "correlation within datasets", PAPERS),
    Claim("correctness-weaker",
          "Prediction correctness separates members worse than modified entropy.", "SecurityNet, section 4.2",
          {"correctness": q.CORRECTNESS_AUC, "entropy": q.MODIFIED_ENTROPY_AUC},
          difference("correctness", "entropy"), 1, "mean difference of AUCs", PAPERS),
    Claim("top3-helps",
          "An attack network does better on the top 3 posteriors than on all posteriors.", "SecurityNet, section 4.2",
          {"all": q.MLP_AUC, "top3": q.MLP_TOP3_AUC}, difference("all", "top3"), 1, "mean difference of AUCs", PAPERS),
]  # fmt: skip

SECURITYNET += [
    Claim("evasion-falls-with-accuracy",
          "FGSM lowers the accuracy of more accurate targets less.", "SecurityNet, appendix C",
          {"x": q.TARGET_ACCURACY, "y": q.evasion("fgsm", "0.03", "Accuracy drop by FGSM at ε = 0.03")},
          correlation("x", "y"), -1, "correlation within datasets"),
    Claim("transfer-weaker",
          "FGSM by transfer lowers the accuracy less than FGSM with the target's own gradients.",
          "SecurityNet, appendix C",
          {"white": q.evasion("fgsm", "0.03", "Accuracy drop by FGSM at ε = 0.03"),
           "black": q.evasion("fgsm-transfer", "0.03", "Accuracy drop by transfer at ε = 0.03")},
          difference("white", "black"), -1, "mean change of the accuracy drop"),
]  # fmt: skip

ML_DOCTOR = [
    Claim("white-box-membership-stronger",
          "White-box access makes membership inference with shadow data stronger.", "ML-Doctor, section 6.1",
          {"black": MEMBERSHIP["black_shadow"], "white": MEMBERSHIP["white_shadow"]}, difference("black", "white"), 1,
          "mean change of accuracy"),
    Claim("partial-membership-stronger",
          "Partial data makes black-box membership inference stronger than shadow data.", "ML-Doctor, section 6.1",
          {"shadow": MEMBERSHIP["black_shadow"], "partial": MEMBERSHIP["black_partial"]},
          difference("shadow", "partial"), 1, "mean change of accuracy"),
    Claim("shadow-steals-better",
          "Shadow data steals better than partial data.", "ML-Doctor, section 6.1",
          {"partial": STEALING["stealing_partial"], "shadow": STEALING["stealing_shadow"]},
          difference("partial", "shadow"), 1, "mean change of agreement"),
    Claim("overfitting-membership",
          "Membership inference grows with the overfitting level.", "ML-Doctor, section 6.3",
          {"x": q.OVERFITTING, "y": MEMBERSHIP["white_shadow"]}, correlation("x", "y"), 1,
          "correlation within datasets"),
    Claim("overfitting-stealing",
          "Overfitted targets are harder to steal.", "ML-Doctor, section 6.3",
          {"x": q.OVERFITTING, "y": STEALING["stealing_shadow"]}, correlation("x", "y"), -1,
          "correlation within datasets"),
    Claim("membership-against-stealing",
          "Where membership inference succeeds, stealing does not.", "ML-Doctor, section 6.4",
          {"x": MEMBERSHIP["black_shadow"], "y": STEALING["stealing_shadow"]}, correlation("x", "y"), -1,
          "correlation within datasets"),
    Claim("dp-sgd-membership",
          "DP-SGD weakens membership inference.", "ML-Doctor, section 7.3",
          {"x": MEMBERSHIP["white_shadow"]}, against_undefended("x", "dp-sgd"), -1,
          "mean change of accuracy"),
    Claim("dp-sgd-utility",
          "DP-SGD costs accuracy.", "ML-Doctor, section 7.3",
          {"x": q.TARGET_ACCURACY}, against_undefended("x", "dp-sgd"), -1, "mean change of accuracy"),
    Claim("distillation-membership",
          "Distillation weakens membership inference.", "ML-Doctor, section 7.3",
          {"x": MEMBERSHIP["white_shadow"]}, against_undefended("x", "distillation"), -1,
          "mean change of accuracy"),
    Claim("distillation-attribute",
          "Distillation weakens attribute inference.", "ML-Doctor, section 7.3 (which does not find it)",
          {"x": ATTRIBUTE["attribute_shadow"]}, against_undefended("x", "distillation"), -1,
          "mean change of accuracy"),
    Claim("overfitting-inversion",
          "Overfitted targets are harder to invert.", "ML-Doctor, section 6.3",
          {"x": q.OVERFITTING, "y": INVERSION["inversion_accuracy"]}, correlation("x", "y"), -1,
          "correlation within datasets"),
]  # fmt: skip

EVERY = [*SECURITYNET, *ML_DOCTOR]
