"""Compare output defenses: one membership attack on the same model behind each of them.

An adversary who sees rounded posteriors, or only the largest one, learns less. This example measures how much less.
"""

from __future__ import annotations

import securitynet
from securitynet.attacks.membership.modified_entropy import ModifiedEntropy
from securitynet.defenses.rounding import Rounding
from securitynet.defenses.top_k import TopKDefense
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData


def main() -> None:
    """Print the AUC of membership inference without a defense and with two output defenses."""
    dataset = securitynet.load_dataset("digits")
    target = securitynet.train("simple-cnn", dataset, epochs=20, learning_rate=0.05, device="cpu")
    data = TrialData(dataset, securitynet.four_way(dataset))
    attack = ModifiedEntropy()
    for name, defense in {"none": None, "one decimal": Rounding(digits=1), "top 1": TopKDefense(k=1)}.items():
        context = Context(seed=0)
        seen = target if defense is None else target.through(defense.interface(target, data, context))
        output = attack(seen, data, context, attack.threat_models[0])
        auc = next(m for m in output.measurements(level=0.95, fprs=(0.1,), seed=0) if m.name == "auc")
        print(f"{name:12} AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}), {context.queries().unique} queries")


if __name__ == "__main__":
    main()
