"""Neural Cleanse: find the smallest trigger of each class; a class with a far smaller one is suspect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from typing_extensions import override

from securitynet.datasets.ordering import shuffle
from securitynet.detectors._neural_cleanse.announcement import announce_search
from securitynet.detectors._neural_cleanse.costs import CostRules
from securitynet.detectors._neural_cleanse.fresh_images import compute_success, count_hits
from securitynet.detectors._neural_cleanse.label_search import SearchPlan, SearchResult, search_labels
from securitynet.detectors._neural_cleanse.trigger_search import SearchRules
from securitynet.detectors._neural_cleanse.triggers import MOST_PICTURES, Triggers
from securitynet.detectors.base import Detector, list_clean_images
from securitynet.devices import uses_bfloat16
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.metrics import detection, trigger_norms
from securitynet.models.shadows.plan import choose_shadow_defense, find_own_architecture
from securitynet.models.shadows.store import specify_shadow, train_shadows
from securitynet.models.store.training_cost import check_training_cost
from securitynet.models.targets.target import Target
from securitynet.models.training.poisoned_dataset import BackdoorRecord
from securitynet.randomness import derive_seed
from securitynet.records import Access, Auxiliary, ThreatModel

RESTARTS = 3
"""Starting points by default; trial ids leave them out then."""

LONGER = 4
"""How many times as long labels are searched at most whose norms have not settled."""

FRESH_SHARE = 0.2
"""Least share of the known images that the search leaves for trying its triggers."""

MOST_FRESH = 500
"""Most images on which triggers are tried."""


class NeuralCleanse(Detector):
    """Find, for each class, the smallest trigger that sends 99% of all images to it, and judge the norms.

    Wang et al., "Neural Cleanse: identifying and mitigating backdoor attacks in neural networks" (2019); SecurityNet,
    sections 3.3 and 4.3. The paper's rule (`securitynet.metrics.low_outliers.compute_anomaly_indices`), a test whose
    false-positive rate is known (`securitynet.metrics.outlier_blocks`), the success of the triggers on fresh images
    and, on request, clean models to compare with are combined into one verdict
    (`securitynet.metrics.backdoor_verdict`).

    The images are records that the defender knows and the model was not trained on. Most are used for the search; the
    others, or at least a fifth, are the fresh images.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = Triggers
    trains_like_target: ClassVar[bool] = True
    costs: ClassVar[str | None] = "optimises a trigger for each class, which takes thousands of passes of the target"
    version: ClassVar[int] = 3  # labels whose norms have not settled are searched on

    preset: Literal["paper", "original"] = Field(
        default="paper", description="paper: 50 epochs; original: 1,000 with early stopping, as for GTSRB."
    )
    epochs: int | None = Field(default=None, ge=1, description="Passes over the images; the preset's by default.")
    longest: int | None = Field(
        default=None,
        ge=1,
        description="Passes for labels whose norms have not settled; four times as many by default.",
    )
    images: int = Field(default=1000, ge=1, description="Clean images; fewer if fewer are known.")
    batch_size: int = Field(default=32, ge=1, description="Images in a step.")
    learning_rate: float = Field(default=0.1, gt=0, allow_inf_nan=False, description="Learning rate of Adam.")
    initial_cost: float = Field(
        default=1e-3, gt=0, allow_inf_nan=False, description="First weight of the mask's norm in the loss."
    )
    success: float = Field(default=0.99, gt=0, le=1, description="Least share of images for a trigger to work.")
    patience: int = Field(
        default=5, ge=1, description="Epochs of success, or of failure, in a row after which the weight changes."
    )
    multiplier: float = Field(default=2.0, gt=1, allow_inf_nan=False, description="Factor of the weight after success.")
    stop_ratio: float = Field(
        default=1.0, gt=0, le=1, description="A norm of at least this share of the best one so far is no progress."
    )
    stop_patience: int | None = Field(
        default=None, ge=1, description="Epochs without progress that end a label's search; default: the preset's."
    )
    restarts: int = Field(
        default=RESTARTS,
        ge=1,
        description="Starting points from which every label is searched; its norm is the smallest of them.",
    )
    repeats: int = Field(default=1, ge=1, description="Multiplies the starting points.")
    reference: int = Field(
        default=0, ge=0, description="Clean models, trained like the target, to compare with; 19 resolve 5%."
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        default="fp32",
        description="Precision of the network's passes; auto: bf16 where that is faster. With bf16, labels that stand "
        "out are searched again in fp32.",
    )
    light: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="Share of the epochs, the first ones, in which a step takes a quarter of its images; norms come "
        "from the other epochs. 0.7 halves the time.",
    )
    screen_above: int = Field(
        default=100, ge=8, description="With more classes than this, all get a short search, and only some a full one."
    )
    screen_epochs: int = Field(default=10, ge=1, description="Epochs of the short search.")
    screen_lowest: int = Field(
        default=16, ge=1, description="Classes with the lowest norms in the short search that are searched in full."
    )
    screen_sample: int = Field(default=40, ge=8, description="Classes drawn at random that are searched in full.")

    @model_serializer(mode="wrap")
    def _without_newer_settings(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Trial ids are older than these settings.
        values: dict[str, Any] = serialize(self)
        if self.restarts == RESTARTS:
            values.pop("restarts", None)
        if self.longest is None:
            values.pop("longest", None)
        return values

    @property
    def cost_rules(self) -> CostRules:
        """The schedule of the norm's weight."""
        stop = self.stop_patience
        if stop is None and self.preset == "original":
            stop = 5 * self.patience
        return CostRules(
            initial=self.initial_cost,
            threshold=self.success,
            patience=self.patience,
            multiplier=self.multiplier,
            stop_ratio=self.stop_ratio,
            stop_patience=stop,
        )

    @property
    def passes(self) -> int:
        """Epochs of a full search."""
        return self.epochs or {"paper": 50, "original": 1000}[self.preset]

    @property
    def most_passes(self) -> int:
        """Epochs of the search of a label whose norm does not settle."""
        return max(self.passes, self.longest or LONGER * self.passes)

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> Triggers:
        known = list_clean_images(data)
        if self.reference and data.trained is None:
            raise ConfigurationError(
                "Clean models to compare with are trained as the target was, and that is not known.",
                hint="Leave reference out, or assess weights that `securitynet train` wrote.",
            )
        ordered = known[shuffle(len(known), "neural-cleanse", context.seed)]
        searched = min(self.images, max(1, int((1 - FRESH_SHARE) * len(ordered))))
        chosen, fresh = np.sort(ordered[:searched]), np.sort(ordered[searched:][:MOST_FRESH])
        pixels = data.dataset.batch(chosen)
        classes = self._count_classes(target, pixels)
        plan = SearchPlan(
            classes=classes,
            epochs=self.passes,
            longest=self.most_passes,
            screen_epochs=self.screen_epochs if classes > self.screen_above else None,
            lowest=self.screen_lowest,
            sample=_random_labels(classes, self.screen_sample + 1, context.seed),
        )
        starts = self.restarts * self.repeats
        announce_search(target, pixels, plan, starts)
        results = [
            self._search_from(target, data, chosen, pixels, plan, context, number, starts) for number in range(starts)
        ]
        output = _try_on_fresh(_collect(results, plan, data, chosen), target, data, fresh)
        if not self.reference:
            return output
        again = plan.restrict(output.labels.tolist())
        quiet, norms, transfer = replace(context, progress=None), [], []
        for model in self._clean_models(target, data, context):
            norms.append(self._search_from(model, data, chosen, pixels, again, quiet, 0, 1).norms)
            transfer.append(_measure_transfer(output, model, data, fresh))
        return replace(output, reference=np.stack(norms), transfer=np.stack(transfer))

    def _clean_models(self, target: Target, data: TrialData, context: Context) -> Iterator[Target]:
        """Models trained like the target on records that are known not to have trained it, as many as it had."""
        trained, parts = data.trained, data.splits
        assert trained is not None  # checked by `run`
        architecture = find_own_architecture(target, trained)
        assert architecture is not None  # the record names one
        defense = choose_shadow_defense(trained, data.defense)
        pool = np.unique(np.concatenate([parts.shadow_train, parts.shadow_test, parts.known_non_members]))
        count = min(len(parts.members), len(pool))
        specs = []
        for number in range(self.reference):
            rows = np.sort(pool[shuffle(len(pool), "neural-cleanse reference", context.seed, number)[:count]])
            seed = derive_seed(context.seed, "neural-cleanse reference", number)
            recipe = trained.recipe.model_copy(update={"seed": seed})
            specs.append(specify_shadow(data.dataset, rows, architecture.reference, recipe, defense))
        check_training_cost(specs, kind="shadows", cache=context.cache, device=context.device)
        for number, shadow in enumerate(train_shadows(specs, cache=context.cache, device=context.device)):
            if context.progress:
                context.progress(number + 1, self.reference)
            yield shadow.target

    def _count_classes(self, target: Target, pixels: torch.Tensor) -> int:
        """The number of labels of the target, from its outputs for one image."""
        with torch.inference_mode():
            outputs = target.module(pixels[:1].to(target.backend.device))
        classes = int(outputs.shape[1])
        if classes < 2:
            raise ConfigurationError(f"{target.reference} has {classes} class, so no trigger can change its output.")
        return classes

    def _search_from(
        self,
        target: Target,
        data: TrialData,
        chosen: NDArray[np.int64],
        pixels: torch.Tensor,
        plan: SearchPlan,
        context: Context,
        number: int,
        starts: int,
    ) -> SearchResult:
        """Search from one of several starting points; verified in fp32 where it was done in bf16."""

        def report_progress(share: float) -> None:
            if context.progress:
                context.progress(round(1000 * (number + share) / starts), 1000)

        seed = derive_seed(context.seed, "neural-cleanse", number)
        key = {"dataset": data.dataset.fingerprint, "images": chosen.tolist()}
        return self.search(target, pixels.to(target.backend.device), plan, seed, key, context.cache, report_progress)

    def search(
        self,
        target: Target,
        images: torch.Tensor,
        plan: SearchPlan,
        seed: int = 0,
        key: dict[str, Any] | None = None,
        cache: Path | None = None,
        report_progress: Callable[[float], None] = lambda share: None,
    ) -> SearchResult:
        """Search the labels of a plan from one starting point; verified in fp32 where it was done in bf16.

        Args:
            target: The target, under white-box access.
            images: S×C×H×W uint8, on the target's device.
            plan: The labels, and the epochs that each of them gets.
            seed: Seed of the starting points and of the order of the images.
            key: JSON that stands for the images, for checkpoints.
            cache: Folder for checkpoints; None writes none.
            report_progress: Called with the share of the work that is done, in [0, 1].
        """
        rules = SearchRules(self.cost_rules, self.learning_rate, self.batch_size, seed, int(self.light * plan.epochs))
        key = key or {}
        half = uses_bfloat16(self.precision, target.backend.device)
        fast = _in_precision(target, "bf16") if half else target
        result = search_labels(fast, images, plan, rules, key, cache, report_progress)
        failed = result.labels[np.isinf(result.norms)].tolist() if rules.light_epochs else []
        if failed:  # perhaps because fewer of the epochs count
            again, full = plan.restrict(failed), replace(rules, light_epochs=0)
            result.replace(search_labels(fast, images, again, full, key, cache, report_progress))
        if fast.precision == "fp32":
            return result
        while doubtful := result.unverified(_list_decisive(result, plan)):
            again, exact = plan.restrict(doubtful), _in_precision(target, "fp32")
            result.replace(search_labels(exact, images, again, rules, key, cache, report_progress))
        return result


def _list_decisive(result: SearchResult, plan: SearchPlan) -> list[int]:
    """Labels on which a verdict may rest: those flagged by the rule or the test, and the smallest."""
    population = None if plan.screen_epochs is None else plan.classes
    sampled = result.sampled(plan)
    outliers = trigger_norms.find_outliers(result.norms, None if population is None else sampled, population)
    positions = {*detection.flag_labels(result.norms, sampled), *outliers}
    if np.isfinite(result.norms).any():
        positions.add(int(result.norms.argmin()))
    return [int(result.labels[position]) for position in sorted(positions)]


def _in_precision(target: Target, precision: str) -> Target:
    """A view of the target whose gradients are computed in another precision."""
    return Target(
        target.backend,
        head=target.head,
        preprocessing=target.preprocessing,
        access=target.access,
        query_counter=target.query_counter,
        precision=precision,
        notes=target.notes,
    )


def _random_labels(classes: int, count: int, seed: int) -> tuple[int, ...]:
    return tuple(int(label) for label in shuffle(classes, "neural-cleanse labels", seed)[:count])


def _try_on_fresh(output: Triggers, target: Target, data: TrialData, fresh: NDArray[np.int64]) -> Triggers:
    """Add what the pictured triggers do to images that the search did not use."""
    if not len(fresh):
        return output
    count = data.dataset.num_classes
    images, classes = data.dataset.batch(fresh), data.dataset.labels[fresh]
    goals = output.labels[output.pictured]
    hits = count_hits(target, images, classes, output.masks, output.patterns, goals, count)
    return replace(output, fresh_hits=hits, fresh_totals=np.bincount(classes, minlength=count).astype(np.int64))


def _measure_transfer(
    output: Triggers, model: Target, data: TrialData, fresh: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Share of fresh images of other classes that the pictured triggers send to their labels in a clean model, P."""
    if not len(fresh):
        return np.zeros(0)
    on_model = _try_on_fresh(output, model, data, fresh)
    hits, totals = compute_success(on_model.fresh_hits, on_model.fresh_totals, output.labels[output.pictured])
    return hits / np.maximum(totals, 1)


def _collect(results: list[SearchResult], plan: SearchPlan, data: TrialData, chosen: NDArray[np.int64]) -> Triggers:
    """Join the results from several starting points: for labels that all of them searched, the smallest norm."""
    labels = sorted(set.intersection(*(set(one.labels.tolist()) for one in results)))
    at = [np.array([one.labels.tolist().index(label) for label in labels], dtype=np.int64) for one in results]
    repeats = np.stack([one.norms[where] for one, where in zip(results, at, strict=True)])
    norms = repeats.min(axis=0)
    order = np.argsort(norms, kind="stable")[:MOST_PICTURES]
    best = repeats.argmin(axis=0)
    masks = np.stack([results[best[p]].masks[at[best[p]][p]] for p in order])
    patterns = np.stack([results[best[p]].patterns[at[best[p]][p]] for p in order])
    names = data.dataset.class_names
    numbers = np.array(labels, dtype=np.int64)
    mask, goal = _known_trigger(data, masks.shape[1:])
    return Triggers(
        labels=numbers,
        norms=norms,
        repeats=repeats,
        success=np.stack([one.success[where] for one, where in zip(results, at, strict=True)]),
        epochs=np.stack([one.epochs[where] for one, where in zip(results, at, strict=True)]),
        sampled=results[0].sampled(plan)[at[0]],
        population=plan.classes,
        verified=np.all([one.verified[where] for one, where in zip(results, at, strict=True)], axis=0),
        pictured=order.astype(np.int64),
        masks=masks,
        patterns=patterns,
        class_means=_class_means(data, numbers[order], chosen),
        names=tuple(names[label] if label < len(names) else f"class {label}" for label in labels),
        reference=np.empty((0, len(labels))),
        settled=np.stack([one.settled[where] for one, where in zip(results, at, strict=True)]),
        planted_mask=mask,
        backdoored_target=goal,
    )


def _class_means(data: TrialData, labels: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Mean image of the known records of each class."""
    own = data.dataset.labels[chosen]
    means = []
    for label in labels:
        of_class = chosen[own == label]
        shape = data.dataset.image_shape
        mean = data.dataset.batch(of_class).float().mean(dim=0) if len(of_class) else torch.zeros(shape)
        means.append(mean.round().to(torch.uint8).numpy())
    return np.stack(means)


def _known_trigger(data: TrialData, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], int]:
    """Where the true trigger lies and to which label it leads, if the model record says so."""
    backdoor: BackdoorRecord | None = getattr(data.trained, "backdoor", None)
    if backdoor is None or backdoor.target is None or backdoor.took is False:
        return np.zeros((0, 0), np.uint8), -1
    mask = np.zeros(shape, np.uint8)
    top, left, height, width = backdoor.box
    mask[top : top + height, left : left + width] = 255
    # A trigger all over the image has no place to be located at.
    return (np.zeros((0, 0), np.uint8) if mask.all() else mask), backdoor.target
