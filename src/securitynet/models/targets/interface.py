"""`Interface`: what an API gives away of the posteriors. ``target.through(interface)`` is the target seen that way.

The view is a `Target` like any other, so that every black-box attack runs against it unchanged, and what is hidden is
hidden: answers are changed before they leave the backend. **The class with the highest answer is always the class that
the model predicts**: an API that rounds or cuts posteriors tells the label all the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, final

import torch
from pydantic import Field, SerializeAsAny
from torch.nn import functional
from typing_extensions import override

from securitynet.models.targets import heads
from securitynet.models.targets.heads import Head
from securitynet.records import Record

_TOLD_LABEL = 2.0**-20
"""What the predicted class is given on top where rounding made others equal to it: a millionth."""


class Interface(Record, ABC):
    """What is answered in place of the posteriors; its fields are its configuration.

    Class attributes:
        labels_only: Whether predicted classes are all that is answered. Posteriors and logits are then refused.
    """

    labels_only: ClassVar[bool] = False

    @abstractmethod
    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        """What is answered for posteriors.

        Args:
            posteriors: N×K float32, rows summing to 1 (or, behind another interface, what that answers).

        Returns:
            N×K, not negative. Each row must follow from the same row alone, so that an answer does not depend on what
            else was asked.
        """

    @abstractmethod
    def describe(self) -> str:
        """In words, such as ``the 3 highest posteriors``."""

    @final
    def answers(self, posteriors: torch.Tensor, predicted: torch.Tensor | None = None) -> torch.Tensor:
        """What is answered for posteriors: N×K float32, of which the highest of each row is the predicted class.

        Args:
            posteriors: N×K.
            predicted: Predicted classes, N, where posteriors may be equal that logits tell apart.
        """
        predicted = (posteriors.argmax(dim=1) if predicted is None else predicted).unsqueeze(1)
        changed = self.change(posteriors.float()).float()
        own = changed.gather(1, predicted)
        others = changed.scatter(1, predicted, -1.0).amax(dim=1, keepdim=True)
        return changed.scatter(1, predicted, torch.where(own > others, own, others + _TOLD_LABEL))

    def canonical(self) -> dict[str, Any]:
        """All that decides the answers, for identities."""
        return {"interface": type(self).__name__, **self.model_dump(mode="json")}

    @property
    def head(self) -> Head:
        """What answers are, for `securitynet.models.targets.heads`."""
        return "labels" if self.labels_only else "answers"

    def then(self, other: Interface) -> Chain:
        """This interface, and another one behind it."""
        return Chain(parts=(*_parts(self), *_parts(other)))


class TopK(Interface):
    """Only the highest posteriors are answered; the others are 0.

    Attributes:
        k: How many.
        renormalise: Whether they are divided by their sum. By default they stay what they are.
    """

    k: int = Field(default=3, ge=1, description="How many of the highest posteriors are answered.")
    renormalise: bool = Field(default=False, description="Divide them by their sum.")

    @override
    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        highest = posteriors.topk(min(self.k, posteriors.shape[1]), dim=1)
        kept = torch.zeros_like(posteriors).scatter(1, highest.indices, highest.values)
        return kept / kept.sum(dim=1, keepdim=True).clamp_min(1e-30) if self.renormalise else kept

    @override
    def describe(self) -> str:
        which = "highest posterior" if self.k == 1 else f"{self.k} highest posteriors"
        return f"the {which}{', divided by their sum' if self.renormalise else ''}"


class Rounded(Interface):
    """Posteriors are rounded to some decimal digits."""

    digits: int = Field(default=1, ge=0, le=7, description="Digits after the decimal point.")

    @override
    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        return posteriors.double().round(decimals=self.digits).float()

    @override
    def describe(self) -> str:
        return f"posteriors rounded to {self.digits} digit{'' if self.digits == 1 else 's'}"


class Temperature(Interface):
    """Posteriors of logits that were divided by a temperature: a high one makes them alike."""

    temperature: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="What logits are divided by; above 1 hides confidence."
    )

    @override
    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        # Posteriors tell the logits up to a constant per row, which the softmax removes again.
        return (heads.to_logits(posteriors, "probabilities").double() / self.temperature).softmax(dim=1).float()

    @override
    def describe(self) -> str:
        return f"posteriors at temperature {self.temperature:g}"


class LabelsOnly(Interface):
    """Predicted classes, and nothing else."""

    labels_only: ClassVar[bool] = True

    @override
    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        """1 for the predicted class."""
        return functional.one_hot(posteriors.argmax(dim=1), posteriors.shape[1]).float()

    @override
    def describe(self) -> str:
        return "labels only"


class Chain(Interface):
    """Several interfaces, one behind the other.

    Attributes:
        parts: In the order in which posteriors pass them.
    """

    parts: tuple[SerializeAsAny[Interface], ...] = Field(min_length=1)

    @property
    def labels_hide_all(self) -> bool:
        """Whether one of its parts answers labels only."""
        return any(part.head == "labels" for part in self.parts)

    @property
    @override
    def head(self) -> Head:
        return "labels" if self.labels_hide_all else "answers"

    @override
    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            posteriors = part.answers(posteriors)
        # What comes after labels must not make them look like anything else.
        return LabelsOnly().change(posteriors) if self.labels_hide_all else posteriors

    @override
    def canonical(self) -> dict[str, Any]:
        return {"interface": "Chain", "parts": [part.canonical() for part in self.parts]}

    @override
    def describe(self) -> str:
        return ", then ".join(part.describe() for part in self.parts)


def _parts(interface: Interface) -> tuple[Interface, ...]:
    return interface.parts if isinstance(interface, Chain) else (interface,)
