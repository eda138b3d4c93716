"""Write a repaired model: its weights, and the model record beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import nn

from securitynet.files import stable_hash
from securitynet.models.store.model_record import ModelRecord, RepairRecord, TargetRecord, save_trained_model
from securitynet.models.targets.outputs import AdaptedNetwork
from securitynet.models.targets.target import Target


class RepairedModelRecord(ModelRecord):
    """The record of a repaired model whose training is unknown.

    Attributes:
        format: Distinguishes this file from other JSON files.
        model: Reference of the network.
        preprocessing: Preprocessing of images in [0, 1], in canonical form.
        head: What the network emits.
        repair: What was done and measured.
    """

    format: Literal["securitynet-repaired-model"] = "securitynet-repaired-model"
    model: str
    preprocessing: str
    head: str
    repair: RepairRecord

    @property
    def membership(self) -> str:
        """Digest of the weights that were repaired: their members are unknown."""
        return stable_hash(["unknown", self.repair.source])


def save_repaired_model(
    out: Path, network: nn.Module, record: RepairRecord, target: Target, trained: TargetRecord | None
) -> None:
    """Write the weights and their record, each completely or not at all.

    Args:
        out: Weights file, ``NAME.safetensors``; the record goes to ``NAME.json``.
        network: The repaired network.
        record: What was done and measured.
        target: The target before the repair.
        trained: Its model record, which the new one repeats, with the repair and the new accuracy; None if unknown.
    """
    state = (network.inner if isinstance(network, AdaptedNetwork) else network).state_dict()
    if trained is not None:
        backdoor = trained.backdoor
        if backdoor is not None:
            backdoor = backdoor.model_copy(update={"success": record.after.success, "tried": record.after.tried})
        changes = {"repair": record, "backdoor": backdoor, "test_accuracy": record.after.accuracy}
        save_trained_model(out, state, trained.model_copy(update=changes))
        return
    save_trained_model(
        out,
        state,
        RepairedModelRecord(
            model=target.reference,
            preprocessing=target.preprocessing.canonical(),
            head=target.head,
            repair=record,
        ),
    )
