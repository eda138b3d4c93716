"""The loss threshold against privacy-meter's population attack, on the same recorded outputs."""

from __future__ import annotations

import numpy as np

from harness.row import Faster, Row, near, require

METRIC = ("correctness", "loss", "confidence", "entropy", "modified-entropy")

ROW = Row(
    "Membership inference by metrics",
    unit="records",
    sizes=(2_000, 20_000, 200_000),
    aims=(Faster(1, "privacy-meter"),),
    rounds=9,
    allowance=15,
)


@ROW.inputs
def inputs(case):
    """Outputs are drawn: attacks on recorded outputs see nothing else, and there can be as many as wanted."""
    draws = np.random.default_rng(0)
    members = np.arange(case.size) % 2 == 0
    labels = draws.integers(0, 10, case.size)
    logits = draws.normal(0, 1.5, (case.size, 10))
    logits[np.arange(case.size), labels] += draws.normal(np.where(members, 4.5, 3.5), 2)
    case.save("recorded", logits=logits.astype(np.float32), labels=labels, member=members)
    _, data = recorded(case)
    splits = data.splits
    case.save("known", known=np.isin(data.judged, np.union1d(splits.known_members, splits.known_non_members)))


def recorded(case):
    from securitynet.datasets.splits import public
    from securitynet.methods.data import TrialData
    from securitynet.models.targets.backends.recorded import RecordedBackend
    from securitynet.models.targets.target import Target

    backend = RecordedBackend(case.folder / "recorded.npz", reference="outputs:recorded.npz")
    dataset = backend.dataset()
    return Target(backend, head=backend.head), TrialData(dataset, public(dataset))


def metric_attacks(names):
    """A side that runs attacks and computes their AUC."""

    def prepare(case):
        from securitynet.attacks import ATTACKS
        from securitynet.methods.context import Context
        from securitynet.metrics import roc

        target, data = recorded(case)
        attacks = [ATTACKS.get(f"membership.{name}")() for name in names]

        def run():
            found = {}
            for name, attack in zip(names, attacks, strict=True):
                output = attack(target, data, Context(), attack.threat_models[0])
                held = output.held_out
                scores, members = output.scores[held], output.is_member[held]
                found[name] = roc.measure_auc(scores[members], scores[~members]).value
            return found

        return run

    return prepare


ROW.side("ours")(metric_attacks(("loss",)))


@ROW.side("privacy-meter", environment="privacy-meter")
def privacy_meter(case):
    import importlib.util
    import sys
    import types

    # It imports TensorFlow, Opacus and plotting packages wherever it is imported, and this attack uses none of them:
    # what is not installed is stood in for by an empty module.
    for name in ("tensorflow", "opacus", "seaborn", "matplotlib", "matplotlib.pyplot"):
        if name.split(".")[0] not in sys.modules and importlib.util.find_spec(name.split(".")[0]) is None:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].GradSampleModule = object
    import torch
    from privacy_meter.dataset import Dataset
    from privacy_meter.hypothesis_test import linear_itp_threshold_func
    from privacy_meter.information_source import InformationSource
    from privacy_meter.information_source_signal import ModelLoss
    from privacy_meter.metric import PopulationMetric
    from privacy_meter.model import Model

    class Recorded(Model):
        def __init__(self, logits):
            super().__init__(logits, torch.nn.functional.cross_entropy)

        def get_loss(self, samples, labels, per_point=True):
            logits = torch.from_numpy(self.model_obj[samples])
            return self.loss_fn(logits, torch.from_numpy(labels), reduction="none").numpy()

        def get_logits(self, samples):
            return self.model_obj[samples]

        def get_grad(self, samples, labels):
            raise NotImplementedError

        def get_intermediate_outputs(self, layers, samples, forward_pass=True):
            raise NotImplementedError

    data, known = case.load("recorded"), case.load("known")["known"]
    rows = np.arange(case.size)

    def run():
        groups = {
            "train": ~known & data["member"],
            "test": ~known & ~data["member"],
            "population": known & ~data["member"],
        }
        parts = {name: {"x": rows[mask], "y": data["labels"][mask]} for name, mask in groups.items()}
        source = InformationSource([Recorded(data["logits"])], [Dataset(parts, "x", "y")])
        metric = PopulationMetric(
            source,
            source,
            [ModelLoss()],
            linear_itp_threshold_func,
            reference_model_to_train_split_mapping=[(0, "population", "<default_input>", "<default_output>")],
        )
        metric.prepare_metric()
        (result,) = metric.run_metric(np.linspace(0, 1, 1001))
        return {"loss": result.roc_auc}

    return run


ROW.side("ours, five metrics")(metric_attacks(METRIC))


@ROW.check
def check(case, found):
    ours, theirs = found["ours"]["loss"], found["privacy-meter"]["loss"]
    require(ours > 0.55, "the attack finds nothing")
    near(ours, found["ours, five metrics"]["loss"], 0, "AUC of the loss")
    gap = near(ours, theirs, 0.005, "AUC of the loss")  # theirs is made of 1,001 thresholds
    return f"AUC {float(ours):.3f}, differing by {gap:.1g}"
