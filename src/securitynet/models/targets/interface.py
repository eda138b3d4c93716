"""`Interface`: which part of the posteriors an API reveals; ``target.through(interface)`` is the target behind it.

The view is a `Target` like any other, so every black-box attack runs against it unchanged. Outputs are changed before
they leave the backend, so what is hidden stays hidden. **The class with the highest output is always the class that the
model predicts**: an API that rounds or truncates posteriors still reveals the label.
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

_LABEL_MARGIN = 2.0**-20
"""Added to the predicted class where rounding made others equal to it: a millionth."""


class Interface(Record, ABC):
    """Replaces the posteriors of a target by what an API reveals of them; its fields are its configuration.

    Class attributes:
        labels_only: Whether only predicted classes are revealed. Posteriors and logits are then refused.
    """

    labels_only: ClassVar[bool] = False

    @abstractmethod
    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        """Compute the outputs that are revealed for posteriors.

        Args:
            posteriors: N×K float32, rows summing to 1 (or, behind another interface, the outputs of that one).

        Returns:
            N×K, non-negative. Each row must depend on the same row of ``posteriors`` only, so that an output does not
            depend on the other images of the query.
        """

    @abstractmethod
    def describe(self) -> str:
        """Describe the interface in a few words, such as ``the 3 highest posteriors``."""

    @final
    def apply(self, posteriors: torch.Tensor, predicted: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the outputs that are revealed, and make sure that the highest of each row is the predicted class.

        Args:
            posteriors: N×K float32.
            predicted: Predicted classes, N int64. They are needed where posteriors are equal although the logits
                differ.

        Returns:
            N×K float32.
        """
        predicted = (posteriors.argmax(dim=1) if predicted is None else predicted).unsqueeze(1)
        changed = self.change(posteriors.float()).float()
        own = changed.gather(1, predicted)
        others = changed.scatter(1, predicted, -1.0).amax(dim=1, keepdim=True)
        return changed.scatter(1, predicted, torch.where(own > others, own, others + _LABEL_MARGIN))

    def canonical(self) -> dict[str, Any]:
        """Everything that determines the outputs, for identities."""
        return {"interface": type(self).__name__, **self.model_dump(mode="json")}

    @property
    def head(self) -> Head:
        """Kind of the outputs, for `securitynet.models.targets.heads`."""
        return "labels" if self.labels_only else "answers"

    def then(self, other: Interface) -> Chain:
        """Chain this interface with another one behind it."""
        return Chain(parts=(*_parts(self), *_parts(other)))


class TopK(Interface):
    """Reveals only the highest posteriors; the others are 0.

    Attributes:
        k: Number of posteriors that are revealed, at least 1.
        renormalise: Whether they are divided by their sum. By default they stay unchanged.
    """

    k: int = Field(default=3, ge=1, description="How many of the highest posteriors are revealed.")
    renormalise: bool = Field(default=False, description="Divide them by their sum.")

    @override
    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        highest = posteriors.topk(min(self.k, posteriors.shape[1]), dim=1)
        visible = torch.zeros_like(posteriors).scatter(1, highest.indices, highest.values)
        return visible / visible.sum(dim=1, keepdim=True).clamp_min(1e-30) if self.renormalise else visible

    @override
    def describe(self) -> str:
        which = "highest posterior" if self.k == 1 else f"{self.k} highest posteriors"
        return f"the {which}{', divided by their sum' if self.renormalise else ''}"


class Rounded(Interface):
    """Rounds posteriors to a number of decimal digits.

    Attributes:
        digits: Digits after the decimal point, 0 to 7.
    """

    digits: int = Field(default=1, ge=0, le=7, description="Digits after the decimal point.")

    @override
    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        return posteriors.double().round(decimals=self.digits).float()

    @override
    def describe(self) -> str:
        return f"posteriors rounded to {self.digits} digit{'' if self.digits == 1 else 's'}"


class Temperature(Interface):
    """Divides logits by a temperature before the softmax; a high temperature makes the posteriors more alike.

    Attributes:
        temperature: Divisor of the logits, above 0.
    """

    temperature: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="Divisor of the logits; values above 1 hide confidence."
    )

    @override
    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        # Posteriors determine the logits up to a constant per row, which the softmax removes again.
        return (heads.to_logits(posteriors, "probabilities").double() / self.temperature).softmax(dim=1).float()

    @override
    def describe(self) -> str:
        return f"posteriors at temperature {self.temperature:g}"


class LabelsOnly(Interface):
    """Reveals predicted classes only.

    Class attributes:
        labels_only: Always true.
    """

    labels_only: ClassVar[bool] = True

    @override
    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        """1 for the predicted class, 0 for the others."""
        return functional.one_hot(posteriors.argmax(dim=1), posteriors.shape[1]).float()

    @override
    def describe(self) -> str:
        return "labels only"


class Chain(Interface):
    """Applies several interfaces in sequence.

    Attributes:
        parts: The interfaces, in the order in which posteriors pass through them.
    """

    parts: tuple[SerializeAsAny[Interface], ...] = Field(min_length=1)

    @property
    def labels_hide_all(self) -> bool:
        """Whether one of the interfaces reveals labels only."""
        return any(part.head == "labels" for part in self.parts)

    @property
    @override
    def head(self) -> Head:
        return "labels" if self.labels_hide_all else "answers"

    @override
    def change(self, posteriors: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            posteriors = part.apply(posteriors)
        # Interfaces after the labels must not change them.
        return LabelsOnly().change(posteriors) if self.labels_hide_all else posteriors

    @override
    def canonical(self) -> dict[str, Any]:
        return {"interface": "Chain", "parts": [part.canonical() for part in self.parts]}

    @override
    def describe(self) -> str:
        return ", then ".join(part.describe() for part in self.parts)


def _parts(interface: Interface) -> tuple[Interface, ...]:
    return interface.parts if isinstance(interface, Chain) else (interface,)
