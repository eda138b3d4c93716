"""Training against a membership attack that is trained along with the network (Nasr, Shokri and Houmansadr, 2018)."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from torch.nn import functional
from typing_extensions import override

from securitynet.errors import ConfigurationError
from securitynet.models.training import losses
from securitynet.models.training.batches import Feed
from securitynet.models.training.fit import History
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.step import Procedure, Run
from securitynet.models.training.trainable import NetworkShape
from securitynet.models.training.training_defense import Fitting, TrainingDefense
from securitynet.randomness import derive_seed, isolate_random_state, make_generator


class AdversarialRegularisation(TrainingDefense):
    """The network minimises its loss plus ``weight`` times the gain of an attack that is trained to maximise it.

    The attack distinguishes members from reference records: training records that are set aside, and are neither
    members nor non-members.
    """

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"weight": 1.0}, {"weight": 3.0})

    weight: float = Field(default=3.0, gt=0, allow_inf_nan=False, description="Weight of the attack's gain, lambda.")
    attack_steps: int = Field(default=1, ge=1, description="Attack steps per step of the network.")
    attack_learning_rate: float = Field(
        default=1e-3, gt=0, allow_inf_nan=False, description="Learning rate of the attack (Adam)."
    )
    reference_share: float = Field(
        default=0.3, gt=0, lt=1, description="Share of the training records that is set aside as reference records."
    )

    @property
    @override
    def share_aside(self) -> float:
        return self.reference_share

    @override
    def check(self, architecture: str, shape: NetworkShape, records: int, recipe: Recipe) -> None:
        if recipe.loss != "cross-entropy":
            raise ConfigurationError("Adversarial regularisation needs the cross-entropy loss.")

    @override
    def fit(self, fitting: Fitting) -> tuple[History, dict[str, Any]]:
        return fitting.fit(Adversarial(self, fitting)), {}


class InferenceAttack(nn.Module):
    """The attack network: posteriors and labels to the logit of "member" (section 4.2 and figure 3).

    Args:
        classes: Number of classes, K.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.posteriors = _layers(classes, 1024, 512, 64)
        self.labels = _layers(classes, 512, 64)
        self.both = _layers(128, 256, 64)
        self.last = nn.Linear(64, 1)

    def forward(self, posteriors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits, N, for posteriors N×K and labels N."""
        hard = functional.one_hot(labels, posteriors.shape[1]).to(posteriors.dtype)
        seen = torch.cat([self.posteriors(posteriors), self.labels(hard)], dim=1)
        logits: torch.Tensor = self.last(self.both(seen)).squeeze(1)
        return logits


class Adversarial(Procedure):
    """The steps of algorithm 1."""

    def __init__(self, settings: AdversarialRegularisation, fitting: Fitting) -> None:
        self.settings = settings
        self.images = fitting.images
        self.aside = fitting.aside
        self.labels: NDArray[np.int64] = fitting.labels[fitting.aside]
        self.classes = fitting.shape[0]

    @override
    def identity(self) -> dict[str, Any]:
        reference = hashlib.sha256(self.aside.astype("<i8").tobytes()).hexdigest()
        return {
            "procedure": "adversarial-regularisation",
            "version": 1,
            "reference": reference,
            **self.settings.model_dump(mode="json"),
        }

    @override
    def begin(self, run: Run) -> None:
        """Create the attack, from the seed, and load its reference records."""
        with isolate_random_state():
            torch.manual_seed(derive_seed(run.recipe.seed, "inference attack"))
            self.attack = InferenceAttack(self.classes).to(run.device)
        self.attack_optimizer = torch.optim.Adam(self.attack.parameters(), lr=self.settings.attack_learning_rate)
        self.reference = Feed(self.images, self.aside, run.device)
        self.reference_labels = torch.from_numpy(self.labels).to(run.device)

    @override
    def batches(self, run: Run, epoch: int) -> list[torch.Tensor]:
        self._draws = make_generator(run.recipe.seed, "reference batches", epoch)
        return super().batches(run, epoch)

    @override
    def step(
        self, run: Run, batch: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Train the attack, then the network."""
        for _ in range(self.settings.attack_steps):
            self._train_attack(run, batch, targets)
        return super().step(run, batch, targets, positions)

    @override
    def loss(
        self, run: Run, logits: torch.Tensor, targets: torch.Tensor, batch: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Equation 7: the loss plus the weighted gain of the attack on members."""
        gain = functional.logsigmoid(self.attack(logits.softmax(dim=1), targets)).mean()
        return losses.compute_batch_loss(logits, targets, run.recipe) + self.settings.weight * gain

    @override
    def state(self) -> dict[str, Any]:
        return {"attack": self.attack.state_dict(), "optimizer": self.attack_optimizer.state_dict()}

    @override
    def restore(self, state: dict[str, Any]) -> None:
        self.attack.load_state_dict(state["attack"])
        self.attack_optimizer.load_state_dict(state["optimizer"])

    def _train_attack(self, run: Run, batch: torch.Tensor, targets: torch.Tensor) -> None:
        chosen = torch.randint(len(self.reference), (len(batch),), generator=self._draws)
        others = self.reference_labels[chosen.to(run.device)]
        run.module.eval()  # the attack sees what an adversary sees, and batch norms are updated by members only
        with torch.no_grad():
            inside = run.forward(batch).softmax(dim=1)
            outside = run.forward(self.reference.fetch(chosen)).softmax(dim=1)
        run.module.train()
        scores = torch.cat([self.attack(inside, targets), self.attack(outside, others)])
        truth = torch.cat([torch.ones_like(scores[: len(batch)]), torch.zeros_like(scores[len(batch) :])])
        self.attack_optimizer.zero_grad(set_to_none=True)
        functional.binary_cross_entropy_with_logits(scores, truth).backward()  # type: ignore[no-untyped-call]
        self.attack_optimizer.step()


def _layers(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width), nn.ReLU()]
    return nn.Sequential(*layers)
