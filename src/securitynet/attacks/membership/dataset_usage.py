"""Dataset usage: what share of a dataset was the model trained on?

Tong, Ye, Zarifzadeh and Shokri, "How much of my dataset did you use? Quantitative data usage inference in machine
learning" (ICLR 2025), section 4: the share of records that a membership attack calls members is biased by its errors,
p̂ = (mean guess - FPR) / (TPR - FPR) is not, and both rates are measured on shadow models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.base import Attack
from securitynet.attacks.membership import _lira
from securitynet.attacks.membership._confidence import scale_confidence
from securitynet.attacks.membership._reference import ONLINE
from securitynet.attacks.membership.lira import LiRA
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.models.shadows import Accuracies, ShadowTraining, list_fidelity_warnings, resolve_training
from securitynet.models.shadows.outputs import restrict_like
from securitynet.models.shadows.plan import MOST_SHADOWS
from securitynet.models.shadows.store import check_shadow, specify_shadow
from securitynet.models.store.parallel import obtain_models
from securitynet.models.targets.signals import collect_signals
from securitynet.models.targets.target import Target
from securitynet.randomness import derive_seed
from securitynet.records import Direction, Measurement, ThreatModel

METHOD = "Student's t over shadow models in the role of the target"


@dataclass(frozen=True, eq=False)
class UsageEstimate(Output):
    """Guesses about the records of the dataset, under the target and under shadow models.

    Attributes:
        indices: Records of the dataset, N int64.
        guesses: Whether each record is called a member of the target's training set, N.
        is_member: Whether it is one, N.
        shadow_guesses: The same under each shadow model, with the others as its shadow models, M×N.
        included: Whether shadow model m was trained on record n, M×N.
        notes: Notes for the reader.
    """

    headline: ClassVar[tuple[str, ...]] = ("usage",)

    indices: NDArray[np.int64]
    guesses: NDArray[np.bool_]
    is_member: NDArray[np.bool_]
    shadow_guesses: NDArray[np.bool_]
    included: NDArray[np.bool_]
    notes: tuple[str, ...] = ()

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "indices": self.indices,
            "guesses": self.guesses,
            "is_member": self.is_member,
            "shadow_guesses": self.shadow_guesses,
            "included": self.included,
            **({"notes": np.asarray(self.notes, dtype=np.str_)} if self.notes else {}),
        }

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> UsageEstimate:
        return cls(
            arrays["indices"],
            arrays["guesses"],
            arrays["is_member"],
            arrays["shadow_guesses"],
            arrays["included"],
            tuple(str(note) for note in arrays.get("notes", ())),
        )

    @override
    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """Estimate the share of the records that the target was trained on; the interval is a prediction interval.

        Each shadow model in turn has the role of the target. The errors of their estimates, whose truths are known, are
        exchangeable with the error of the target's, if it was trained like them.
        """
        del fprs, seed
        truth, count = float(self.is_member.mean()), len(self.included)
        about: dict[str, Any] = {"level": level, "n": len(self.indices), "direction": Direction.LOWER}
        rest = ~np.eye(count, dtype=bool)
        rates = [_rates(self.shadow_guesses, self.included)]
        rates += [_rates(self.shadow_guesses[others], self.included[others]) for others in rest]
        if any(tpr <= fpr for tpr, fpr in rates):
            note = "not resolvable: the attack calls members no more often than non-members"
            return [Measurement(name="usage", value=None, method="none", note=note, **about)]
        value = debias(float(self.guesses.mean()), *rates[0])
        estimates = [
            debias(float(guesses.mean()), *own) for guesses, own in zip(self.shadow_guesses, rates[1:], strict=True)
        ]
        errors = np.array(estimates) - self.included.mean(axis=1)
        reach = float(scipy.stats.t.ppf((1 + level) / 2, count - 1) * math.sqrt((errors**2).mean() * (1 + 1 / count)))
        if value + reach < 0 or value - reach > 1:
            note = "not resolvable: no share explains the guesses, so the target is unlike the shadow models"
            return [Measurement(name="usage", value=None, method="none", note=note, **about).with_notes(*self.notes)]
        note = f"The target was trained on {truth:.1%} of these records."
        return [
            Measurement(
                name="usage", value=value, low=value - reach, high=value + reach, method=METHOD, note=note, **about
            ).with_notes(*self.notes)
        ]


class DatasetUsage(Attack):
    """Guesses the membership of each record by LiRA, and removes the bias of the mean guess.

    Each shadow model is trained on half of the judged records, drawn independently of the others. If each record were
    in equally many training sets, members of a shadow model would have fewer other models with them than non-members,
    and the errors of its estimate would not be like those of the target's.

    Attributes:
        count: Number of shadow models.
        training: How they are trained.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ONLINE,)
    output: ClassVar[type[Output]] = UsageEstimate
    costs: ClassVar[str | None] = "trains many shadow models"
    trains_like_target: ClassVar[bool] = True

    count: int = Field(default=16, ge=6, le=MOST_SHADOWS, description="Number of shadow models.")
    training: ShadowTraining = Field(default_factory=ShadowTraining, description="How shadow models are trained.")

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> UsageEstimate:
        signals = context.signals(target, data)
        records, is_member = signals.indices, np.isin(signals.indices, data.splits.members)
        training = resolve_training(self.training, target, data.trained, data.defense)
        specs = []
        for number in range(self.count):
            raw = np.random.PCG64(derive_seed(context.seed, "dataset usage", number)).random_raw(len(records))
            half = np.sort(records[raw.argsort(kind="stable")[: len(records) // 2]])
            recipe = training.seeded(context.seed, number)
            specs.append(
                specify_shadow(
                    data.dataset,
                    half,
                    training.architecture,
                    recipe,
                    training.defense,
                    input_size=training.input_size,
                )
            )
        for spec in specs:
            check_shadow(spec)
        models = obtain_models(
            specs, kind="shadows", cache=context.cache, device=context.device, progress=context.progress
        )
        values, included, accuracies = [], [], []
        for model in models:
            outputs = collect_signals(restrict_like(model.target, target), data.dataset, records, cache=context.cache)
            values.append(scale_confidence(outputs.logits, outputs.labels))
            included.append(np.isin(records, model.members))
            accuracies.append(Accuracies.of(outputs, records[included[-1]], records[~included[-1]]))
        shadows, inside = np.stack(values), np.stack(included)
        own = Accuracies.of(signals, records[is_member], records[~is_member])
        return UsageEstimate(
            records,
            _lira.compute_online_ratio(scale_confidence(signals.logits, signals.labels), shadows, inside) > 0,
            is_member,
            LiRA().score_leave_one_out(shadows, inside) > 0,
            inside,
            list_fidelity_warnings(own, accuracies, training.assumptions),
        )


def debias(guessed: float, tpr: float, fpr: float) -> float:
    """Return the share of members that makes a share of guesses expected; 0 and 1 are not enforced.

    Args:
        guessed: Share of records that are called members, in [0, 1].
        tpr: Share of members that are called members.
        fpr: Share of non-members that are called members, less than ``tpr``.
    """
    return (guessed - fpr) / (tpr - fpr)


def _rates(guesses: NDArray[np.bool_], included: NDArray[np.bool_]) -> tuple[float, float]:
    """(TPR, FPR) over all shadow models and records."""
    return float(guesses[included].mean()), float(guesses[~included].mean())
