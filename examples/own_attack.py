"""Write a membership attack, check that it fulfils the contract, and run it on two targets."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.attacks.membership.base import ThresholdAttack
from securitynet.methods.context import Context
from securitynet.models.targets.signals import Signals
from securitynet.records import Access, Auxiliary, ThreatModel
from securitynet.testing import check_attack, make_null_case, make_overfitted_case


class TruePosterior(ThresholdAttack):
    """The score is the posterior of the true class."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )

    @override
    def score(self, signals: Signals) -> NDArray[np.float64]:
        return signals.posteriors[np.arange(len(signals)), signals.labels].astype(np.float64)


def main() -> None:
    """Print the attack's AUC on an overfitted target, and on one that was not trained on the members."""
    attack = TruePosterior()
    check_attack(attack)
    for name, case in {"overfitted": make_overfitted_case(), "null": make_null_case()}.items():
        output = attack(case.target, case.data, Context(seed=0), attack.threat_models[0])
        auc = next(m for m in output.measurements(level=0.95, fprs=(0.1,), seed=0) if m.name == "auc")
        print(f"{name:10} AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})")


if __name__ == "__main__":
    main()
