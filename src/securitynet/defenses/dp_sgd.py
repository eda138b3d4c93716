"""Training with differential privacy: DP-SGD (Abadi et al., 2016) through Opacus (ML-Doctor, section 7.1.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn
from typing_extensions import override

from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.training.accounting import AccountantName, find_noise, plan_steps
from securitynet.models.training.dp_sgd import ClippingName, PrivateSteps, list_unsupported_layers, replace_batch_norms
from securitynet.models.training.fit import History, Note
from securitynet.models.training.image_initialisation import list_layers_from_images
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.trainable import NetworkShape, build_trainable
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
"""The epsilons of ML-Doctor, Table 3, at delta 1e-5; the table states neither clipping bounds nor noise."""

_DEFAULT_EPSILON = 8.0

RECIPE: dict[str, Any] = {"epochs": 20, "learning_rate": 0.03, "schedule": "constant", "weight_decay": 0.0}
"""Default recipe fields for DP-SGD; docs/defenses.md says how they were chosen."""


class DpSgd(TrainingDefense):
    """DP-SGD with Poisson sampling.

    Set the epsilon to spend (which determines the noise), the noise multiplier (which determines epsilon), or one of
    the paper's settings by name; the default is an epsilon of 8. The bound is for adding or removing one training
    record, and holds for an adversary who sees the weights.

    Images are normalised by constants, because their own mean would reveal something about the records. The training
    accuracy in the model record is not covered by the bound: the owner must keep it private.
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
        description="rdp or prv (tighter, slower), which are bounds; zcdp, which is only for comparison with papers.",
    )
    clipping: ClippingName = Field(
        default="auto", description="per-sample gradients, ghost clipping (for many weights), or auto."
    )
    replace_layers: bool = Field(
        default=True,
        description="Replace batch norms, which mix records, with group norms; otherwise refuse them.",
    )
    secret_noise: bool = Field(
        default=False,
        description="Draw records and noise from a random seed that is discarded. Otherwise the recipe's seed is "
        "used, and the bound holds only against adversaries who do not know it.",
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

    @override
    def advised(self, stated: Mapping[str, Any]) -> dict[str, Any]:
        """Advise fewer epochs than ML-Doctor's 300, with larger steps, because each epoch costs privacy.

        The paper's presets keep the paper's recipe. Optimizers other than SGD need other learning rates.
        """
        if self.preset is not None or stated.get("optimizer", "sgd") != "sgd":
            return {}
        return {name: value for name, value in RECIPE.items() if name not in stated}

    def noise(self, records: int, recipe: Recipe) -> float:
        """Compute the noise multiplier for a training.

        Args:
            records: Number of training records.
            recipe: Batch size and epochs of the training.
        """
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        rate, steps = plan_steps(records, recipe.batch_size)
        assert self.target_epsilon is not None  # given where the noise is not
        return find_noise(self.accountant, self.target_epsilon, rate, steps * recipe.epochs, self.delta)

    @override
    def check(self, architecture: str, shape: NetworkShape, records: int, recipe: Recipe) -> None:
        problems = {
            f"the loss {recipe.loss}": recipe.loss != "cross-entropy",
            "early stopping, which looks at records that nothing accounts for (--patience)": recipe.patience > 0,
            "--lookahead, which nobody has examined together with it": recipe.lookahead,
            "--precision: gradients are clipped and noised in float32": recipe.precision != "fp32",
            "--clip-norm: it bounds the gradient of each record itself (clipping_bound)": recipe.clip_norm is not None,
        }
        for what, wrong in problems.items():
            if wrong:
                raise ConfigurationError(f"dp-sgd cannot be combined with {what}.", hint="Train without it.")
        if self.delta >= 1 / records:
            raise ConfigurationError(
                f"A delta of {self.delta:g} is meaningless for {records} records: publishing one record in full would "
                "satisfy it.",
                hint=f"Set dp-sgd.delta well below {1 / records:.1g}.",
            )
        plan_steps(records, recipe.batch_size)
        network = build_trainable(architecture, *shape)
        if list_layers_from_images(network):
            raise ConfigurationError(
                f"dp-sgd cannot train {architecture}: one of its layers is computed from the training images, which "
                "no noise protects.",
                hint="Train another architecture.",
            )
        layers = list_unsupported_layers(network)
        if layers and not self.replace_layers:
            raise ConfigurationError(
                f"{architecture} has layers of kind {', '.join(layers)}, which mix the records of a batch; DP-SGD "
                "needs the gradient of each record.",
                hint="Allow group norms instead with --configure dp-sgd.replace_layers=true.",
            )
        self.noise(records, recipe)

    @override
    def network(self, network: nn.Module, note: Note) -> nn.Module:
        layers = list_unsupported_layers(network)
        if not layers:
            return network
        note(f"Layers of kind {', '.join(layers)} mix the records of a batch and are replaced with group norms.")
        return replace_batch_norms(network)

    @override
    def preprocessing(self, dataset: ImageDataset, indices: NDArray[np.int64]) -> Preprocessing:
        """A constant scaling from [0, 1] to [-1, 1], independent of the records."""
        channels = dataset.image_shape[0]
        return Preprocessing(mean=(0.5,) * channels, std=(0.5,) * channels)

    @override
    def match_record(self, record: DefenseRecord) -> DpSgd:
        """Use the noise of the target, whatever epsilon that spends on other records, and no secret seed."""
        changes: dict[str, Any] = {"secret_noise": False}
        if record.privacy is not None:
            noise = record.privacy.noise_multiplier
            changes |= {"preset": None, "epsilon": None, "noise_multiplier": noise}
        return self.model_copy(update=changes)

    @override
    def fit(self, fitting: Fitting) -> tuple[History, dict[str, Any]]:
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
            notes.append(
                "Epsilon is the zCDP value for batches that each record joins once an epoch; it is not a bound."
            )
        if not self.secret_noise:
            notes.append("The noise is derived from the seed in this record: keep it private, or the bound is void.")
        return history, {"privacy": steps.privacy(records), "notes": tuple(notes)}
