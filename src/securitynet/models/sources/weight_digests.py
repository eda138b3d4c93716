"""Weights compared with the digest that the catalog or a study file states for them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch

from securitynet.catalog.weights import TENSORS, split_digest
from securitynet.errors import WeightsMismatch
from securitynet.models.sources.weights import read_weights

_FULL_SHA256 = 64
_HINT = "Give the weights that the entry means, or name the network itself (arch:, timm:, ...) to use others."


def digest_tensors(state: Mapping[str, torch.Tensor]) -> str:
    """The digest of weights whatever the file, the order and the names of its tensors.

    It covers the shape and the bytes of every tensor as float32 (integers as they are). Counters of batch norms are
    left out: some files lack them, and they do not affect outputs.

    Returns:
        ``tensors:`` and 64 hexadecimal digits.
    """
    parts = []
    for key, value in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        tensor = value.detach().cpu().contiguous()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        part = hashlib.sha256(f"{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        part.update(tensor.flatten().view(torch.uint8).numpy().data)
        parts.append(part.hexdigest())
    return f"{TENSORS}:{hashlib.sha256(''.join(sorted(parts)).encode()).hexdigest()}"


def verify_weights(path: Path, stated: str, reference: str, *, fetched: bool = False) -> bool:
    """Compare a file of weights with a stated digest.

    Args:
        path: The file.
        stated: ``KIND:DIGITS``, or 64 digits of a SHA-256; the first digits of a file's digest are enough.
        reference: What the weights are for, for the message.
        fetched: Whether the library located the file itself. It may then be another format of the same weights, to
            which the digits in the name of the original file do not apply.

    Returns:
        Whether they were compared, and agree.

    Raises:
        WeightsMismatch: If they differ, or the digest is of a kind that cannot be computed.
    """
    digest = split_digest(stated)
    if digest is None:
        raise WeightsMismatch(
            f"The weights of {reference} cannot be compared with the stated checksum {stated!r}.",
            hint="Correct it to sha256:DIGITS of the file, or tensors:DIGITS.",
        )
    kind, digits = digest
    if fetched and kind == "sha256" and len(digits) < _FULL_SHA256 and path.suffix == ".safetensors":
        return False
    if kind == TENSORS:
        actual = digest_tensors(read_weights(path).tensors)
        if not actual.removeprefix(f"{TENSORS}:").startswith(digits):
            raise WeightsMismatch(
                f"{path.name} holds other weights than those of {reference}: their digest is {actual[:24]}…, "
                f"where {stated[:24]}… is stated.",
                hint=_HINT,
            )
        return True
    actual = _digest_file(path, kind)
    if not actual.startswith(digits):
        raise WeightsMismatch(
            f"{path.name} does not hold the weights of {reference}: its {kind} is {actual[:16]}…, "
            f"where {digits[:16]}{'…' if len(digits) > 16 else ''} is stated.",
            hint=_HINT,
        )
    return True


def _digest_file(path: Path, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
