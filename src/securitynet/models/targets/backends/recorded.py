"""Recorded outputs of a model, with labels and membership; the model itself is not available."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.datasets.base import ImageDataset
from securitynet.errors import AccessDenied, TargetError
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme
from securitynet.models.targets.backends._recordings import Recording, read_recording
from securitynet.models.targets.backends.base import Backend, LoadOptions, OpenedModel
from securitynet.models.targets.heads import Head

SCHEME = Scheme(
    "outputs",
    "outputs:recorded.npz",
    file=True,
    recorded=True,
    suffixes=(".npz", ".csv", ".parquet"),
    members=("*.npy",),
)


class RecordedBackend(Backend):
    """Outputs of an unavailable model, read from a file.

    Args:
        path: ``.npz``, CSV or Parquet; see `read_recording` for the accepted names.
        reference: Reference as the user writes it (``outputs:recorded.npz``).

    Raises:
        TargetError: If the file is missing, incomplete, or contradicts itself.
        UnsafeFile: If an array of an ``.npz`` could only be read by unpickling.
    """

    def __init__(self, path: Path, *, reference: str) -> None:
        self.path = Path(path)
        self.reference = reference
        self._recording: Recording = read_recording(self.path, reference)
        self.checksum = self._recording.checksum
        self.num_classes = self._recording.outputs.shape[1]

    @classmethod
    @override
    def open(cls, reference: ModelReference, options: LoadOptions) -> OpenedModel:
        backend = cls(reference.path or Path(reference.name), reference=str(reference.without_folders()))
        return OpenedModel(backend, preprocessing=Preprocessing(), head=backend.head, recorded=True)

    def __len__(self) -> int:
        return len(self._recording.labels)

    @property
    def head(self) -> Head:
        """Kind of the recorded outputs, determined by the name of their array."""
        return self._recording.head

    @property
    def members(self) -> NDArray[np.bool_]:
        """Whether each record was in the target's training set, N.

        Raises:
            TargetError: If membership was not recorded.
        """
        if self._recording.members is None:
            raise TargetError(
                f"{self.reference} does not say which records were in the training set.",
                hint="Add a column (or array) named 'member' that is 1 for records the model was trained on and 0 "
                "for others.",
            )
        return self._recording.members

    def rows(self, indices: NDArray[np.int64], dataset: ImageDataset) -> NDArray[np.float32]:
        """The outputs recorded for records of a dataset.

        Args:
            indices: Records of ``dataset``, N int64.
            dataset: The dataset returned by the method `dataset`, or one with images whose records are those of the
                file: in the same order, or as the file's ``indices`` state.

        Returns:
            float32, N×K.

        Raises:
            TargetError: If the file's records are not those of the dataset, or none is recorded for an index.
        """
        recording = self._recording
        if dataset.content_digest == self.checksum:
            return recording.outputs[indices]
        self._check_alignment(dataset)
        if recording.indices is None:
            return recording.outputs[indices]
        at = np.searchsorted(recording.indices, indices).clip(max=len(recording.indices) - 1)
        absent = np.flatnonzero(recording.indices[at] != indices)
        if len(absent):
            raise TargetError(
                f"{self.reference} holds no outputs for {len(absent)} of the {len(indices)} records that are needed of "
                f"{dataset.reference} (the first is record {int(indices[absent[0]])}).",
                hint="Record the outputs of all of them, or assess the file without a dataset.",
            )
        rows: NDArray[np.float32] = recording.outputs[at]
        return rows

    def dataset(self) -> ImageDataset:
        """The records of the file as a dataset without images: members in its ``train`` part, others in ``test``."""
        recording = self._recording
        parts: dict[str, NDArray[np.int64]] = {}
        if recording.members is not None:
            parts = {"train": np.flatnonzero(recording.members), "test": np.flatnonzero(~recording.members)}
        return ImageDataset(
            reference=self.reference,
            images=None,
            labels=recording.labels,
            class_names=recording.class_names,
            parts=parts,
            content_digest=self.checksum,
        )

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Always refused: a recording has outputs for its own records only.

        Raises:
            AccessDenied: Always.
        """
        raise AccessDenied(
            f"{self.reference} is a recording: it has no outputs for new images.",
            hint="Attacks that only need outputs for the recorded records work; others need the model or its endpoint.",
        )

    def _check_alignment(self, dataset: ImageDataset) -> None:
        recording = self._recording
        hint = (
            "Record the outputs in the dataset's own order (train part first), or add a column 'index' with the "
            "number of each record in the dataset."
        )
        if recording.indices is None:
            if len(dataset) != len(self):
                raise TargetError(
                    f"{self.reference} holds {len(self)} records; {dataset.reference} has {len(dataset)}.", hint=hint
                )
            theirs = dataset.labels
        else:
            last = int(recording.indices[-1])
            if last >= len(dataset):
                raise TargetError(
                    f"{self.reference} names record {last}; {dataset.reference} has {len(dataset)} records.", hint=hint
                )
            theirs = dataset.labels[recording.indices]
        different = np.flatnonzero(theirs != recording.labels)
        if len(different):
            first = int(different[0])
            raise TargetError(
                f"{self.reference} and {dataset.reference} disagree on the labels of {len(different)} of {len(self)} "
                f"records (row {first}: {int(recording.labels[first])} here, {int(theirs[first])} there).",
                hint=hint,
            )
