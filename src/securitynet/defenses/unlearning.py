"""Unlearning: a trained model is trained further on images with the reconstructed trigger and correct labels."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from typing_extensions import override

from securitynet.defenses._repair import RepairDefense, RepairTask, fine_tune
from securitynet.errors import ConfigurationError


class Unlearning(RepairDefense):
    """Fine-tunes on clean images, some of which carry a trigger that a search reconstructed from the model.

    Wang et al., "Neural Cleanse" (2019), section VI-C: a share of 20% with the trigger and one epoch. That trigger is
    the one of the flagged class; here all that the search found are used in turn, so that several target classes are
    covered, and a wrong guess of the class does no harm. A trigger that the search did not find is not unlearned.

    Attributes:
        epochs: Passes over the clean images.
        share: Share of the images that carry a trigger.
        learning_rate: First learning rate; one that breaks the network is divided by three.
        batch_size: Images per step.
    """

    needs_triggers: ClassVar[bool] = True

    epochs: int = Field(default=40, ge=1, description="Passes over the clean images.")
    share: float = Field(default=0.5, gt=0, le=1, description="Share of the images that carry a trigger (paper: 0.2).")
    learning_rate: float = Field(default=0.05, gt=0, allow_inf_nan=False, description="First learning rate.")
    batch_size: int = Field(default=64, ge=1, description="Images per step.")

    @override
    def repair(self, task: RepairTask) -> tuple[str, ...]:
        if not task.triggers:
            raise ConfigurationError(
                "No trigger could be reconstructed from this model, so there is none to unlearn.",
                hint="Choose a defense that needs none: i-bau, fine-pruning or anp.",
            )

        def add_triggers(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
            changed = images.clone()
            chosen = torch.rand(len(images), generator=random) < self.share
            which = torch.randint(len(task.triggers), (len(images),), generator=random)
            for number, trigger in enumerate(task.triggers):
                rows = torch.nonzero(chosen & (which == number)).flatten().to(images.device)
                if len(rows):
                    changed[rows] = trigger.apply(images[rows])
            return changed

        fine_tune(
            task,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            change=add_triggers,
        )
        labels = ", ".join(str(trigger.label) for trigger in task.triggers)
        return (f"Unlearned the reconstructed triggers of the classes {labels}.",)
