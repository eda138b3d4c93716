"""SecurityNet's Appendix C on two public CIFAR-10 ResNets: does the drop grow with epsilon, is transfer weaker?

    python benchmarks/evasion_findings.py [--samples 1000] [--attacks fgsm fgsm-transfer pgd]

White-box FGSM and PGD on each of the two, and FGSM by transfer from the other one. Numbers are on the JPEG version of
CIFAR-10 beside the repository; `docs/evasion.md` quotes a run.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

import securitynet.datasets
from securitynet.attacks import ATTACKS
from securitynet.datasets import splits
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.loading.load import load_target

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
MODELS = {"resnet20": "resnet20-12fca82f.th", "resnet32": "resnet32-d509ac18.th"}
EPSILONS = (0.001, 0.003, 0.01, 0.03, 0.1)


def given(name: str) -> dict[str, object]:
    weights = SHARED / "cifar10-resnets" / MODELS[name]
    return {"model": f"arch:cifar-{name}", "weights": str(weights), "normalize": "imagenet"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--attacks", nargs="*", default=["fgsm", "fgsm-transfer", "pgd"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = securitynet.datasets.load(f"parquet:{SHARED / 'cifar10-jpeg'}")
    data = TrialData(dataset, splits.make("public", dataset, seed=0))
    common = {"samples": options.samples, "epsilons": EPSILONS}
    for name in MODELS:
        other = next(model for model in MODELS if model != name)
        details = given(name)
        target = load_target(str(details["model"]), weights=str(details["weights"]), normalize="imagenet")
        runs = {
            "fgsm": ("fgsm", common),
            "fgsm, log-odds": ("fgsm", {**common, "loss": "log-odds"}),
            f"fgsm-transfer from {other}": ("fgsm-transfer", {**common, "surrogates": [given(other)]}),
            "pgd": ("pgd", common),
        }
        for title, (attack, settings) in runs.items():
            if attack not in options.attacks:
                continue
            made = ATTACKS.get(attack)(**settings)
            with tempfile.TemporaryDirectory() as cache:
                output = made(target, data, Context(cache=Path(cache)), made.threat_models[0])
            found = {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}
            print(f"{name}, {title}: clean accuracy {found['clean-accuracy'].value:.3f}")
            for epsilon in EPSILONS:
                row = [found[f"{measure}@epsilon={epsilon:g}"] for measure in ("accuracy-drop", "success")]
                texts = [f"{m.value:.3f} [{m.low:.3f}, {m.high:.3f}]" for m in row]
                print(f"  epsilon {epsilon:<6g} accuracy drop {texts[0]}   success up to it {texts[1]}")


if __name__ == "__main__":
    main()
