"""The search of all labels: how long each is searched, and how an interrupted search is resumed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.detectors._neural_cleanse.search import SearchRules, TriggerSearch
from securitynet.files import stable_hash
from securitynet.models.targets.target import Target
from securitynet.models.targets.threads import leave_cores_to_threads
from securitynet.models.training.checkpoints import CheckpointFile, TrainingState

logger = logging.getLogger(__name__)

VERSION = 1
"""Version of the search. Raise it when the same rules give other triggers, so that no old checkpoint is resumed."""


@dataclass(frozen=True)
class SearchPlan:
    """Which labels are searched, and for how long.

    Attributes:
        classes: Number of labels of the target.
        epochs: Epochs of a full search.
        screen_epochs: Epochs of a short search of all labels, after which only some continue; None searches all of them
            in full.
        lowest: How many of the labels with the lowest norms continue.
        sample: Labels, drawn at random, that continue.
        only: Labels to search; None for all.
    """

    classes: int
    epochs: int
    screen_epochs: int | None = None
    lowest: int = 0
    sample: tuple[int, ...] = ()
    only: tuple[int, ...] | None = None


@dataclass(eq=False)
class SearchResult:
    """The triggers of the N labels that were searched in full.

    Attributes:
        labels: The labels, N int64, ascending.
        norms: Sums of their masks, N float64; infinite where no trigger worked.
        success: Share of images that the trigger sends to the label, N; 0 where none worked.
        epochs: Epochs that each label was searched, N int64.
        masks: N×H×W uint8, 255 for a mask of 1.
        patterns: N×C×H×W uint8.
        verified: Whether the network was computed in fp32, N.
    """

    labels: NDArray[np.int64]
    norms: NDArray[np.float64]
    success: NDArray[np.float64]
    epochs: NDArray[np.int64]
    masks: NDArray[np.uint8]
    patterns: NDArray[np.uint8]
    verified: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))

    def sampled(self, plan: SearchPlan) -> NDArray[np.bool_]:
        """Which labels belong to the random sample, N; all where all were searched."""
        if plan.screen_epochs is None:
            return np.ones(len(self.labels), np.bool_)
        return np.isin(self.labels, plan.sample)

    def unverified(self, labels: Sequence[int]) -> list[int]:
        """Those of ``labels`` that were not computed in fp32."""
        exact = set(self.labels[self.verified].tolist())
        return [label for label in labels if label not in exact]

    def replace(self, other: SearchResult) -> None:
        """Replace the triggers of some of the labels by those of another search."""
        rows = np.searchsorted(self.labels, other.labels)
        for name in ("norms", "success", "epochs", "masks", "patterns", "verified"):
            getattr(self, name)[rows] = getattr(other, name)


def search(
    target: Target,
    images: torch.Tensor,
    plan: SearchPlan,
    rules: SearchRules,
    key: dict[str, Any],
    cache: Path | None,
    report_progress: Callable[[float], None],
) -> SearchResult:
    """Search for the triggers of all labels of a plan.

    Args:
        target: The target, under white-box access. Its precision is that of the search.
        images: S×C×H×W uint8, on the target's device.
        plan: Which labels are searched, and for how long.
        rules: The rules of the optimisation.
        key: JSON that stands for the images.
        cache: Folder for checkpoints; None writes none. A search that was killed resumes after its last checkpoint, and
            ends with the same triggers.
        report_progress: Called with the share of the work that is done, in [0, 1].
    """
    labels = list(plan.only if plan.only is not None else range(plan.classes))
    run = TriggerSearch(target, images, labels, rules)
    key = {**key, "target": target.identity.model_dump(mode="json"), "precision": target.precision}
    settings = {"version": VERSION, "key": key, "plan": asdict(plan), "rules": _jsonable(rules)}
    name = stable_hash(settings)
    file = None if cache is None else CheckpointFile(cache / "neural-cleanse" / name / "checkpoint", logger.info)
    state = file.read(name) if file else None
    first = 0
    if state is not None:
        run.restore(state.module)
        first = state.epochs_done
    for epoch in range(first, plan.epochs):
        if not bool(run.active.any()):
            break
        if plan.screen_epochs is not None and epoch == plan.screen_epochs:
            run.leave(_choose_for_full_search(run, plan))
        before = epoch / plan.epochs
        finished, running = 0, int(run.active.sum())

        def report_labels(count: int, before: float = before, running: int = running) -> None:
            nonlocal finished
            finished += count
            report_progress(before + finished / running / plan.epochs)

        with leave_cores_to_threads(images.device):
            run.epoch(epoch, report_labels)
        if file and (epoch + 1 == plan.epochs or file.due()):
            file.write(TrainingState(name, epoch + 1, run.state(), {}, ""))
    report_progress(1.0)
    result = _gather(run, target.precision)
    if file:
        file.write(TrainingState(name, plan.epochs, run.state(), {}, ""))
    return result


def _choose_for_full_search(run: TriggerSearch, plan: SearchPlan) -> torch.Tensor:
    """Which labels are searched in full: the lowest after the short search, and the random sample."""
    norms = torch.where(run.converged, run.costs.best, torch.inf)
    going = torch.zeros(len(run.labels), dtype=torch.bool)
    going[torch.argsort(norms, stable=True)[: plan.lowest]] = True
    return going | torch.isin(run.labels, torch.tensor(plan.sample))


def _gather(run: TriggerSearch, precision: str) -> SearchResult:
    complete = ~run.left.numpy()
    converged = run.converged.numpy()
    success = np.where(converged, run.success.numpy(), 0.0)
    return SearchResult(
        labels=run.labels.numpy()[complete],
        norms=run.norms().numpy()[complete],
        success=success[complete],
        epochs=run.epochs.numpy()[complete],
        masks=_bytes(run.masks())[complete],
        patterns=_bytes(run.patterns())[complete],
        verified=np.full(int(complete.sum()), precision == "fp32"),
    )


def _bytes(values: torch.Tensor) -> NDArray[np.uint8]:
    return np.asarray((values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())


def _jsonable(rules: SearchRules) -> dict[str, Any]:
    return {**vars(rules), "costs": rules.costs.model_dump(mode="json")}
