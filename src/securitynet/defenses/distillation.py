"""Knowledge distillation: a student learns a teacher's posteriors (ML-Doctor, section 7.1.2; DMP)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from torch.nn import functional
from typing_extensions import override

from securitynet.errors import ConfigurationError
from securitynet.models.sources.weights import state_checksum
from securitynet.models.training import losses
from securitynet.models.training.batches import Feed
from securitynet.models.training.evaluation import take_main_output
from securitynet.models.training.fit import History, evaluate_network
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.step import Procedure, Run
from securitynet.models.training.trainable import NetworkShape, find_architecture
from securitynet.models.training.training_defense import Fitting, Teacher, TrainingDefense, count_trained_weights

TEACHERS = {"vgg11": "vgg19"}
"""The paper's pair. For other students the teacher has the same architecture, unless another one is named."""

_BATCH = 256


class Distillation(TrainingDefense):
    """The network is the student of a teacher, which is trained first with the same recipe.

    On the **training** data (the paper), the loss is ``alpha`` times the divergence from the teacher's posteriors at
    the temperature, and cross-entropy with the labels for the rest. On **held-out** data (as in DMP by Shejwalkar and
    Houmansadr, the stronger defense), the teacher is trained on the members and the student never sees them: it learns
    the teacher's posteriors for training records that were set aside, without their labels. Those are neither members
    nor non-members.
    """

    sweep: ClassVar[tuple[dict[str, Any], ...]] = ({"data": "training"}, {"data": "held-out"})

    teacher: str | None = Field(
        default=None, description="Architecture of the teacher. Default: vgg19 for vgg11, else the student's own."
    )
    temperature: float = Field(default=20.0, gt=0, allow_inf_nan=False, description="Temperature of the divergence.")
    alpha: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Weight of the divergence in the loss; 1 on held-out data.",
    )
    data: Literal["training", "held-out"] = Field(
        default="training",
        description="Training data of the student: the members, or records set aside.",
    )
    held_out_share: float = Field(default=0.5, gt=0, lt=1, description="Share of the training records set aside.")

    @property
    @override
    def share_aside(self) -> float:
        return self.held_out_share if self.data == "held-out" else 0.0

    def teacher_of(self, architecture: str) -> str:
        """The teacher's architecture."""
        return find_architecture(self.teacher or TEACHERS.get(architecture, architecture)).reference

    @override
    def check(self, architecture: str, shape: NetworkShape, records: int, recipe: Recipe) -> None:
        if recipe.loss != "cross-entropy" or recipe.patience:
            what = "early stopping" if recipe.patience else f"the loss {recipe.loss}"
            raise ConfigurationError(
                f"Distillation defines its own loss and length of training, so it cannot be combined with {what}.",
                hint=f"Train without {what}.",
            )
        student, teacher = find_architecture(architecture), find_architecture(self.teacher_of(architecture))
        counts = student.count_weights(*shape), teacher.count_weights(*shape)
        if counts[0] > counts[1]:
            raise ConfigurationError(
                f"The student {student.name} has {counts[0]:,} weights, more than its teacher {teacher.name} with "
                f"{counts[1]:,}: it would forget nothing.",
                hint="Name a larger one with --configure distillation.teacher=NAME.",
            )

    @override
    def fit(self, fitting: Fitting) -> tuple[History, dict[str, Any]]:
        name = self.teacher_of(fitting.architecture)
        teacher = fitting.fresh(name, "teacher")
        fitting.note(f"The teacher {find_architecture(name).name} is trained first.")
        fitting.fit(network=teacher, checkpoint=fitting.part("teacher"))
        held_out = self.data == "held-out"
        indices = fitting.aside if held_out else fitting.indices
        # On held-out data the labels are used for the history's training accuracy only.
        procedure = Distilling(teacher, self.temperature, 1.0 if held_out else self.alpha)
        history = fitting.fit(procedure, indices=indices)
        if not len(fitting.unseen):  # a shadow model: its model record needs no comparison with the teacher
            return history, {}
        return history, {"teacher": self._compare(name, teacher, fitting)}

    @staticmethod
    def _compare(name: str, teacher: nn.Module, fitting: Fitting) -> Teacher:
        def accuracy(indices: NDArray[np.int64]) -> float:
            return evaluate_network(
                teacher,
                fitting.images,
                fitting.labels[indices],
                indices=indices,
                preprocessing=fitting.preprocessing,
                device=fitting.device,
            )[1]

        student = _logits(fitting.network, fitting, fitting.unseen).argmax(dim=1)
        alike = student == _logits(teacher, fitting, fitting.unseen).argmax(dim=1)
        return Teacher(
            architecture=find_architecture(name).name,
            weights=count_trained_weights(teacher),
            student_weights=count_trained_weights(fitting.network),
            train_accuracy=accuracy(fitting.indices),
            test_accuracy=accuracy(fitting.unseen),
            agreement=float(alike.float().mean()),
            records=len(alike),
        )


class Distilling(Procedure):
    """Training steps on the posteriors of a teacher.

    Args:
        teacher: The trained network, for the same images with the same preprocessing.
        temperature: Temperature of both softmaxes.
        alpha: Weight of the divergence in the loss, in (0, 1]; the rest is cross-entropy with the labels.
    """

    def __init__(self, teacher: nn.Module, temperature: float, alpha: float) -> None:
        self.teacher = teacher
        self.temperature = temperature
        self.alpha = alpha
        self._known: torch.Tensor | None = None

    @override
    def identity(self) -> dict[str, Any]:
        return {
            "procedure": "distillation",
            "version": 1,
            "teacher": state_checksum(self.teacher.state_dict(), type(self.teacher).__qualname__),
            "temperature": self.temperature,
            "alpha": self.alpha,
        }

    @override
    def begin(self, run: Run) -> None:
        """Compute the teacher's logits once if there is no augmentation."""
        self.teacher.to(run.device).eval()
        if run.recipe.augment == "none":
            everything = torch.arange(len(run.feed))
            self._known = torch.cat(
                [self._teach(run, run.feed.fetch(part)) for part in torch.split(everything, _BATCH)]
            )

    @override
    def loss(
        self, run: Run, logits: torch.Tensor, targets: torch.Tensor, batch: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Divergence times the squared temperature (Hinton et al., 2015), plus cross-entropy."""
        known = self._known
        teacher = self._teach(run, batch) if known is None else known[positions.to(known.device)]
        wanted = (teacher / self.temperature).softmax(dim=1)
        student = (logits / self.temperature).log_softmax(dim=1)
        loss = self.alpha * self.temperature**2 * functional.kl_div(student, wanted, reduction="batchmean")
        if self.alpha < 1:
            loss = loss + (1 - self.alpha) * losses.compute_batch_loss(logits, targets, run.recipe)
        return loss

    def _teach(self, run: Run, batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return run.forward(batch, self.teacher)


def _logits(network: nn.Module, fitting: Fitting, indices: NDArray[np.int64]) -> torch.Tensor:
    """Logits for records, N×K on the CPU, of a network in evaluation mode."""
    device = next(network.parameters()).device
    feed = Feed(fitting.images, indices, device)
    with torch.inference_mode():
        parts = [
            take_main_output(network(fitting.preprocessing(images))).cpu()
            for _, images in feed.batches(torch.split(torch.arange(len(feed)), _BATCH))
        ]
    return torch.cat(parts)
