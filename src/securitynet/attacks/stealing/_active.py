"""Active stealing: the outputs so far decide which images are queried next.

Each round doubles the number of queried images, starting with a random sample. After each round, a surrogate is trained
from fresh weights on everything queried so far, and the next images are chosen with it. The rounds do not depend on the
budget, so the images of a smaller budget are a prefix of those of a larger one; and the selection takes at most about
as much training as the surrogate of the largest budget.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.stealing._pool import Pool, make_pool
from securitynet.attacks.stealing.base import POOLS, STORE, QueryResult, StealingAttack, TargetOutputs, query_records
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.store.cached_model import ModelSpec, obtain_model
from securitynet.models.targets.signals import Signals, collect_signals
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.records import ThreatModel


@dataclass(eq=False)
class Known:
    """The queries so far and their outputs.

    Attributes:
        pool: Images that may be queried.
        target: The target behind the declared interface.
        context: Cache and query count.
        records: Records queried so far, in order, one array per batch.
        outputs: Outputs for them, one array per batch.
        classes: Number of classes, K; 0 before the first query.
        memory: State that a strategy keeps between rounds.
    """

    pool: Pool
    target: Target
    context: Context
    records: list[NDArray[np.int64]] = field(default_factory=list)
    outputs: list[TargetOutputs] = field(default_factory=list)
    classes: int = 0
    memory: dict[str, Any] = field(default_factory=dict)

    def query(self, records: NDArray[np.int64]) -> TargetOutputs:
        """Query the target with further records, and return its outputs."""
        outputs, self.classes = query_records(self.target, self.pool, records, self.context)
        self.records.append(records)
        self.outputs.append(outputs)
        return outputs

    @property
    def count(self) -> int:
        """Number of records queried so far."""
        return sum(map(len, self.records))

    def rest(self) -> NDArray[np.int64]:
        """Return the records that have not been queried, in the order of the pool."""
        queried = np.concatenate(self.records) if self.records else np.empty(0, dtype=np.int64)
        return self.pool.records[~np.isin(self.pool.records, queried)]

    def joined(self) -> QueryResult:
        """Return all queries so far as one result."""
        return QueryResult(self.pool.dataset, np.concatenate(self.records), join_outputs(self.outputs), self.classes)


def join_outputs(outputs: list[TargetOutputs]) -> TargetOutputs:
    """Concatenate the outputs of several batches of queries."""
    return cast(TargetOutputs, np.concatenate(outputs))


class ActiveStealing(StealingAttack):
    """A stealing attack that chooses its queries; subclasses implement `choose`."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = POOLS
    protocol: ClassVar[Recipe] = Recipe(epochs=30, learning_rate=1e-2, schedule="constant")
    costs: ClassVar[str | None] = "trains a surrogate network after each round of queries"

    first: int = Field(default=256, ge=2, description="Random images that are queried first.")
    selection_epochs: int = Field(
        default=10, ge=1, description="Epochs of the surrogates with which the next images are chosen."
    )

    @abstractmethod
    def choose(self, known: Known, selector: Target, number: int) -> None:
        """Query ``number`` further records of ``known.pool``, chosen with a surrogate.

        The order of the records must not depend on ``number``: a smaller number must give a prefix.

        Args:
            known: The queries so far.
            selector: A surrogate trained on them.
            number: Number of records to query.
        """

    def check_interface(self, target: Target) -> None:
        """Raise `AccessDenied` if the interface hides something that the strategy needs."""

    @override
    def query_images(self, target: Target, data: TrialData, context: Context) -> QueryResult:
        self.check_interface(target)
        pool = make_pool(data, context, None, missing_classes=self.missing_classes)
        most = max(self.budgets, default=len(pool.records))
        if most > len(pool.records):
            # The pool is loaded in full to choose from it, so a budget above its size must be refused separately.
            make_pool(data, context, most, missing_classes=self.missing_classes)
        architecture, size, _ = self.blueprint(target, data.trained)
        recipe = self.training(target, context)
        known = Known(pool, target, context)
        known.query(pool.records[: min(self.first, most)])
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
            so_far.outputs,
            so_far.classes,
            architecture,
            recipe.model_copy(update={"epochs": epochs}),
            size,
        )
        return obtain_model(spec, kind=STORE, cache=context.cache, device=context.device).target


def compute_outputs(selector: Target, pool: Pool, records: NDArray[np.int64]) -> Signals:
    """Compute a surrogate's outputs for records of the pool; they are cheap, so they are not cached.

    Args:
        selector: The surrogate.
        pool: Images that may be queried.
        records: Positions in the pool, n.
    """
    return collect_signals(selector, pool.dataset, records, same_classes=False)


def compute_embeddings(selector: Target, pool: Pool, records: NDArray[np.int64]) -> torch.Tensor:
    """Compute a surrogate's embeddings of records of the pool, N×D float32.

    Args:
        selector: The surrogate.
        pool: Images that may be queried.
        records: Positions in the pool, N.
    """
    batches = pool.dataset.batches(records, selector.batch_size)
    return torch.cat([selector.embeddings(images) for _, images in batches])
