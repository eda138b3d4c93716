"""Our membership attacks against those of privacy-meter and of the Adversarial Robustness Toolbox: AUC and time.

One target, one split, one set of recorded outputs: all attacks learn from the records that the adversary knows and are
judged on the same others. Each peer is installed from PyPI into a virtual environment of its own, beside `--work`, and
times itself without imports; ours are timed from cached signals. Every attack has its own default settings.

- threshold on the loss: privacy-meter's population attack (thresholds are quantiles of the loss of known non-members);
- networks on posteriors: the toolbox's black-box attack, on all records, with a network per class, and on ten sets of
  targets (one network's outputs, of which ten adversaries know ten different halves).

    python benchmarks/membership_peers.py --work FOLDER [--rounds 3]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
import torch

from securitynet.attacks.base import Context, TrialData
from securitynet.attacks.membership import attack_together
from securitynet.attacks.membership._learned import LearnedAttack
from securitynet.attacks.membership.base import MembershipScores
from securitynet.attacks.membership.loss import Loss
from securitynet.attacks.membership.ml_doctor_black_box import MLDoctorBlackBox
from securitynet.attacks.membership.mlp_posteriors import MLPPosteriors
from securitynet.datasets.splits import Splits
from securitynet.metrics import roc
from securitynet.models.artefacts import train_model
from securitynet.models.signals import collect
from securitynet.models.train_config import TrainConfig
from securitynet.studies.config import AssessConfig
from securitynet.studies.subject import Subject, prepare

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"

TARGETS = 10

PEERS = {
    "privacy-meter": ("privacy-meter", "torch", "numpy", "scikit-learn", "scipy", "pandas", "pillow", "jinja2"),
    "adversarial-robustness-toolbox": (
        "adversarial-robustness-toolbox",
        "torch",
        "numpy",
        "scikit-learn",
        "scipy",
        "packaging",
    ),
}

# privacy-meter imports TensorFlow, Opacus and plotting packages wherever it is imported, and its population attack on
# recorded losses uses none of them: what is not installed is stood in for by an empty module.
PRIVACY_METER = """
import importlib.util, sys, time, types
import numpy as np

for name in ("tensorflow", "opacus", "seaborn", "matplotlib", "matplotlib.pyplot"):
    if name.split(".")[0] not in sys.modules and importlib.util.find_spec(name.split(".")[0]) is None:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].GradSampleModule = object
from privacy_meter.dataset import Dataset
from privacy_meter.hypothesis_test import linear_itp_threshold_func
from privacy_meter.information_source import InformationSource
from privacy_meter.information_source_signal import ModelLoss
from privacy_meter.metric import PopulationMetric
from privacy_meter.model import Model

import torch


class Recorded(Model):
    def __init__(self, logits):
        super().__init__(logits, torch.nn.functional.cross_entropy)

    def get_loss(self, samples, labels, per_point=True):
        losses = self.loss_fn(torch.from_numpy(self.model_obj[samples]), torch.from_numpy(labels), reduction="none")
        return losses.numpy()

    def get_logits(self, samples):
        return self.model_obj[samples]

    def get_grad(self, samples, labels):
        raise NotImplementedError

    def get_intermediate_outputs(self, layers, samples, forward_pass=True):
        raise NotImplementedError


data = np.load(sys.argv[1])
started = time.perf_counter()
rows = np.arange(len(data["labels"]))
judged = ~data["known"]
groups = {
    "train": judged & data["is_member"],
    "test": judged & ~data["is_member"],
    "population": data["known"] & ~data["is_member"],
}
dataset = Dataset(
    {name: {"x": rows[mask], "y": data["labels"][mask]} for name, mask in groups.items()}, "x", "y"
)
source = InformationSource([Recorded(data["logits"])], [dataset])
metric = PopulationMetric(
    source,
    source,
    [ModelLoss()],
    linear_itp_threshold_func,
    reference_model_to_train_split_mapping=[(0, "population", "<default_input>", "<default_output>")],
)
metric.prepare_metric()
(result,) = metric.run_metric(np.linspace(0, 1, 1001))
seconds = time.perf_counter() - started
np.savez(sys.argv[2], auc=result.roc_auc, seconds=seconds)
"""

TOOLBOX = """
import sys, time
import numpy as np
import torch
from art.attacks.inference.membership_inference import MembershipInferenceBlackBox
from art.estimators.classification import BlackBoxClassifier

torch.set_num_threads(int(sys.argv[4]))
data = np.load(sys.argv[1])
torch.manual_seed(0)
posteriors = torch.from_numpy(data["logits"]).softmax(dim=1).numpy()
labels, known, is_member = data["labels"], data["known"], data["is_member"]
classes = posteriors.shape[1]
estimator = BlackBoxClassifier(lambda x: posteriors[: len(x)], input_shape=(1,), nb_classes=classes)
started = time.perf_counter()
groups = [labels == c for c in range(classes)] if sys.argv[3] == "classes" else [np.ones(len(labels), bool)]
found = []
for known in data["known_by_ten"] if sys.argv[3] == "targets" else [known]:
    scores = np.zeros(len(labels))
    for group in groups:
        attack = MembershipInferenceBlackBox(estimator)
        members, others, judged = group & known & is_member, group & known & ~is_member, group & ~known
        attack.fit(y=labels[members], test_y=labels[others], pred=posteriors[members], test_pred=posteriors[others])
        scores[judged] = attack.infer(None, labels[judged], pred=posteriors[judged], probabilities=True)[:, -1]
    found.append(scores[~known])
seconds = time.perf_counter() - started
np.savez(sys.argv[2], scores=found[0], seconds=seconds)
"""


def environment(name: str, work: Path) -> Path:
    """The interpreter of a peer's own virtual environment, which is made if it is missing."""
    folder = work / f"venv-{name}"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (folder / ".complete").exists():
        print(f"installing {name} ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "-c", str(CONSTRAINTS), *PEERS[name]]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        (folder / ".complete").touch()
    return python


def version(python: Path, name: str) -> str:
    code = f"import importlib.metadata; print(importlib.metadata.version({name!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def run_peer(python: Path, code: str, *arguments: object) -> dict[str, np.ndarray]:
    out = Path(str(arguments[1]))
    command = [str(python), "-c", code, *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(finished.stderr[-2000:])
    with np.load(out) as archive:
        return dict(archive)


def target(arguments: argparse.Namespace) -> Subject:
    """A small network that overfits digits, trained once."""
    weights = arguments.work / "target.safetensors"
    if not weights.exists():
        settings = {"architecture": "simple-cnn", "dataset": "digits", "schedule": "constant"}
        train_model(TrainConfig(**settings, out=weights, epochs=arguments.epochs, learning_rate=0.02, weight_decay=0))
    return prepare(AssessConfig(model="arch:simple-cnn", weights=weights, dataset="digits"))


def record(subject: Subject, arguments: argparse.Namespace) -> Path:
    """Outputs of the target, and who is who, for the peers."""
    splits = subject.splits
    records = np.union1d(splits.members, splits.non_members)
    signals = collect(subject.target, subject.dataset, records, cache=arguments.work / "cache")
    path = arguments.work / "recorded.npz"
    np.savez(
        path,
        logits=signals.logits,
        labels=signals.labels,
        is_member=np.isin(records, splits.members),
        known=np.isin(records, np.union1d(splits.known_members, splits.known_non_members)),
        known_by_ten=[
            np.isin(records, np.union1d(one.known_members, one.known_non_members)) for one in ten_adversaries(splits)
        ],
    )
    return path


def ten_adversaries(splits: Splits) -> list[Splits]:
    """The same members, of whom ten adversaries know as many, but others; the first is that of the split."""
    found = [splits]
    for seed in range(1, TARGETS):
        generator = np.random.default_rng(seed)
        known = {
            f"known_{group}": np.sort(
                generator.choice(getattr(splits, group), len(getattr(splits, f"known_{group}")), replace=False)
            )
            for group in ("members", "non_members")
        }
        found.append(dataclasses.replace(splits, **known))
    return found


def ours(
    attack: LearnedAttack | Loss, subject: Subject, arguments: argparse.Namespace, targets: int
) -> tuple[MembershipScores, float]:
    splits = ten_adversaries(subject.splits)[:targets]
    cases = [
        (subject.target, TrialData(subject.dataset, one, subject.trained), Context(cache=arguments.work / "cache"))
        for one in splits
    ]
    started = time.perf_counter()
    if targets == 1:
        output = attack(*cases[0], attack.threat_models[0])
    else:
        output = attack_together(attack, cases, attack.threat_models[0])[0]
    return output, time.perf_counter() - started


def interval(scores: np.ndarray, is_member: np.ndarray) -> str:
    measured = roc.auc(scores[is_member], scores[~is_member])
    return f"{measured.value:.3f} ({measured.low:.3f} to {measured.high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for environments, target and outputs")
    parser.add_argument("--rounds", type=int, default=3, help="of each; medians are shown")
    parser.add_argument("--epochs", type=int, default=100, help="of the target")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on both sides")
    parser.add_argument("--only", default="", help="only comparisons whose title holds this")
    arguments = parser.parse_args()
    arguments.work = arguments.work.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    subject = target(arguments)
    recorded = record(subject, arguments)
    with np.load(recorded) as archive:
        judged = archive["is_member"][~archive["known"]]
    pythons = {name: environment(name, arguments.work) for name in PEERS}
    out = arguments.work / "peer.npz"
    meter, toolbox = pythons["privacy-meter"], pythons["adversarial-robustness-toolbox"]
    comparisons = [
        ("loss threshold", {"loss": Loss()}, lambda: run_peer(meter, PRIVACY_METER, recorded, out), 1),
        *(
            (
                title,
                {
                    "mlp-posteriors": MLPPosteriors(per_class=how == "classes"),
                    "ml-doctor-black-box": MLDoctorBlackBox(per_class=how == "classes"),
                },
                lambda how=how: run_peer(toolbox, TOOLBOX, recorded, out, how, arguments.threads),
                TARGETS if how == "targets" else 1,
            )
            for title, how in (
                ("one network", "all"),
                ("a network per class (10)", "classes"),
                (f"a network per target ({TARGETS})", "targets"),
            )
        ),
    ]
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, Python {platform.python_version()}, torch {torch.__version__}")
    for name, python in pythons.items():
        print(f"{name} {version(python, name)}")
    print(f"{len(judged)} records judged, {arguments.rounds} rounds, AUC with DeLong's 95% interval, median seconds")
    for title, attacks, peer, targets in comparisons:
        if arguments.only not in title:
            continue
        found, output = {}, {}
        seconds: dict[str, list[float]] = {name: [] for name in ("peer", *attacks)}
        for _ in range(arguments.rounds):  # in turns, so that a change in the machine's load meets all of them
            found = peer()
            seconds["peer"].append(float(found["seconds"]))
            for name, attack in attacks.items():
                output[name], elapsed = ours(attack, subject, arguments, targets)
                seconds[name].append(elapsed)
        auc = f"{float(found['auc']):.3f}" if "auc" in found else interval(found["scores"], judged)
        print(f"\n{title}\n  {'peer':28} AUC {auc:26} {statistics.median(seconds['peer']):8.3f} s")
        for name in attacks:
            held = output[name].held_out
            auc = interval(output[name].scores[held], output[name].is_member[held])
            ratios = [theirs / mine for theirs, mine in zip(seconds["peer"], seconds[name], strict=True)]
            print(
                f"  {'ours: ' + name:28} AUC {auc:26} {statistics.median(seconds[name]):8.3f} s   peer / ours "
                f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
            )


if __name__ == "__main__":
    main()
