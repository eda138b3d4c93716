"""The level and the power of the test for blocks of outliers on simulated norms, with the paper's rule beside it.

Norms of clean models: lognormal with four deviations, normal with three coefficients of variation. "Named" counts sets
in which a label is both an outlier and far below the median of the others, so that the verdict accuses it. For the
power, one norm, or two, are replaced by a share of the median.

    python benchmarks/backdoor_calibration.py --sets 4000
"""

from __future__ import annotations

import argparse

import numpy as np

from securitynet.metrics import low_outliers, outlier_blocks, rates

SHAPES = [("lognormal", deviation) for deviation in (0.1, 0.3, 0.5, 1.0)]
SHAPES += [("normal", 0.1), ("normal", 0.2), ("normal", 0.3)]


def draw(shape: str, spread: float, labels: int, generator: np.random.Generator) -> np.ndarray:
    """Norms of one clean model."""
    normal = generator.standard_normal(labels)
    return np.abs(1 + spread * normal) if shape == "normal" else np.exp(spread * normal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=4000)
    parser.add_argument("--labels", type=int, nargs="*", default=[3, 5, 10, 43, 100])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.1, 0.2, 0.3])
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    shares = "".join(f"{f'{share:g}: one/two':>16}" for share in arguments.shares)
    print(f"{'labels':>6} {'norms':>14} {'p <= 5%':>26} {'named':>7} {'rule':>7}{shares}")
    for labels in arguments.labels:
        for shape, spread in SHAPES:
            sets = [draw(shape, spread, labels, generator) for _ in range(arguments.sets)]
            tests = [outlier_blocks.find_outlier_block(values) for values in sets]
            hits = sum(test.p_value <= 0.05 for test in tests)
            named = np.mean([bool(test.positions) for test in tests])
            rule = np.mean([low_outliers.compute_anomaly_indices(values).max() > 2 for values in sets])
            low, high = rates.compute_clopper_pearson(hits, len(sets), 0.95)
            powers = ""
            for share in arguments.shares:
                found = [measure_power(sets[: max(1, len(sets) // 4)], share, count) for count in (1, 2)]
                powers += f"{f'{found[0]:.2f} / {found[1]:.2f}':>16}"
            level = f"{hits / len(sets):.4f} [{low:.4f}, {high:.4f}]"
            print(f"{labels:>6} {f'{shape} {spread:g}':>14} {level:>26} {named:>7.3f} {rule:>7.3f}{powers}", flush=True)


def measure_power(sets: list[np.ndarray], share: float, count: int) -> float:
    """Share of the sets in which exactly the labels that were lowered are named."""
    hits = 0
    for values in sets:
        lowered = values.copy()
        lowered[:count] = share * np.median(values) * np.array([1.0, 0.9])[:count]
        hits += set(outlier_blocks.find_outlier_block(lowered).positions) == set(range(count))
    return hits / len(sets)


if __name__ == "__main__":
    main()
