"""Stealing in rounds: what was answered so far decides what is asked next.

Rounds double what is known: a first random part, then as many images again, and so on. A surrogate is trained from
fresh weights on what is known after each round, and the next images are chosen with it. As the rounds depend on no
budget, a smaller budget's images are the first of a larger one's; and choosing costs at most about as much training as
the surrogate of the largest budget.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from securitynet.attacks.stealing._pool import Pool, pool_of
from securitynet.attacks.stealing.base import POOLS, STORE, Answered, Answers, StealingAttack, ask_about
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.store.cached_model import ModelSpec, obtain_model
from securitynet.models.targets.signals import Signals, collect
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.records import ThreatModel


@dataclass(eq=False)
class Known:
    """What was asked and answered so far.

    Attributes:
        pool: Images that may be asked about.
        target: Behind the declared interface.
        context: For the bill.
        records: Asked so far, in order.
        answers: Theirs, one array a batch of questions.
        classes: K; 0 before the first answer.
        memory: What a strategy learned in earlier rounds.
    """

    pool: Pool
    target: Target
    context: Context
    records: list[NDArray[np.int64]] = field(default_factory=list)
    answers: list[Answers] = field(default_factory=list)
    classes: int = 0
    memory: dict[str, Any] = field(default_factory=dict)

    def ask(self, records: NDArray[np.int64]) -> Answers:
        """Ask about further records."""
        answers, self.classes = ask_about(self.target, self.pool, records, self.context)
        self.records.append(records)
        self.answers.append(answers)
        return answers

    @property
    def count(self) -> int:
        """How many were asked."""
        return sum(map(len, self.records))

    def rest(self) -> NDArray[np.int64]:
        """Records that were not asked, in the pool's order."""
        asked = np.concatenate(self.records) if self.records else np.empty(0, dtype=np.int64)
        return self.pool.records[~np.isin(self.pool.records, asked)]

    def joined(self) -> Answered:
        """Everything that is known."""
        return Answered(self.pool.dataset, np.concatenate(self.records), joined(self.answers), self.classes)


def joined(answers: list[Answers]) -> Answers:
    """Answers of several questions, which are all of one kind."""
    return cast(Answers, np.concatenate(answers))


class ActiveStealing(StealingAttack):
    """A stealing attack that chooses its questions.

    Subclasses say how in `choose`.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = POOLS
    protocol: ClassVar[Recipe] = Recipe(epochs=30, learning_rate=1e-2, schedule="constant")
    costs: ClassVar[str | None] = "trains a surrogate network after each round of questions"

    first: int = Field(default=256, ge=2, description="Random images that are asked about first.")
    selection_epochs: int = Field(
        default=10, ge=1, description="Epochs of the surrogates with which the next images are chosen."
    )

    @abstractmethod
    def choose(self, known: Known, selector: Target, number: int) -> None:
        """Ask about ``number`` further records of ``known.pool``, chosen with a surrogate of what is known.

        The order must not depend on ``number``: fewer would be the first of these.
        """

    def check_answers(self, target: Target) -> None:
        """Raise `AccessDenied` if the interface hides what the strategy needs."""

    def ask(self, target: Target, data: TrialData, context: Context) -> Answered:
        """See `StealingAttack.ask`."""
        self.check_answers(target)
        pool = pool_of(data, context, None, missing_classes=self.missing_classes)
        most = max(self.budgets, default=len(pool.records))
        if most > len(pool.records):
            # The pool is taken whole, to choose from; so that it says how large it is.
            pool_of(data, context, most, missing_classes=self.missing_classes)
        architecture, size, _ = self.blueprint(target, data.trained)
        recipe = self.training(target, context)
        known = Known(pool, target, context)
        known.ask(pool.records[: min(self.first, most)])
        while known.count < most:
            selector = self._selector(known, architecture, size, recipe, context)
            self.choose(known, selector, min(known.count, most - known.count))
        return known.joined()

    def _selector(self, known: Known, architecture: str, size: int | None, recipe: Recipe, context: Context) -> Target:
        so_far = known.joined()
        epochs = min(self.selection_epochs, recipe.epochs)
        spec = ModelSpec(
            so_far.dataset,
            so_far.indices,
            so_far.answers,
            so_far.classes,
            architecture,
            recipe.model_copy(update={"epochs": epochs}),
            size,
        )
        return obtain_model(spec, kind=STORE, cache=context.cache, device=context.device).target


def outputs_of(selector: Target, pool: Pool, records: NDArray[np.int64]) -> Signals:
    """A surrogate's outputs for records of the pool; they are cheap, so they are not kept."""
    return collect(selector, pool.dataset, records, same_classes=False)


def embeddings_of(selector: Target, pool: Pool, records: NDArray[np.int64]) -> torch.Tensor:
    """A surrogate's embeddings of records of the pool, N×D float32."""
    batches = pool.dataset.batches(records, selector.batch_size)
    return torch.cat([selector.embeddings(images) for _, images in batches])
