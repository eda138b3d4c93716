"""BREP-MI: a GAN's latent vectors are moved into the middle of each class, by predicted labels alone.

Kahla et al., "Label-only model inversion attacks via boundary repulsion" (2022). It needs no posteriors and no weights,
so it also applies to interfaces that return labels only. Every image that is classified counts as a query.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import torch
from pydantic import Field
from typing_extensions import override

from securitynet.attacks.inversion._attacked_classes import AttackedClasses
from securitynet.attacks.inversion._generative import GenerativeAttack, generate
from securitynet.attacks.inversion._repulsion import WalkRules, advance_walk, start_walk
from securitynet.attacks.inversion._search import InversionResult, InversionSearch, Tensors, identify_search
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.oracle import Oracle
from securitynet.records import Access, Auxiliary, Queries, ThreatModel


class BoundaryRepulsion(GenerativeAttack):
    """Starts from random images of the class and moves away from its boundary.

    The paper grows the sphere when all of its points lie in the class; ``inside`` relaxes that (the authors' program
    uses 0.75). A class of which no random image is found is not attacked: the result is a random image of the GAN.

    Attributes:
        points: Points on each sphere, N in the paper.
        radius: First radius of the spheres, R₀.
        expansion: Growth of the radius, γ.
        inside: Share of a sphere's points that must lie in the class for the sphere to grow.
        patience: Steps without growth after which a reconstruction stops.
        rounds: Largest number of steps.
        draws: Random images to find the first one of a class, at most, for each class.
        clip: The latent vector is clipped to [−clip, clip].
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.SHADOW),
    )
    costs: ClassVar[str | None] = "trains a GAN and an evaluation classifier, and queries tens of thousands of images"
    needs_gradient: ClassVar[bool] = False

    restarts: int = Field(default=1, ge=1, description="Reconstructions of each class.")
    points: int = Field(default=32, ge=1, description="Points on each sphere.")
    radius: float = Field(default=2.0, gt=0, allow_inf_nan=False, description="First radius of the spheres.")
    expansion: float = Field(default=1.3, gt=1, allow_inf_nan=False, description="Growth of the radius.")
    inside: float = Field(default=1.0, gt=0, le=1, description="Share of points in the class at which a sphere grows.")
    patience: int = Field(default=100, ge=1, description="Steps without growth after which a reconstruction stops.")
    rounds: int = Field(default=1000, ge=1, description="Steps at most.")
    draws: int = Field(default=2000, ge=1, description="Random images to find the first of a class, at most.")
    clip: float = Field(default=1.5, gt=0, description="The latent vector is clipped to [-clip, clip].")

    @override
    def search(self, attacked: AttackedClasses, data: TrialData, context: Context) -> InversionSearch:
        gan = self.obtain(attacked, data, context)
        target, classes = attacked.target, attacked.classes
        rules = WalkRules(
            points=self.points,
            radius=self.radius,
            expansion=self.expansion,
            inside=self.inside,
            patience=self.patience,
            draws=self.draws,
            clip=self.clip,
            seed=context.seed,
        )

        def query(oracle: Oracle, codes: torch.Tensor) -> torch.Tensor:
            seen = []
            for part in torch.split(codes, attacked.part):
                # Queries are 8-bit images: what the adversary can send.
                pixels = (generate(gan, part, attacked.part).clamp(0, 1) * 255).round().to(torch.uint8)
                seen.append(oracle.labels(pixels))
            return torch.cat(seen)

        def counted(oracle: Oracle) -> torch.Tensor:
            return torch.tensor([oracle.queries.total, oracle.queries.unique], dtype=torch.int64)

        # Each step has an oracle of its own, so that the count does not depend on where an interrupted search goes on.
        def start() -> Tensors:
            oracle = Oracle(target)
            state = start_walk(functools.partial(query, oracle), classes, gan.latent, rules, attacked.device)
            return {**state, "queries": counted(oracle)}

        def advance(state: Tensors, step: int) -> bool:
            oracle = Oracle(target)
            more = advance_walk(state, step, functools.partial(query, oracle), classes, rules)
            state["queries"] = state["queries"].cpu() + counted(oracle)
            return more

        def finish(state: Tensors) -> InversionResult:
            total, unique = (int(number) for number in state["queries"])
            context.extra_queries.append(Queries(total=total, unique=unique))
            absent = int((state["radius"] == 0).sum())
            note = (
                f"For {absent} of {len(classes)} reconstructions no random image of the class was found to start from; "
                "they are random images."
            )
            images = generate(gan, state["codes"], attacked.part)
            return InversionResult(images, state["steps"].cpu().numpy(), (note,) if absent else ())

        def restore(saved: Tensors) -> Tensors:
            return {**saved, "codes": saved["codes"].to(attacked.device)}  # a new start would cost queries again

        configuration = self.model_dump(mode="json", exclude={"evaluator", "references", "classes", "gan", "prior"})
        known = identify_search(attacked, "boundary-repulsion", {**configuration, "gan": gan.key}, context.seed)
        return InversionSearch(known, start, advance, self.rounds, finish, restore)
