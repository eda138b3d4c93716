"""Write a repaired model: its weights, and the model record beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import safetensors.torch
from torch import nn

from securitynet.errors import RefusedFile
from securitynet.files import write_atomically, write_json
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.store.record_files import locate_model_record, save_trained_model
from securitynet.models.store.repair_record import RepairRecord
from securitynet.models.targets.outputs import AdaptedNetwork
from securitynet.models.targets.target import Target
from securitynet.records import Record
from securitynet.untrusted import MAX_SETTINGS, parse_json, read_bytes


class RepairedModelRecord(Record):
    """The record of a repaired model whose training is unknown: unlike a model record, it names no members.

    Attributes:
        format: Distinguishes this file from other JSON files.
        model: Reference of the network.
        weights_checksum: SHA-256 of the weights file.
        preprocessing: Preprocessing of images in [0, 1] before the network.
        head: What the network emits.
        repair: What was done and measured.
    """

    format: Literal["securitynet-repaired-model"] = "securitynet-repaired-model"
    model: str
    weights_checksum: str
    preprocessing: Preprocessing
    head: str
    repair: RepairRecord


def save_repaired_model(
    out: Path, network: nn.Module, record: RepairRecord, target: Target, trained: TargetRecord | None
) -> None:
    """Write the weights and their record, each completely or not at all; the weights are last (`is_unfinished`).

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
        save_trained_model(out, state, trained.model_copy(update=changes), record_first=True)
        return
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    content = safetensors.torch.save(tensors, metadata={"format": "pt"})
    document = RepairedModelRecord(
        model=target.reference,
        weights_checksum=hashlib.sha256(content).hexdigest(),
        preprocessing=target.preprocessing,
        head=target.head,
        repair=record,
    )
    write_json(locate_model_record(out), document.model_dump(mode="json"))
    with write_atomically(out) as stream:
        stream.write(content)


def is_unfinished(out: Path) -> bool:
    """Whether there is the record of a repair without its weights: a process was killed before it wrote them."""
    try:
        value = parse_json(read_bytes(locate_model_record(out), MAX_SETTINGS))
    except (OSError, ValueError, RefusedFile):
        return False
    return not out.exists() and isinstance(value, dict) and isinstance(value.get("repair"), dict)
