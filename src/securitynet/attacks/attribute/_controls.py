"""The controls of an attribute attack, computed once for all targets of one architecture and dataset.

They do not depend on the target's weights. Random networks are recognised by their own weights and by what they compute
for a few records, so that a stated architecture need not be believed.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from securitynet.attacks.attribute._random_network import randomise
from securitynet.datasets.locks import hold_file_lock
from securitynet.errors import SecurityNetError
from securitynet.files import hash_stably, read_with_digest, write_with_digest
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.sources.weights import state_checksum
from securitynet.models.targets.signals import collect_embeddings
from securitynet.models.targets.target import Target
from securitynet.randomness import derive_seed

logger = logging.getLogger(__name__)

VERSION = 1
"""Of what is cached; raise it when the controls change."""

RANDOM_NETWORKS = 3
"""Networks with random weights that the target is compared with."""

_PROBED = 16


@dataclass(frozen=True, eq=False)
class InferredValues:
    """Posteriors of the evaluated records, N×V, and the weight of the network in them."""

    weight: float
    posteriors: NDArray[np.float64]

    def values(self) -> NDArray[np.int64]:
        """The likeliest value of each record, N."""
        return np.asarray(self.posteriors.argmax(axis=1), dtype=np.int64)

    def notes(self) -> tuple[str, ...]:
        """Return a note if the network was ignored."""
        if self.weight > 0:
            return ()
        return (
            "On held-back records, the network was no better than the frequencies of the values, so "
            "the most frequent value is predicted for all records.",
        )


ByAttribute = Mapping[str, InferredValues]
"""What was inferred of each attribute, by its name."""


def make_random_networks(target: Target, seed: int) -> tuple[list[Target], str | None]:
    """Make networks of the target's architecture with random weights; if there are none, the reason why.

    Args:
        target: Under white-box access.
        seed: Seed of the run.
    """
    networks = []
    for number in range(RANDOM_NETWORKS):
        try:
            network = randomise(target, derive_seed(seed, "attribute control", number))
        except SecurityNetError as error:  # the target's own embeddings are there: they are what is evaluated
            return [], f"There is no comparison with random weights: {error.message}"
        if network is None:
            return [], "There is no comparison with random weights: the target's network cannot be copied."
        networks.append(network)
    return networks, None


def identify_network(network: Target, data: TrialData, records: NDArray[np.int64], layer: str | None) -> list[object]:
    """Return JSON that stands for all embeddings of a random network.

    Args:
        network: The network.
        data: Data of the trial.
        records: The records whose embeddings are needed, N.
        layer: See `collect_embeddings`.
    """
    module = network.module
    assert isinstance(module, nn.Module)  # a copy of one
    probe = collect_embeddings(network, data.dataset, records[:_PROBED], layer=layer).values
    return [
        state_checksum(module.state_dict(), repr(module)),
        network.preprocessing.canonical(),
        network.precision,
        hash_stably(probe.astype(np.float64).tolist()),
    ]


def obtain_controls(
    identity: Mapping[str, object],
    names: Sequence[str],
    count: int,
    context: Context,
    compute: Callable[[], Sequence[ByAttribute]],
) -> Sequence[ByAttribute]:
    """Read controls from the cache, or compute and store them.

    Args:
        identity: JSON that determines them.
        names: Names of the attributes.
        count: Number of controls.
        context: Names the cache; without one they are computed.
        compute: Computes what each control infers.
    """
    if context.cache is None:
        return compute()
    path = context.cache / "attributes" / f"{hash_stably({'version': VERSION, **identity})}.npz"
    with hold_file_lock(path.with_suffix(".lock")):  # another worker may be computing them
        stored = _read(path, names, count)
        if stored is not None:
            return stored
        computed = compute()
        buffer = io.BytesIO()
        arrays = {
            f"{number} {at} {part}": getattr(control[name], part)
            for number, control in enumerate(computed)
            for at, name in enumerate(names)
            for part in ("weight", "posteriors")
        }
        np.savez(buffer, allow_pickle=False, **arrays)
        write_with_digest(path, buffer.getvalue())
        return computed


def _read(path: Path, names: Sequence[str], count: int) -> list[ByAttribute] | None:
    try:
        payload = read_with_digest(path)
    except FileNotFoundError:
        return None
    if payload is None:
        logger.warning("Cached controls of attribute inference are damaged and are computed again: %s", path.name)
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        return [
            {
                name: InferredValues(
                    float(arrays[f"{number} {at} weight"]), np.asarray(arrays[f"{number} {at} posteriors"])
                )
                for at, name in enumerate(names)
            }
            for number in range(count)
        ]
