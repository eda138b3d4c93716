"""Loss traces: the cross-entropy of each training record after each epoch of a training, stored beside the weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from securitynet.devices import explain_errors
from securitynet.errors import ModelError
from securitynet.files import write_atomically
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.training import losses
from securitynet.models.training.batches import Feed
from securitynet.models.training.evaluation import take_main_output

_FORMAT = "securitynet-loss-traces"
_BATCH = 256


@dataclass(eq=False)
class LossTraces:
    """The loss of each training record after each epoch, without augmentation and in evaluation mode.

    Attributes:
        records: Training records, N int64.
        losses: Cross-entropies, E×N float32, for the E epochs done.
    """

    records: NDArray[np.int64]
    losses: NDArray[np.float32]

    @classmethod
    def start(cls) -> LossTraces:
        """Traces without any epoch, for `fit` to fill."""
        return cls(np.empty(0, np.int64), np.empty((0, 0), np.float32))

    def begin(self, records: NDArray[np.int64], done: torch.Tensor | None = None) -> None:
        """Name the training records, and restore the epochs that were done before an interruption.

        Args:
            records: Training records, N.
            done: Losses from a checkpoint, E×N; None for none.
        """
        self.records = np.asarray(records, dtype=np.int64)
        self.losses = np.empty((0, len(records)), np.float32) if done is None else done.numpy()

    def append(self, module: nn.Module, feed: Feed, targets: torch.Tensor, preprocessing: Preprocessing) -> None:
        """Compute the losses of all training records; the network's mode is restored.

        Args:
            module: The network, on the feed's device.
            feed: The training images.
            targets: Labels, or posteriors, whose most probable class counts as the label; on the same device.
            preprocessing: Applied to images before the network.
        """
        training = module.training
        module.eval()
        parts = []
        try:
            with torch.inference_mode(), explain_errors():
                for positions, batch in feed.batches(torch.split(torch.arange(len(feed)), _BATCH)):
                    logits = take_main_output(module(preprocessing(batch)))
                    labels = losses.find_classes(targets[positions.to(targets.device)])
                    parts.append(functional.cross_entropy(logits, labels, reduction="none").float().cpu())
        finally:
            module.train(training)
        self.losses = np.concatenate([self.losses, torch.cat(parts).numpy()[None]])


def locate_loss_traces(weights: Path) -> Path:
    """Path of the loss traces of a weights file: ``NAME.losses.safetensors`` for ``NAME.safetensors``."""
    return Path(weights).with_suffix(".losses.safetensors")


def write_loss_traces(weights: Path, traces: LossTraces, key: str) -> None:
    """Write loss traces beside a weights file, completely or not at all.

    Args:
        weights: The weights file.
        traces: The traces.
        key: Key of the model record, which identifies the training.
    """
    tensors = {
        "records": torch.from_numpy(np.ascontiguousarray(traces.records)),
        "losses": torch.from_numpy(np.ascontiguousarray(traces.losses)),
    }
    with write_atomically(locate_loss_traces(weights)) as stream:
        stream.write(safetensors.torch.save(tensors, metadata={"training": key, "format": _FORMAT}))


def read_loss_traces(weights: Path, key: str) -> LossTraces | None:
    """Read the loss traces beside a weights file; None if there are none, or if they are of another training.

    Args:
        weights: The weights file.
        key: Key of its model record.

    Raises:
        ModelError: If the file is damaged.
    """
    path = locate_loss_traces(weights)
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="np") as content:
            if (content.metadata() or {}).get("training") != key:
                return None
            traces = LossTraces(content.get_tensor("records"), content.get_tensor("losses"))
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(
            f"{path.name} is damaged: {error}.", hint="Delete it, or train again with --keep-losses and --overwrite."
        ) from error
    if traces.losses.ndim != 2 or traces.losses.shape[1:] != traces.records.shape:
        raise ModelError(f"{path.name} does not hold one loss for each record and epoch.", hint="Delete it.")
    return traces
