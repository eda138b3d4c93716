"""Train a small network on digits, assess it, and print how well attacks distinguish members from non-members.

Run it with an optional folder for the report: ``python examples/assess_digits.py report``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import securitynet


def main(folder: Path) -> None:
    """Write the weights, their model record and the report into ``folder``."""
    dataset = securitynet.load_dataset("digits")
    weights = folder / "model.safetensors"
    securitynet.train("simple-cnn", dataset, epochs=20, learning_rate=0.05, device="cpu", out=weights)
    result = securitynet.assess(
        "arch:simple-cnn", dataset, weights=weights, attacks=("modified-entropy", "correctness"), out=folder / "report"
    )
    print(f"test accuracy: {result['target.test_accuracy']:.3f}")
    for attack in ("modified-entropy", "correctness"):
        auc = result.assessment[f"membership.{attack}.auc"]
        print(f"{attack}: AUC {auc.value:.3f}, {auc.level:.0%} interval {auc.low:.3f} to {auc.high:.3f}")
    print(f"report: {result.report}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
