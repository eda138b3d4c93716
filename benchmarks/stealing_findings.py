"""No timing: what the papers find on model stealing, on a public CIFAR-10 network, at a scale that a CPU bears.

- agreement and accuracy grow with the number of queries (SecurityNet, appendix B), the bill being the budget;
- posteriors teach more than labels at a small budget;
- a surrogate of posteriors has the confidence that its accuracy deserves; one that regresses the target's posteriors
  with its *logits*, a slip that public code makes, keeps the classes and loses the confidence.

The target is `cifar-resnet20` with the public weights; CIFAR-10 is read from a folder of Parquet files.

    python benchmarks/stealing_findings.py --data FOLDER --weights FILE [--architecture simple-cnn] [--budgets 500 2500]
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import securitynet.datasets
from securitynet.attacks import ATTACKS
from securitynet.attacks.stealing.base import StolenModels
from securitynet.datasets import splits
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import paired, stealing
from securitynet.models.loading.load import load_target
from securitynet.models.store.cached_model import ModelSpec, build_fresh_network
from securitynet.models.targets.signals import collect_signals
from securitynet.models.training.pixel_statistics import fit_normalization
from securitynet.records import Access, Auxiliary, Direction, Measurement, ThreatModel

SHOWN = ("agreement", "accuracy", "accuracy-ratio", "agreement-on-errors", "calibration-gap", "posterior-distance")


def written(measurement: Measurement) -> str:
    if measurement.value is None:
        return "-"
    return f"{measurement.value:.3f} ({measurement.low:.3f} to {measurement.high:.3f})"


def show(title: str, output: StolenModels) -> None:
    found = {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}
    for budget in output.budgets.tolist():
        suffix = f"@budget={budget}" if len(output.budgets) > 1 else ""
        print(f"{title:24} {budget:7,}  " + "  ".join(written(found[f"{name}{suffix}"]) for name in SHOWN), flush=True)


def regressed_logits(data: TrialData, output: StolenModels, answers: np.ndarray, records: np.ndarray, attack) -> None:
    """The slip: logits regressed onto posteriors, with the same network, records and epochs."""
    recipe = attack.training(load_free(), Context())
    spec = ModelSpec(data.dataset, records, answers, 10, attack.architecture, recipe)
    network, preprocessing = build_fresh_network(spec), fit_normalization(data.dataset, records)
    optimizer = torch.optim.SGD(network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
    targets, draws = torch.from_numpy(answers), torch.Generator().manual_seed(0)
    network.train()
    for _ in range(recipe.epochs):
        for rows in torch.split(torch.randperm(len(records), generator=draws), recipe.batch_size):
            inputs = preprocessing(data.dataset.batch(records[rows.numpy()]))
            optimizer.zero_grad()
            (network(inputs) - targets[rows]).square().mean().backward()  # as torch.nn.MSELoss has it
            optimizer.step()
    network.eval()
    with torch.inference_mode():
        batches = data.dataset.batches(output.indices, 256)
        outputs = torch.cat([network(preprocessing(images)) for _, images in batches]).softmax(dim=1)
    confidence, predicted = (values.numpy() for values in outputs.max(dim=1))
    gap = stealing.measure_calibration_gap(confidence, predicted == output.labels)
    agreement = float((predicted == output.target).mean())
    print(f"  logits regressed onto posteriors: agreement {agreement:.3f}, {written(gap)}: {gap.note}")


def load_free():
    class Full:
        head = "logits"

    return Full()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--weights", type=Path, required=True, help="of cifar-resnet20")
    parser.add_argument("--architecture", nargs="+", default=["simple-cnn"])
    parser.add_argument("--budgets", type=int, nargs="+", default=[500, 2500])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--limit", type=int, default=None, help="records of each part; default: enough for the budgets")
    parser.add_argument("--judged", type=int, default=2000, help="test records on which surrogates are judged")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cache = arguments.cache or Path(tempfile.mkdtemp(prefix="stealing-"))
    limit = arguments.limit or 2 * max(arguments.budgets) + 10
    dataset = securitynet.datasets.load(
        f"parquet:{arguments.data.resolve()}", cache=cache, limit=None if limit >= 50_000 else limit
    )
    made = splits.public(dataset)
    judged = made.non_members[: arguments.judged]
    data = TrialData(dataset, splits.Splits(**{**made.sets(), "name": "public", "non_members": judged}))
    target = load_target(
        "arch:cifar-resnet20", weights=arguments.weights, dataset=dataset, normalize="imagenet", device="cpu"
    )
    print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads, {len(judged)} judged")
    print(f"{'':24} {'queries':>7}  " + "  ".join(f"{name:>22}" for name in SHOWN))
    threat_model = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL)
    for architecture in arguments.architecture:
        outputs = {}
        for interface in ("full", "labels"):
            attack = ATTACKS.get("securitynet-surrogate")(
                architecture=architecture,
                recipe={"epochs": arguments.epochs},
                budgets=tuple(arguments.budgets),
                interface=interface,
            )
            target.query_counter.__init__()
            context, started = Context(cache=cache, device="cpu"), time.perf_counter()
            outputs[interface] = attack(target, data, context, threat_model)
            show(f"{architecture}, {interface}", outputs[interface])
            counted, wanted = context.queries(), max(arguments.budgets)
            print(f"  {counted.unique:,} of {wanted:,} queries; {time.perf_counter() - started:.0f} s")
            assert counted.unique == counted.total == wanted
        full, labels = outputs["full"], outputs["labels"]
        gain = paired.measure_paired_difference(
            "x", full.surrogate[0] == full.target, labels.surrogate[0] == full.target, direction=Direction.LOWER
        )
        print(f"  agreement, posteriors minus labels, at {full.budgets[0]:,} queries: {written(gain)}")
        if architecture == arguments.architecture[0]:
            records = asked_first(data, int(full.budgets[-1]))
            answers = collect_signals(target, dataset, records, cache=cache).posteriors
            attack = ATTACKS.get("securitynet-surrogate")(
                architecture=architecture, recipe={"epochs": arguments.epochs}
            )
            regressed_logits(data, full, answers, records, attack)


def asked_first(data: TrialData, budget: int) -> np.ndarray:
    from securitynet.attacks.stealing._pool import make_pool

    context = Context(threat_model=ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL))
    return make_pool(data, context, budget, missing_classes=True).records


if __name__ == "__main__":
    main()
