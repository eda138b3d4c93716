"""Training with differential privacy: DP-SGD (Abadi et al., 2016) through Opacus (ML-Doctor, section 7.1.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError
from securitynet.models.architectures.factory import build
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.training.dp_sgd import (
    AccountantName,
    ClippingName,
    PrivateSteps,
    noise_for,
    plan_steps,
    unsupported_layers,
    with_group_norms,
)
from securitynet.models.training.fit import History, Note
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import DefenseRecord, Fitting, TrainingDefense

PresetName = Literal[
    "celeba-1", "celeba-2", "fmnist-1", "fmnist-2", "stl10-1", "stl10-2", "utkface-1", "utkface-2"
]  # fmt: skip

PRESETS: dict[str, float] = {
    "celeba-1": 5.14,
    "celeba-2": 6.57,
    "fmnist-1": 8.41,
    "fmnist-2": 9.36,
    "stl10-1": 8.83,
    "stl10-2": 9.60,
    "utkface-1": 9.58,
    "utkface-2": 7.76,
}
"""The epsilons of ML-Doctor, Table 3, at delta 1e-5. It states neither clipping bounds nor noise: they follow here."""

_DEFAULT_EPSILON = 8.0

RECIPE: dict[str, Any] = {"epochs": 20, "learning_rate": 0.03, "schedule": "constant", "weight_decay": 0.0}
"""What suits DP-SGD of the recipe, where nothing else is stated: see docs/defenses.md for how it was chosen."""


class DpSgd(TrainingDefense):
    """DP-SGD with Poisson sampling.

    Give the epsilon to spend (the noise follows), or the noise multiplier (epsilon follows), or one of the paper's
    settings by name; an epsilon of 8 by default. The bound is for adding or removing one training record, and holds for
    an adversary who sees the weights.

    Images are normalised by constants, for their own mean would tell of the records. The training accuracy in the
    model's record is its owner's to keep: no noise protects it.
    """

    accountable: ClassVar[bool] = True
    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"epsilon": 8.0}, {"epsilon": 2.0})

    preset: PresetName | None = Field(default=None, description="A setting of ML-Doctor's Table 3.")
    epsilon: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Epsilon to spend in the whole training."
    )
    noise_multiplier: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Deviation of the noise, divided by the clipping bound."
    )
    clipping_bound: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="Largest Euclidean norm of one record's gradient."
    )
    delta: float = Field(default=1e-5, gt=0, lt=1, description="Probability that the bound does not hold.")
    accountant: AccountantName = Field(
        default="rdp",
        description="rdp or prv (tighter, slower), which are bounds; zcdp, a figure to compare with papers.",
    )
    clipping: ClippingName = Field(
        default="auto", description="per-sample gradients, ghost clipping (for many weights), or auto."
    )
    replace_layers: bool = Field(
        default=True, description="Replace batch norms, which mix records, by group norms; otherwise they are refused."
    )
    secret_noise: bool = Field(
        default=False,
        description="Draw records and noise from a seed that nobody keeps. Otherwise it is the recipe's, and the "
        "bound holds only against those who do not know it.",
    )

    @model_validator(mode="after")
    def _one_of(self) -> DpSgd:
        given = [name for name in ("preset", "epsilon", "noise_multiplier") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}: each decides the others")
        return self

    @property
    def target_epsilon(self) -> float | None:
        """The epsilon to spend; None if the noise is given."""
        if self.noise_multiplier is not None:
            return None
        return PRESETS[self.preset] if self.preset else self.epsilon or _DEFAULT_EPSILON

    def advised(self, stated: Mapping[str, Any]) -> dict[str, Any]:
        """See `TrainingDefense.advised`: each epoch costs privacy, so fewer than ML-Doctor's 300, of larger steps.

        The paper's presets keep the paper's recipe; other optimizers than SGD have other learning rates.
        """
        if self.preset is not None or stated.get("optimizer", "sgd") != "sgd":
            return {}
        return {name: value for name, value in RECIPE.items() if name not in stated}

    def noise(self, records: int, recipe: Recipe) -> float:
        """The noise multiplier for a training on so many records."""
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        rate, steps = plan_steps(records, recipe.batch_size, recipe.epochs)
        assert self.target_epsilon is not None  # given where the noise is not
        return noise_for(self.accountant, self.target_epsilon, rate, steps * recipe.epochs, self.delta)

    def check(self, architecture: str, shape: tuple[int, int, int], records: int, recipe: Recipe) -> None:
        """See `TrainingDefense.check`."""
        problems = {
            f"the loss {recipe.loss}": recipe.loss != "cross-entropy",
            "early stopping, which looks at records that nothing accounts for (--patience)": recipe.patience > 0,
            "--clip-norm: it bounds the gradient of each record itself (clipping_bound)": recipe.clip_norm is not None,
        }
        for what, wrong in problems.items():
            if wrong:
                raise ConfigurationError(f"dp-sgd does not go together with {what}.", hint="Leave that out.")
        if self.delta >= 1 / records:
            raise ConfigurationError(
                f"A delta of {self.delta:g} is no protection for {records} records: giving away one of them whole "
                "would satisfy it.",
                hint=f"Set dp-sgd.delta well below {1 / records:.1g}.",
            )
        plan_steps(records, recipe.batch_size, recipe.epochs)
        layers = unsupported_layers(build(architecture, *shape))
        if layers and not self.replace_layers:
            raise ConfigurationError(
                f"{architecture} has layers of kind {', '.join(layers)}, which mix the records of a batch; DP-SGD "
                "needs the gradient of each record.",
                hint="Allow group norms in their place with --configure dp-sgd.replace_layers=true.",
            )
        self.noise(records, recipe)

    def network(self, network: nn.Module, note: Note) -> nn.Module:
        """See `TrainingDefense.network`."""
        layers = unsupported_layers(network)
        if not layers:
            return network
        note(f"Layers of kind {', '.join(layers)} mix the records of a batch; group norms take their place.")
        return with_group_norms(network)

    def preprocessing(self, dataset: ImageDataset, indices: NDArray[np.int64]) -> Preprocessing:
        """See `TrainingDefense.preprocessing`: from [0, 1] to [-1, 1], whatever the records are."""
        channels = dataset.image_shape[0]
        return Preprocessing(mean=(0.5,) * channels, std=(0.5,) * channels)

    def imitate(self, record: DefenseRecord) -> DpSgd:
        """See `TrainingDefense.imitate`: the same noise, whatever it spends on other records; nothing is secret."""
        changes: dict[str, Any] = {"secret_noise": False}
        if record.privacy is not None:
            noise = record.privacy.noise_multiplier
            changes |= {"preset": None, "epsilon": None, "noise_multiplier": noise}
        return self.model_copy(update=changes)

    def fit(self, fitting: Fitting) -> tuple[History, dict[str, Any]]:
        """See `TrainingDefense.fit`."""
        records = len(fitting.indices)
        steps = PrivateSteps(
            noise_multiplier=self.noise(records, fitting.recipe),
            clipping_bound=self.clipping_bound,
            accountant=self.accountant,
            delta=self.delta,
            clipping=self.clipping,
            secret_noise=self.secret_noise,
        )
        history = fitting.fit(steps)
        notes = []
        if self.accountant == "zcdp":
            notes.append("Epsilon is the zCDP figure of batches that each record joins once an epoch; it is no bound.")
        if not self.secret_noise:
            notes.append("The noise follows from the seed in this record: keep it, or epsilon protects nobody.")
        return history, {"privacy": steps.privacy(records), "notes": tuple(notes)}
