"""The level and the power of the calibrated test on simulated norms, with the paper's rule beside it.

Norms of clean models: normal with three coefficients of variation, lognormal with four deviations. For the power, one
norm is replaced by a share of the median.

    python benchmarks/backdoor_calibration.py --sets 4000
"""

from __future__ import annotations

import argparse

import numpy as np

from securitynet.metrics import low_outliers, rates

SHAPES = [("normal", 0.1), ("normal", 0.2), ("normal", 0.3)]
SHAPES += [("lognormal", deviation) for deviation in (0.1, 0.3, 0.5, 1.0)]


def draw(shape: str, spread: float, labels: int, generator: np.random.Generator) -> np.ndarray:
    normal = generator.standard_normal(labels)
    return np.abs(1 + spread * normal) if shape == "normal" else np.exp(spread * normal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=4000)
    parser.add_argument("--labels", type=int, nargs="*", default=[10, 43, 100])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.1, 0.2, 0.3])
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    shares = "".join(f"{f'found at {share:g}':>14}" for share in arguments.shares)
    print(f"{'labels':>6} {'norms':>14} {'flagged at 5%':>26} {'by the rule':>12}{shares}")
    for labels in arguments.labels:
        for shape, spread in SHAPES:
            sets = [draw(shape, spread, labels, generator) for _ in range(arguments.sets)]
            hits = sum(low_outliers.low_outlier(values).p_value <= 0.05 for values in sets)
            rule = np.mean([low_outliers.anomaly_indices(values).max() > 2 for values in sets])
            low, high = rates.clopper_pearson(hits, len(sets), 0.95)
            found = []
            for share in arguments.shares:
                count = 0
                for values in sets[: len(sets) // 4]:
                    planted = values.copy()
                    planted[0] = share * np.median(values)
                    count += low_outliers.low_outlier(planted).p_value <= 0.05
                found.append(count / (len(sets) // 4))
            powers = "".join(f"{power:>14.2f}" for power in found)
            level = f"{hits / len(sets):.4f} [{low:.4f}, {high:.4f}]"
            print(f"{labels:>6} {f'{shape} {spread:g}':>14} {level:>26} {rule:>12.3f}{powers}", flush=True)


if __name__ == "__main__":
    main()
