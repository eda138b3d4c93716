"""Writing weights with their model record beside them, and reading the record back."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, TypeVar

import safetensors
import safetensors.torch
import torch
from pydantic import Field, TypeAdapter, ValidationError

from securitynet.errors import ModelError
from securitynet.files import add_digest, check_digest, check_writable, file_checksum, write_atomically, write_json
from securitynet.models.store.model_record import CachedModelRecord, ModelRecord, TargetRecord
from securitynet.untrusted import check_regular, parse_json, read_bytes

_RECORDS: Final[TypeAdapter[TargetRecord | CachedModelRecord]] = TypeAdapter(
    Annotated[TargetRecord | CachedModelRecord, Field(discriminator="format")]
)
_FORMATS: Final = ("securitynet-trained-model", "securitynet-stored-model")

_MEMBERSHIP: Final = "securitynet.membership"
"""Key of `ModelRecord.membership` in the metadata of a weights file."""

R = TypeVar("R", bound=ModelRecord)


def locate_model_record(weights: Path) -> Path:
    """Path of the record of a weights file: ``NAME.json`` for ``NAME.safetensors``."""
    return Path(weights).with_suffix(".json")


def save_trained_model(
    weights: Path,
    state: Mapping[str, torch.Tensor],
    record: R,
    beside: Path | None = None,
    *,
    record_first: bool = False,
) -> R:
    """Write weights and their record, each completely or not at all; the record is last and makes the model complete.

    Args:
        weights: File to write, ending in ``.safetensors``.
        state: The tensors, by name.
        record: The record; its checksum is filled in.
        beside: File of the record, if it is not `locate_model_record`.
        record_first: Write the record first: what a killed process leaves is then a record without weights, and never
            weights that could be someone's only copy.

    Returns:
        The record as written.
    """
    # Separate copies, because safetensors refuses tensors that share memory.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    metadata = {"format": "pt", _MEMBERSHIP: record.membership}
    content = _sort_metadata(safetensors.torch.save(tensors, metadata=metadata))
    record = record.model_copy(update={"weights_checksum": hashlib.sha256(content).hexdigest()})
    if record_first:
        write_json(beside or locate_model_record(weights), add_digest(record.document()))
    with write_atomically(weights) as stream:
        stream.write(content)
    if not record_first:
        write_json(beside or locate_model_record(weights), add_digest(record.document()))
    return record


def _sort_metadata(content: bytes) -> bytes:
    """Sort the metadata in the header of a safetensors file: its library writes them in an order that varies."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)
    return content[:8] + text + content[8 + size :] if len(text) == size else content


def check_path(path: Path) -> None:
    """Raise `ModelError` or `ConfigurationError` unless weights can be written to ``path``."""
    if path.suffix != ".safetensors":
        raise ModelError(
            f"Weights are written as safetensors, and {path.name} has another ending.",
            hint=f"Write --out {shlex.quote(str(path.with_suffix('.safetensors')))}.",
        )
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not a file to write weights to.")
    check_writable(path.parent)


def read_model_record(weights: Path) -> TargetRecord | CachedModelRecord | None:
    """Read the record beside a weights file; None if there is none, or neither file was written by this package.

    Raises:
        ModelError: If the record is damaged, of a newer version, or not about these weights; or if these weights were
            trained by this package and the file beside them is not their record.
    """
    weights = Path(weights)
    path = locate_model_record(weights)
    check_regular(path)
    if path == weights or not path.is_file():
        return None
    again = "Train the model again, or move that file away to load the weights without it."
    membership = read_membership(weights)
    text = read_bytes(path).decode("utf-8", errors="replace")
    if not any(name in text for name in _FORMATS):
        if membership is None:
            return None
        raise ModelError(
            f"{path} is {'not the model record' if text.strip() else 'empty, and not the model record'} of "
            f"{weights.name}, so its members are not known.",
            hint=f"Was something else written to that file, such as --json > {path.name}? {again}",
        )
    try:
        document = parse_json(text)
        if document.get("version") != 1:
            raise ModelError(f"{path} was written by another version of securitynet.", hint="Update securitynet.")
        values = check_digest(document)
        for derived in ("overfitting", "epochs_run"):
            values.pop(derived, None)
        record = _RECORDS.validate_python(values)
    except (ValueError, TypeError, AttributeError, ValidationError) as error:
        raise ModelError(f"{path} is damaged: {str(error).splitlines()[0]}.", hint=again) from error
    if not weights.is_file():
        raise ModelError(f"{path} is there, but the weights {weights.name} that it is about are not.", hint=again)
    if file_checksum(weights) != record.weights_checksum:
        raise ModelError(
            f"{path} is about other weights than those in {weights.name}: the checksums differ.", hint=again
        )
    if membership not in (None, record.membership):
        raise ModelError(f"{path} states other members than those that {weights.name} was trained on.", hint=again)
    return record


def read_membership(weights: Path) -> str | None:
    """Read the `ModelRecord.membership` in a weights file; None if another program or an earlier version wrote it."""
    if Path(weights).suffix != ".safetensors" or not Path(weights).is_file():
        return None
    try:
        with safetensors.safe_open(weights, framework="pt") as content:
            return (content.metadata() or {}).get(_MEMBERSHIP)
    except (OSError, safetensors.SafetensorError):
        return None  # damaged, or no such file: reading the weights reports it


def read_target_record(weights: Path) -> TargetRecord | None:
    """Read the record of a target; None also for weights from the store, whose records have no members and non-members.

    Raises:
        ModelError: If the record is damaged, of a newer version, or not about these weights.
    """
    record = read_model_record(weights)
    return record if isinstance(record, TargetRecord) else None
