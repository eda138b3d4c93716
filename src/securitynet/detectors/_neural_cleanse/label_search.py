"""The search of all labels: how long each is searched, and how an interrupted search is resumed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.detectors._neural_cleanse.blocks import (
    BlockSearch,
    Rows,
    choose_block_length,
    join_rows,
    take_rows,
)
from securitynet.detectors._neural_cleanse.memory import check_search_memory, estimate_memory
from securitynet.detectors._neural_cleanse.trigger_search import SearchRules, TriggerSearch
from securitynet.files import hash_stably
from securitynet.memory import read_available_memory
from securitynet.models.targets.target import Target

logger = logging.getLogger(__name__)

VERSION = 1
"""Version of the search. Raise it when the same rules give other triggers, so that no old checkpoint is resumed."""


@dataclass(frozen=True)
class SearchPlan:
    """Which labels are searched, and for how long.

    Attributes:
        classes: Number of labels of the target.
        epochs: Epochs of a full search.
        longest: Epochs up to which labels are searched whose norms have not settled after ``epochs``.
        screen_epochs: Epochs of a short search of all labels, after which only some continue; None searches all of them
            in full.
        lowest: How many of the labels with the lowest norms continue.
        sample: Labels, drawn at random, that continue.
        only: Labels to search; None for all.
    """

    classes: int
    epochs: int
    longest: int = 0
    screen_epochs: int | None = None
    lowest: int = 0
    sample: tuple[int, ...] = ()
    only: tuple[int, ...] | None = None

    @property
    def labels(self) -> list[int]:
        """The labels that are searched at all."""
        return list(self.only if self.only is not None else range(self.classes))

    @property
    def screened(self) -> int | None:
        """Epochs of the short search; None if there is none."""
        return self.screen_epochs if self.screen_epochs is not None and self.screen_epochs < self.epochs else None

    @property
    def continued(self) -> int:
        """Largest number of labels that are searched in full."""
        count = len(self.labels)
        return count if self.screened is None else min(count, self.lowest + len(self.sample))

    @property
    def work(self) -> int:
        """Epochs of all labels together, without those of labels that go on because they have not settled."""
        screened = self.screened or 0
        return self.continued * (self.epochs - screened) + len(self.labels) * screened

    def restrict(self, labels: Iterable[int]) -> SearchPlan:
        """The plan of a full search of some labels only."""
        return SearchPlan(classes=self.classes, epochs=self.epochs, longest=self.longest, only=tuple(labels))


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
        settled: Whether the search went on until the norm was close to its minimum (`Costs.find_settled`), N.
        verified: Whether the network was computed in fp32, N.
    """

    labels: NDArray[np.int64]
    norms: NDArray[np.float64]
    success: NDArray[np.float64]
    epochs: NDArray[np.int64]
    masks: NDArray[np.uint8]
    patterns: NDArray[np.uint8]
    settled: NDArray[np.bool_]
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
        for name in ("norms", "success", "epochs", "masks", "patterns", "settled", "verified"):
            getattr(self, name)[rows] = getattr(other, name)


def search_labels(
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
            ends with the same triggers. Of a finished search, masks and patterns in 8 bits stay there.
        report_progress: Called with the share of the work that is done, in [0, 1].

    Raises:
        ConfigurationError: If the memory is too small for the search; nothing is computed then.
    """
    labels, screened, longest, work = plan.labels, plan.screened, plan.continued, plan.work
    key = {**key, "target": target.identity.model_dump(mode="json"), "precision": target.precision}
    settings = {"version": VERSION, "key": key, "plan": asdict(plan), "rules": _jsonable(rules)}
    name = hash_stably(settings)
    length = choose_block_length(images.shape[1:])
    needed = estimate_memory(images.shape[1:], len(images), len(labels), longest, screened=screened is not None)
    logger.info(
        "Neural Cleanse searches %s labels in blocks of %d: at most %.0f MB of memory besides the network's, and %s "
        "images through the network and back.",
        f"{len(labels):,}",
        min(length, len(labels)),
        needed / 1e6,
        f"{work * len(images):,}",
    )
    folder = None if cache is None else cache / "neural-cleanse" / name
    blocks = BlockSearch(target, images, rules, folder, name, report_progress, work)
    finished = _read_finished(blocks, "all")
    if finished is not None:
        report_progress(1.0)
        return _gather(finished, target.precision)
    if images.device.type == "cpu":
        check_search_memory(needed, len(labels), longest, available=read_available_memory())
    first, held = 0, None
    if screened is not None:
        held = _screen(blocks, labels, plan, screened, length)
        first, labels = screened, held["labels"].tolist()
    results = []
    for number, start in enumerate(range(0, len(labels), length)):
        part = f"full-{number}"
        result = _read_finished(blocks, part)
        if result is None:
            chosen = slice(start, start + length)
            state = None if held is None else {name: held[name][chosen] for name in held if name != "labels"}
            run, stage = _search_until_settled(blocks, labels[chosen], first, plan, state, part)
            result = _compact(run)
            blocks.store(part, result)
            blocks.forget(stage)
            blocks.drop(f"{part}-unsettled")
        else:
            blocks.done += len(result["labels"]) * (plan.epochs - first)
        results.append(result)
    finished = join_rows(results)
    blocks.store("all", finished)
    for part in ("screen", *(f"full-{number}" for number in range(len(results)))):
        blocks.drop(part)
    report_progress(1.0)
    return _gather(finished, target.precision)


def _search_until_settled(
    blocks: BlockSearch, labels: list[int], first: int, plan: SearchPlan, state: Rows | None, part: str
) -> tuple[TriggerSearch, str]:
    """Search a block of labels in full; those whose norms have not settled go on, twice as long each time.

    Labels that no trigger has reached do not go on: they have no norm that could settle. The name of the last stage is
    returned as well, for its checkpoint.
    """
    held: Rows | None = blocks.stored(f"{part}-unsettled")
    last = plan.epochs
    if held is not None:  # interrupted while labels went on
        blocks.done += len(labels) * (last - first)
        first, state = int(held.pop("searched")[0]), held
        last = min(plan.longest, 2 * first)
        blocks.total += len(labels) * (last - first)
    while True:
        stage = f"{part}-{last}"
        run = blocks.search(labels, first, last, state, stage)
        unsettled = run.active & run.converged & ~run.settled()
        # The end of a search, in which a norm may fall no more, is a quarter of it: a shorter addition shows nothing.
        if 4 * last > 3 * plan.longest or not bool(unsettled.any()):
            return run, stage
        run.active &= unsettled  # the others keep their norms, and count as settled if they have one
        state = run.state()
        blocks.store(f"{part}-unsettled", {**state, "searched": torch.full((len(labels),), last)})
        blocks.forget(stage)
        first, last = last, min(plan.longest, 2 * last)
        blocks.total += len(labels) * (last - first)
        logger.info("%d labels have not settled after %d epochs: on to %d.", int(unsettled.sum()), first, last)


def _screen(blocks: BlockSearch, labels: list[int], plan: SearchPlan, epochs: int, length: int) -> Rows:
    """Search all labels for some epochs; return the states of those that go on, with their labels, ascending.

    Those are the labels with the lowest norms, the random sample, and labels whose search is finished already.
    """
    held: Rows | None = blocks.stored("screen")
    begun = 0 if held is None else int(held.pop("searched")[0])
    blocks.done += begun * epochs
    for start in range(begun, len(labels), length):
        chosen = labels[start : start + length]
        part = f"screen-{start}"
        run = blocks.search(chosen, 0, epochs, None, part)
        states = {**run.state(), "labels": torch.tensor(chosen)}
        held = states if held is None else join_rows([held, states])
        norms = held["costs.best"]
        going = torch.isin(held["labels"], torch.tensor(plan.sample)) | ~held["active"]
        going[torch.argsort(norms, stable=True)[: plan.lowest]] = True
        held = take_rows(held, going)
        searched = torch.full((len(held["labels"]),), start + len(chosen))
        blocks.store("screen", {**held, "searched": searched})
        blocks.forget(part)
    assert held is not None  # there is at least one label
    return held


def _read_finished(blocks: BlockSearch, part: str) -> Rows | None:
    """Return the rows of a finished block; None too where an earlier version stored them, without `settled`."""
    rows = blocks.stored(part)
    return rows if rows is not None and "settled" in rows else None


def _compact(run: TriggerSearch) -> Rows:
    """Return the rows that are stored of a finished block."""
    success = torch.where(run.converged, run.success, 0.0)
    return {
        "labels": run.labels,
        "norms": run.norms(),
        "success": success,
        "epochs": run.epochs,
        "masks": _bytes(run.masks()),
        "patterns": _bytes(run.patterns()),
        "settled": run.settled() & run.converged,
    }


def _gather(rows: Rows, precision: str) -> SearchResult:
    values = {name: value.numpy() for name, value in rows.items()}
    return SearchResult(**values, verified=np.full(len(values["labels"]), precision == "fp32"))


def _bytes(values: torch.Tensor) -> torch.Tensor:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def _jsonable(rules: SearchRules) -> dict[str, Any]:
    return {**vars(rules), "costs": rules.costs.model_dump(mode="json")}
