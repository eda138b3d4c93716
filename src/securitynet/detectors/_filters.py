"""The base of detectors that filter inputs: the images to judge, and their examination in resumable pieces."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from securitynet.datasets.ordering import shuffle
from securitynet.detectors._fitted_filter import CleanImages, FittedFilter
from securitynet.detectors._known_trigger import Suspects, Trigger
from securitynet.detectors._pieces import PartsProgress, examine_in_pieces
from securitynet.detectors._queries import Arrays, QueryClient, find_pieces_folder
from securitynet.detectors._verdicts import TRIGGERED, FilterVerdicts
from securitynet.detectors.base import Detector
from securitynet.errors import SplitError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.metrics import filtering
from securitynet.metrics.filtering import FilterDecisions
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel

MOST_EXAMPLES = 4
"""Number of rows of pictures for each group of images."""


class InputFilter(Detector):
    """A detector that filters the inputs of a target.

    It is evaluated on clean images, of which it should stop few; with a known ``trigger``, on the same images with the
    trigger; and on ``suspects``, if there are any. It is tuned on other clean images, which the defender knows.

    Class attributes:
        judges_tuning: Whether `fitted` examines the images for tuning as it does those to judge, and reports progress.

    Attributes:
        images: Largest number of clean images to judge (SecurityNet, section 3.3: 2,000).
        trigger: A known trigger, to measure detection.
        suspects: Images of unknown origin.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = FilterVerdicts
    judges_tuning: ClassVar[bool] = True

    images: int = Field(default=2000, ge=1, description="Largest number of clean images to judge.")
    trigger: Trigger | None = Field(default=None, description="A known trigger: FILE.npz, or size, corner, value.")
    suspects: Suspects | None = Field(
        default=None, description="Images of unknown origin: a folder, or FILE.npz with an array named images."
    )

    @property
    @abstractmethod
    def tuning_images(self) -> int:
        """Largest number of clean images, besides those judged, that `fitted` needs for tuning."""

    @property
    def mixing_images(self) -> int:
        """Largest number of clean images that `fitted` needs for overlays."""
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
        """Fit the filter to a target.

        Args:
            client: Client that queries the target.
            clean: Images that the defender knows to be clean.
            seed: Seed of all randomness.
            folder: Folder of completed pieces; None stores nothing.
            progress: Called with the number of images done and the total.

        Raises:
            SplitError: If there are too few clean images.
        """

    @final
    def deploy(
        self, target: Target, tuning: torch.Tensor, mixing: torch.Tensor | None = None, *, seed: int = 0
    ) -> FittedFilter:
        """Return a filter for a target that judges incoming images with `FittedFilter.judge`.

        Args:
            target: The target; black-box access suffices.
            tuning: Clean images for the threshold, N×C×H×W uint8.
            mixing: Clean images for overlays; by default a third of ``tuning``, which is then not used for tuning.
            seed: Seed of all randomness.
        """
        if mixing is None:
            tuned, mixed = self._clean(np.arange(len(tuning), dtype=np.int64), seed)
            tuning, mixing = tuning[torch.from_numpy(tuned)], tuning[torch.from_numpy(mixed)]
        return self.fitted(QueryClient(target), CleanImages(tuning, mixing), seed)

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> FilterVerdicts:
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
                "An input filter needs clean images for tuning and others for the evaluation; there are none.",
                hint="Let the defender know a share of the records with --known.",
            )
        signals = context.signals(target, data, np.union1d(judged, tuning))
        client.know_signals(dataset, signals)
        clean = CleanImages(dataset.batch(tuning), dataset.batch(mixing))
        groups = {"clean": dataset.batch(judged), **groups}
        triggered = self._apply_known_trigger(data, judged)
        if triggered is not None:
            groups[TRIGGERED] = triggered.images
        folder = self._folder(target, data, context, {"judged": judged, "tuning": tuning, "mixing": mixing})
        progress = PartsProgress(context.progress, len(tuning) * self.judges_tuning + sum(map(len, groups.values())))
        try:
            fitted = self.fitted(client, clean, context.seed, folder, progress.part())
            examined = {
                name: _examined(fitted, images, name, client, folder, progress) for name, images in groups.items()
            }
            works = None if triggered is None else _works(client, groups, triggered, folder)
        finally:  # the queries of a failed trial count too
            context.extra_queries.append(client.query_count())
        verdicts = {name: FilterDecisions(arrays["scores"], arrays["flagged"]) for name, arrays in examined.items()}
        pictures, rows = _pictures(fitted, groups, examined)
        return FilterVerdicts(
            indices=judged,
            clean=verdicts["clean"],
            threshold=fitted.threshold,
            nominal=fitted.nominal,
            calibration=fitted.calibration,
            triggered=verdicts.get(TRIGGERED),
            works=works,
            suspects=verdicts.get("suspects"),
            exact=fitted.exact,
            overlaps=_overlaps(examined.get(TRIGGERED), works, None if triggered is None else triggered.area),
            pictures=pictures,
            rows=rows,
            columns=fitted.columns,
            notes=fitted.notes,
            facts={
                f"{group} {name}": values
                for group, arrays in examined.items()
                for name, values in arrays.items()
                if name not in ("scores", "flagged")
            },
        )

    def _clean(self, known: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return records for tuning and, if needed, at most a third of them for overlays; both sorted.

        Members are not used, because the training data may be poisoned.
        """
        order = known[shuffle(len(known), "input filter clean", seed)]
        mixed = min(self.mixing_images, len(order) // 3)
        return np.sort(order[mixed:][: self.tuning_images]), np.sort(order[:mixed])

    def _apply_known_trigger(self, data: TrialData, judged: NDArray[np.int64]) -> _TriggeredImages | None:
        """Apply the known trigger, if any, to the judged records: that of the settings, else that of the backdoor."""
        shape = data.dataset.image_shape
        if self.trigger is not None:
            images = self.trigger.apply_trigger(data.dataset.batch(judged))
            return _TriggeredImages(images, np.arange(len(judged), dtype=np.int64), None, self.trigger.area(*shape))
        if data.backdoor is None:
            return None
        poisoned_set = data.backdoor.triggered(data.dataset, judged)
        if not len(poisoned_set.indices):
            return None
        top, left, height, width = data.backdoor.poison(data.dataset, data.splits.members).record.box
        area = np.zeros(shape[1:], dtype=bool)
        area[top : top + height, left : left + width] = True
        rows = np.searchsorted(judged, poisoned_set.indices).astype(np.int64)
        images = poisoned_set.images[torch.from_numpy(poisoned_set.indices)]
        return _TriggeredImages(images, rows, poisoned_set.goals, None if area.all() else area)

    def _folder(
        self, target: Target, data: TrialData, context: Context, records: dict[str, NDArray[np.int64]]
    ) -> Path | None:
        # The key "planted" enters the names of cached pieces, so it never changes.
        settings = {**self.model_dump(mode="json"), "planted": self.trigger is None and data.backdoor is not None}
        return find_pieces_folder(target, data, context, type(self).__name__, settings, records)


@dataclass(frozen=True, eq=False)
class _TriggeredImages:
    """Judged images with the trigger.

    Attributes:
        images: Images, M×C×H×W uint8.
        rows: Their positions among the judged images, M.
        goals: Classes that the trigger should send them to, M; None if unknown.
        area: Pixels of the trigger, H×W; None if it has no fixed place.
    """

    images: torch.Tensor
    rows: NDArray[np.int64]
    goals: NDArray[np.int64] | None
    area: NDArray[np.bool_] | None


def _works(
    client: QueryClient, groups: dict[str, torch.Tensor], triggered: _TriggeredImages, folder: Path | None
) -> NDArray[np.bool_]:
    """Return whether the trigger changes the prediction of each image, to the intended class if that is known, M."""

    def predicted() -> Arrays:
        return {"labels": client.outputs(triggered.images, remember=True).argmax(dim=1).numpy()}

    path = None if folder is None else folder / f"{TRIGGERED} predictions.npz"
    after = client.piece(path, predicted)["labels"]
    clean = groups["clean"][torch.from_numpy(triggered.rows)]
    before = client.outputs(clean).argmax(dim=1).numpy()  # these outputs are remembered, so nothing is sent
    changed = before != after
    return np.asarray(changed if triggered.goals is None else changed & (after == triggered.goals))


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

    return examine_in_pieces(examine, images, purpose, client, folder, progress.part(), size=fitted.piece)


def _some(indices: NDArray[np.int64], most: int, purpose: str, seed: int) -> NDArray[np.int64]:
    """Draw a random sample of records, sorted."""
    return np.sort(indices[shuffle(len(indices), f"input filter {purpose}", seed)[:most]])


def _overlaps(
    verdicts: Arrays | None, works: NDArray[np.bool_] | None, area: NDArray[np.bool_] | None
) -> NDArray[np.float64] | None:
    if verdicts is None or works is None or area is None or "regions" not in verdicts:
        return None
    regions = verdicts["regions"][verdicts["flagged"] & works]
    masks = np.zeros((len(regions), *area.shape), dtype=bool)
    for mask, (top, left, height, width) in zip(masks, regions, strict=True):
        mask[top : top + height, left : left + width] = True
    return filtering.compute_overlap(masks, area)


def _pictures(
    fitted: FittedFilter, groups: dict[str, torch.Tensor], verdicts: dict[str, Arrays]
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Return pictures of the most suspicious images of each group, and descriptions of their rows."""
    pictures, names = [], []
    for name, images in groups.items():
        arrays = verdicts[name]
        for row in np.argsort(-arrays["scores"], kind="stable")[:MOST_EXAMPLES].tolist():
            of_row = {key: values[row : row + 1] for key, values in arrays.items()}
            pictures.append(fitted.pictures(images[row], of_row, row, name).numpy())
            names.append(f"{name}, {'stopped' if arrays['flagged'][row] else 'passed'}")
    return np.stack(pictures), tuple(names)
