"""Data-free stealing: a generator creates the images that the target is queried with.

After Beetham et al., "Dual student networks for data-free model stealing" (2023): the generator searches for images on
which two students of the target disagree. The surrogate is then trained on all queries, from fresh weights.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.stealing._generator import GeneratorSettings, Searcher
from securitynet.attacks.stealing._pool import wrap_images
from securitynet.attacks.stealing.base import QueryResult, StealingAttack
from securitynet.files import hash_stably
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.trainable import find_architecture
from securitynet.records import Access, Auxiliary, ThreatModel

DEFAULT_QUERIES = 20_000

_SHOWN = 8


class DataFreeStealing(StealingAttack):
    """Stealing by an adversary who knows only the shape of the images."""

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.NONE),)
    costs: ClassVar[str | None] = "trains a generator and surrogate networks, with many queries"
    protocol: ClassVar[Recipe] = Recipe(epochs=30, learning_rate=1e-2, schedule="constant")

    students: str = Field(default="simple-cnn", description="Architecture of the two students; small ones suffice.")
    batch: int = Field(default=128, ge=2, description="Images queried per round.")
    student_steps: int = Field(default=10, ge=1, description="Steps of the students between two batches.")
    generator_steps: int = Field(default=3, ge=1, description="Steps of the generator between two batches.")
    balance: float = Field(
        default=1.0, ge=0, description="Weight of the balance of classes in the generator's objective."
    )
    learning_rate: float = Field(
        default=1e-3, gt=0, allow_inf_nan=False, description="Learning rate of generator and students (Adam)."
    )

    @override
    def query_images(self, target: Target, data: TrialData, context: Context) -> QueryResult:
        student = find_architecture(self.students)
        search = GeneratorSettings(
            max(self.budgets, default=DEFAULT_QUERIES),
            self.batch,
            student.reference,
            self.student_steps,
            self.generator_steps,
            self.balance,
            self.learning_rate,
        )
        shape = data.dataset.image_shape
        fingerprint = hash_stably(
            {
                "version": 1,
                "target": target.identity.model_dump(mode="json", exclude={"reference"}),
                "precision": target.precision,
                "shape": list(shape),
                "search": vars(search),
                "seed": context.seed,
                **({"students": student.version} if student.version else {}),
            }
        )
        folder = None if context.cache is None else context.cache / "made-up" / fingerprint
        searcher = Searcher(
            target,
            shape,
            search,
            context.seed,
            context.device,
            folder,
            fingerprint,
            context.extra_queries,
            context.progress,
        )
        result = searcher.run()
        indices = np.arange(len(result.images), dtype=np.int64)
        dataset = wrap_images(result.images, "made-up images")
        return QueryResult(dataset, indices, result.outputs.numpy(), result.classes)

    def pictures(self, queried: QueryResult) -> NDArray[np.uint8]:
        """Return some of the generated images from each eighth of the queries."""
        rows = min(_SHOWN, len(queried.indices) // _SHOWN)
        if rows == 0:
            return super().pictures(queried)
        starts = np.linspace(0, len(queried.indices) - _SHOWN, rows).round().astype(np.int64)
        chosen = (starts[:, None] + np.arange(_SHOWN)).ravel()
        images = queried.dataset.batch(chosen).numpy()
        return np.asarray(images.reshape(rows, _SHOWN, *images.shape[1:]), dtype=np.uint8)
