"""The base of detectors that filter inputs: which images are judged, in pieces that survive a kill."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from securitynet.datasets.ordering import shuffled
from securitynet.detectors._fitted_filter import CleanImages, FittedFilter
from securitynet.detectors._known_trigger import Suspects, Trigger
from securitynet.detectors._pieces import PartsProgress, in_pieces
from securitynet.detectors._queries import Arrays, QueryClient, pieces_folder
from securitynet.detectors._verdicts import FilterVerdicts
from securitynet.detectors.base import Detector
from securitynet.errors import SplitError
from securitynet.methods.base import Output
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import filtering
from securitynet.metrics.filtering import Judged
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

MOST_EXAMPLES = 4
"""Rows of pictures for each kind of image."""


class InputFilter(Detector):
    """A detector that looks at inputs: which of them would a filter in front of the target stop?

    It is judged on clean images, of which it should stop few; with a known ``trigger``, on the same images stamped; and
    on ``suspects``, if there are any. What tunes it is clean and never judged: records that the defender knows.

    Attributes:
        images: Clean images that are judged (SecurityNet, section 3.3: 2,000), at most.
        trigger: A trigger, to measure detection.
        suspects: Images of unknown origin.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = FilterVerdicts

    images: int = Field(default=2000, ge=1, description="Clean images that are judged, at most.")
    trigger: Trigger | None = Field(default=None, description="A known trigger: FILE.npz, or size, corner, value.")
    suspects: Suspects | None = Field(
        default=None, description="Images of unknown origin: a folder, or FILE.npz with an array named images."
    )

    @property
    @abstractmethod
    def tuning_images(self) -> int:
        """Clean images, beside those judged, that `fitted` wants for tuning, at most."""

    @property
    def mixing_images(self) -> int:
        """Clean images that `fitted` wants for overlays, at most."""
        return 0

    @abstractmethod
    def fitted(
        self,
        client: QueryClient,
        clean: CleanImages,
        seed: int = 0,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> FittedFilter:
        """A filter in front of a target.

        Args:
            client: To the target.
            clean: What the defender knows to be clean.
            seed: Of all randomness.
            folder: Where finished pieces are kept; None keeps nothing.
            progress: Told about images done.

        Raises:
            SplitError: If there are too few clean images.
        """

    @final
    def deploy(
        self, target: Target, tuning: torch.Tensor, mixing: torch.Tensor | None = None, *, seed: int = 0
    ) -> FittedFilter:
        """A filter in front of a target, ready to `FittedFilter.judge` incoming images.

        Args:
            target: Any, under black-box access.
            tuning: Clean images, N×C×H×W uint8: the threshold comes from them.
            mixing: Clean images for overlays; by default a third of ``tuning``, which then loses them.
            seed: Of all randomness.
        """
        if mixing is None:
            tuned, mixed = self._clean(np.arange(len(tuning), dtype=np.int64), seed)
            tuning, mixing = tuning[torch.from_numpy(tuned)], tuning[torch.from_numpy(mixed)]
        return self.fitted(QueryClient(target), CleanImages(tuning, mixing), seed)

    def run(self, target: Target, data: TrialData, context: Context) -> FilterVerdicts:
        """See `Method.run`."""
        dataset, splits = data.dataset, data.splits
        client = QueryClient(target)
        shape = dataset.image_shape  # also tells that there are images
        groups: dict[str, torch.Tensor] = {}
        if self.trigger is not None:
            self.trigger.blend(*shape)  # tells what does not fit
        if self.suspects is not None:
            groups["suspects"] = self.suspects.load(*shape)
        judged = _some(splits.scored_non_members, self.images, "judged", context.seed)
        tuning, mixing = self._clean(splits.known_non_members, context.seed)
        if not len(judged) or not len(tuning) or (self.mixing_images and not len(mixing)):
            raise SplitError(
                "A filter of inputs needs clean images to tune it and others to judge it; there are none.",
                hint="Let the defender know a share of the records with --known.",
            )
        signals = context.signals(target, data, np.union1d(judged, tuning))
        client.know_signals(dataset, signals)
        clean = CleanImages(dataset.batch(tuning), dataset.batch(mixing))
        groups = {"clean": dataset.batch(judged), **groups}
        stamped = self._stamped(data, judged)
        if stamped is not None:
            groups["stamped"] = stamped.images
        folder = self._folder(target, data, context, {"judged": judged, "tuning": tuning, "mixing": mixing})
        progress = PartsProgress(
            context.progress, len(tuning) * bool(self.mixing_images) + sum(map(len, groups.values()))
        )
        try:
            fitted = self.fitted(client, clean, context.seed, folder, progress.part())
            found = {name: _examined(fitted, images, name, client, folder, progress) for name, images in groups.items()}
            works = None if stamped is None else _works(client, groups, stamped, folder)
        finally:  # the queries of a failed trial count too
            context.extra_queries.append(client.query_count())
        verdicts = {name: Judged(arrays["scores"], arrays["flagged"]) for name, arrays in found.items()}
        pictures, rows = _pictures(fitted, groups, found)
        return FilterVerdicts(
            indices=judged,
            clean=verdicts["clean"],
            threshold=fitted.threshold,
            nominal=fitted.nominal,
            calibration=fitted.calibration,
            stamped=verdicts.get("stamped"),
            works=works,
            suspects=verdicts.get("suspects"),
            exact=fitted.exact,
            overlaps=_overlaps(found.get("stamped"), works, None if stamped is None else stamped.area),
            pictures=pictures,
            rows=rows,
            columns=fitted.columns,
            notes=fitted.notes,
            facts={
                f"{group} {name}": values
                for group, arrays in found.items()
                for name, values in arrays.items()
                if name not in ("scores", "flagged")
            },
        )

    def _clean(self, known: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Records for tuning, and a third at most for overlays, where those are needed; both sorted.

        They are no members: who poisoned the training data may have left the trigger on some of them.
        """
        order = known[shuffled(len(known), "input filter clean", seed)]
        mixed = min(self.mixing_images, len(order) // 3)
        return np.sort(order[mixed:][: self.tuning_images]), np.sort(order[:mixed])

    def _stamped(self, data: TrialData, judged: NDArray[np.int64]) -> _TriggeredImages | None:
        """The judged records with the trigger, as far as one is known: that of the settings, else the one planted."""
        shape = data.dataset.image_shape
        if self.trigger is not None:
            images = self.trigger.apply_trigger(data.dataset.batch(judged))
            return _TriggeredImages(images, np.arange(len(judged), dtype=np.int64), None, self.trigger.area(*shape))
        if data.backdoor is None:
            return None
        planted = data.backdoor.triggered(data.dataset, judged)
        if not len(planted.indices):
            return None
        top, left, height, width = data.backdoor.poison(data.dataset, data.splits.members).record.box
        area = np.zeros(shape[1:], dtype=bool)
        area[top : top + height, left : left + width] = True
        rows = np.searchsorted(judged, planted.indices).astype(np.int64)
        images = planted.images[torch.from_numpy(planted.indices)]
        return _TriggeredImages(images, rows, planted.goals, None if area.all() else area)

    def _folder(
        self, target: Target, data: TrialData, context: Context, records: dict[str, NDArray[np.int64]]
    ) -> Path | None:
        settings = {**self.model_dump(mode="json"), "planted": self.trigger is None and data.backdoor is not None}
        return pieces_folder(target, data, context, type(self).__name__, settings, records)


@dataclass(frozen=True, eq=False)
class _TriggeredImages:
    """Judged images with a trigger.

    Attributes:
        images: M×C×H×W uint8.
        rows: Which of the judged images each of them is, M.
        goals: The classes that the trigger should send them to, M; None where those are not known.
        area: Pixels of the trigger, H×W; None where it has no place.
    """

    images: torch.Tensor
    rows: NDArray[np.int64]
    goals: NDArray[np.int64] | None
    area: NDArray[np.bool_] | None


def _works(
    client: QueryClient, groups: dict[str, torch.Tensor], stamped: _TriggeredImages, folder: Path | None
) -> NDArray[np.bool_]:
    """Whether the trigger changes the prediction of each stamped image, and to what it should, where that is known."""

    def predicted() -> Arrays:
        return {"labels": client.outputs(stamped.images, remember=True).argmax(dim=1).numpy()}

    path = None if folder is None else folder / "stamped predictions.npz"
    after = client.piece(path, predicted)["labels"]
    clean = groups["clean"][torch.from_numpy(stamped.rows)]
    before = client.outputs(clean).argmax(dim=1).numpy()  # known: nothing is sent
    changed = before != after
    return np.asarray(changed if stamped.goals is None else changed & (after == stamped.goals))


def _examined(
    fitted: FittedFilter,
    images: torch.Tensor,
    purpose: str,
    client: QueryClient,
    folder: Path | None,
    progress: PartsProgress,
) -> Arrays:
    def examine(part: torch.Tensor, rows: NDArray[np.int64]) -> Arrays:
        return fitted.examine(part, rows, purpose)

    return in_pieces(examine, images, purpose, client, folder, progress.part(), size=fitted.piece)


def _some(indices: NDArray[np.int64], most: int, purpose: str, seed: int) -> NDArray[np.int64]:
    """A random sample of records, sorted."""
    return np.sort(indices[shuffled(len(indices), f"input filter {purpose}", seed)[:most]])


def _overlaps(
    found: Arrays | None, works: NDArray[np.bool_] | None, area: NDArray[np.bool_] | None
) -> NDArray[np.float64] | None:
    """See `FilterVerdicts.overlaps`."""
    if found is None or works is None or area is None or "regions" not in found:
        return None
    regions = found["regions"][found["flagged"] & works]
    masks = np.zeros((len(regions), *area.shape), dtype=bool)
    for mask, (top, left, height, width) in zip(masks, regions, strict=True):
        mask[top : top + height, left : left + width] = True
    return filtering.overlap(masks, area)


def _pictures(
    fitted: FittedFilter, groups: dict[str, torch.Tensor], found: dict[str, Arrays]
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Pictures of the most suspicious images of each group, and the names of their rows."""
    pictures, names = [], []
    for name, images in groups.items():
        arrays = found[name]
        for row in np.argsort(-arrays["scores"], kind="stable")[:MOST_EXAMPLES].tolist():
            of_row = {key: values[row : row + 1] for key, values in arrays.items()}
            pictures.append(fitted.pictures(images[row], of_row, row, name).numpy())
            names.append(f"{name}, {'stopped' if arrays['flagged'][row] else 'passed'}")
    return np.stack(pictures), tuple(names)
