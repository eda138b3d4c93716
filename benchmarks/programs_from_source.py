"""Membership inference beside programs that cannot be installed as packages: the same signals, agreement and time.

    python benchmarks/programs_from_source.py [--privacy-meter FOLDER] [--leakpro FOLDER] [--records 4000] [--rounds 5]

FOLDER is a copy of github.com/privacytrustlab/ml_privacy_meter or github.com/aidotse/LeakPro, which are no requirements
of this project; what they import beside torch, pandas and scikit-learn must be importable. (On PyPI, `leakpro` is an
empty placeholder, and `privacy-meter` is an older program without RMIA and audits.) The signals are simulated: sixteen
shadow models, in half of whose training sets each record is. Times are medians of rounds in turns, on one thread.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.attacks.membership._evidence import SignalEvidence
from securitynet.attacks.membership.lira import LiRA
from securitynet.attacks.membership.rmia import RMIA
from securitynet.attacks.membership.rmia_offline import RMIAOffline
from securitynet.metrics import one_run_audit, roc
from securitynet.torchvision_cure import import_torchvision

SHADOWS, CLASSES = 16, 10
FPR = 0.01


@dataclass(frozen=True, eq=False)
class Given:
    """Logits of the target and of the shadow models, M+1×N×K, and who was trained on what.

    Attributes:
        population: Records that nobody was trained on; they are not judged.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    included: NDArray[np.bool_]
    is_member: NDArray[np.bool_]
    population: NDArray[np.bool_]


def simulate(records: int) -> Given:
    """Records of different difficulty, whose logit of the true class is higher where they were trained on."""
    draws = np.random.default_rng(0)
    labels = draws.integers(0, CLASSES, records)
    included = draws.permuted(np.arange(SHADOWS)[:, None].repeat(records, axis=1) < SHADOWS // 2, axis=0)
    is_member = draws.random(records) < 0.5
    population = np.arange(records) >= records * 3 // 4
    is_member[population], included[:, population] = False, False
    logits = draws.normal(0, 1, (SHADOWS + 1, records, CLASSES))
    logits[:, np.arange(records), labels] += draws.normal(4, 2, records) + np.concatenate([is_member[None], included])
    return Given(logits.astype(np.float32), labels, included, is_member, population)


def attack_with_ours(attack: LiRA | RMIA | RMIAOffline, given: Given) -> Callable:
    def run() -> NDArray[np.float64]:
        observed = attack.signal(given.logits[0], given.labels)
        shadows = np.stack([attack.signal(logits, given.labels) for logits in given.logits[1:]])
        evidence = SignalEvidence(observed, shadows, given.included)
        return attack.score(evidence, evidence.select(given.population))

    return run


def compare(title: str, sides: dict[str, Callable], given: Given, rounds: int) -> None:
    """Print agreement and times of two sides that score the same records."""
    judged, is_member = ~given.population, given.is_member[~given.population]
    found = {name: np.asarray(run(), dtype=np.float64)[judged] for name, run in sides.items()}
    ours, theirs = found.values()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 else list(sides)[::-1]:
            started = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - started)
    print(f"\n{title}")
    ranks = float(np.corrcoef(np.argsort(np.argsort(ours)), np.argsort(np.argsort(theirs)))[0, 1])
    print(f"  scores differ by at most {np.abs(ours - theirs).max():.2g}; their ranks correlate with {ranks:.5f}")
    for name, scores in found.items():
        members, others = scores[is_member], scores[~is_member]
        threshold = np.sort(others)[-int(FPR * len(others)) - 1]
        print(
            f"  {name:20s} {statistics.median(seconds[name]):9.4f} s   AUC {roc.compute_auc(members, others):.4f}   "
            f"TPR at {FPR:.0%} FPR {(members > threshold).mean():.4f}"
        )
    ratio = statistics.median(slow / fast for fast, slow in zip(*seconds.values(), strict=True))
    print(f"  their time / ours: {ratio:.1f}")


def run_privacy_meter(folder: Path, given: Given, rounds: int) -> None:
    """Offline RMIA, and the lower bound on epsilon of one run."""
    sys.path.insert(0, str(folder))
    program, audit = importlib.import_module("attacks"), importlib.import_module("audit")
    # Its models come in pairs: the target's partner is left out, so a column without use follows the target's.
    rows = np.arange(len(given.labels)), given.labels

    def theirs() -> NDArray[np.float64]:
        signals = np.stack([torch.from_numpy(logits).softmax(dim=1).numpy()[rows] for logits in given.logits], axis=1)
        padded = np.insert(signals, 1, 0.0, axis=1)
        members = np.insert(given.included.T, 0, np.stack([given.is_member, given.is_member]), axis=1)
        scores: NDArray[np.float64] = program.run_rmia(0, padded, padded[given.population], members, SHADOWS // 2, 0.3)
        return scores

    sides = {"ours": attack_with_ours(RMIAOffline(a=0.3, break_ties=False), given), "privacy-meter": theirs}
    compare("RMIA, offline, a = 0.3 (privacy-meter applies a to the population as well, and takes its largest signals)",
            sides, given, rounds)  # fmt: skip

    bounds = [(1000, number, int(number * share)) for number in (10, 50, 200, 1000) for share in (0.6, 0.8, 1.0)]

    def bound_ours() -> list[float]:
        found = []
        for canaries, number, correct in bounds:
            guesses = one_run_audit.Guesses(canaries, number, 0, correct)

            def is_rejected(epsilon: float, guesses: one_run_audit.Guesses = guesses) -> bool:
                return one_run_audit.bound_p_value(guesses, epsilon, 1e-5) <= 0.05

            found.append(one_run_audit.find_largest_rejected(is_rejected, 0.0) if is_rejected(0.0) else 0.0)
        return found

    print("\nLower bounds on epsilon from one run at delta 1e-5 (Steinke et al.): canaries, guesses, correct")
    started = time.perf_counter()
    mine = bound_ours()
    between = time.perf_counter()
    yours = [audit.get_eps_audit(*case, 1e-5, 0.05) for case in bounds]
    print(f"  ours {between - started:.3f} s, privacy-meter {time.perf_counter() - between:.3f} s")
    for case, first, second in zip(bounds, mine, yours, strict=True):
        print(f"  {case}: {first:.4f} and {second:.4f}")
    apart = max(abs(first - second) for first, second in zip(mine, yours, strict=True))
    print(f"  largest difference {apart:.2g}")
    if not math.isclose(apart, 0, abs_tol=1e-3):
        raise SystemExit("The bounds differ.")


def run_leakpro(folder: Path, given: Given, rounds: int) -> None:
    """Its online LiRA and RMIA, from the step on at which the outputs of all models are known."""
    sys.path.append(str(folder))
    import_torchvision()
    program = importlib.import_module("leakpro.attacks.mia_attacks.lira")
    program.tqdm = lambda items, **_: items
    rmia_program = importlib.import_module("leakpro.attacks.mia_attacks.rmia")
    judged = np.flatnonzero(~given.population)
    audited = {
        "in_members": np.flatnonzero(given.is_member[judged]),
        "out_members": np.flatnonzero(~given.is_member[judged]),
    }

    def make(kind: type, **settings: Any) -> Any:
        # Its constructors begin a whole run; the steps that are compared need these attributes alone.
        attack = object.__new__(type(kind.__name__, (kind,), {"audit_dataset": audited}))
        attack.__dict__.update(configs=kind.AttackConfig(), **settings)  # type: ignore[attr-defined]
        return attack

    def in_order(attack: Any) -> NDArray[np.float64]:
        scores = np.empty(len(judged))
        scores[audited["in_members"]] = attack.in_member_signals[:, 0]
        scores[audited["out_members"]] = attack.out_member_signals[:, 0]
        everywhere = np.zeros(len(given.labels))
        everywhere[judged] = scores
        return everywhere

    def lira() -> NDArray[np.float64]:
        attack = make(program.AttackLiRA, online=True, num_shadow_models=SHADOWS, fix_var_threshold=32,
                      var_calculation="carlini", out_indices=~given.included[:, judged])  # fmt: skip
        first, *others = (
            attack.rescale_logits(logits[judged].astype(np.float64), given.labels[judged]) for logits in given.logits
        )
        attack.target_logits, attack.shadow_models_logits = first, np.array(others)
        attack.run_attack()
        return in_order(attack)

    def rmia() -> NDArray[np.float64]:
        attack = make(rmia_program.AttackRMIA, online=True, temperature=1.0, gamma=1.0, epsilon=0.0)
        attack.ground_truth_indices = given.labels[judged]
        attack.logits_theta, *attack.logits_shadow_models = given.logits[:, judged]
        rows = np.arange(len(given.labels)), given.labels
        posteriors = [rmia_program.softmax_logits(logits, 1.0)[rows] for logits in given.logits]
        attack.ratio_z = (posteriors[0] / np.mean(posteriors[1:], axis=0))[None, given.population]
        attack._run_attack()
        return in_order(attack)

    compare("LiRA, online; LeakPro's fixed variance holds the spread between records as well",
            {"ours": attack_with_ours(LiRA(), given), "LeakPro": lira}, given, rounds)  # fmt: skip
    compare("RMIA, online, population of known non-members",
            {"ours": attack_with_ours(RMIA(break_ties=False), given), "LeakPro": rmia},
            given, rounds)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--privacy-meter", type=Path, metavar="FOLDER")
    parser.add_argument("--leakpro", type=Path, metavar="FOLDER")
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if not (options.privacy_meter or options.leakpro):
        parser.error("give the folder of at least one program")
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    given = simulate(options.records)
    if options.privacy_meter:
        run_privacy_meter(options.privacy_meter, given, options.rounds)
    if options.leakpro:
        run_leakpro(options.leakpro, given, options.rounds)


if __name__ == "__main__":
    main()
