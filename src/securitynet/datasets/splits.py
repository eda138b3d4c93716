"""Named index sets: the members, the records that the adversary knows, and those left to score on.

There are two protocols. Both depend only on the dataset's size and parts, a seed and the stated shares: not on global
random state, the architecture, or the order of calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffle
from securitynet.errors import ConfigurationError, SplitError
from securitynet.records import SplitIdentity

Indices = NDArray[np.int64]

PROTOCOLS = ("public", "four-way")


@dataclass(frozen=True, eq=False)
class Splits:
    """Index sets into one dataset, each sorted.

    Attributes:
        name: The protocol, ``public`` or ``four-way``.
        members: Training set of the target.
        non_members: Records on which the target was not trained.
        known_members: Members that the adversary knows as such (the ``partial`` auxiliary data).
        known_non_members: Non-members that the adversary knows as such.
        shadow_train: Data for shadow models; empty under ``public``.
        shadow_test: Non-members of the shadow models; empty under ``public``.
    """

    name: str
    members: Indices
    non_members: Indices
    known_members: Indices
    known_non_members: Indices
    shadow_train: Indices
    shadow_test: Indices

    @property
    def scored_members(self) -> Indices:
        """Members that the adversary did not use for training."""
        return np.setdiff1d(self.members, self.known_members, assume_unique=True)

    @property
    def scored_non_members(self) -> Indices:
        """Non-members that the adversary did not use for training."""
        return np.setdiff1d(self.non_members, self.known_non_members, assume_unique=True)

    def sets(self) -> Mapping[str, Indices]:
        """The six index sets by name."""
        names = ("members", "non_members", "known_members", "known_non_members", "shadow_train", "shadow_test")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over all index sets."""
        digest = hashlib.sha256(self.name.encode())
        for name, indices in self.sets().items():
            digest.update(name.encode() + len(indices).to_bytes(8, "little") + indices.astype("<i8").tobytes())
        return digest.hexdigest()[:32]

    @property
    def identity(self) -> SplitIdentity:
        """The part of a trial's record that describes the splits."""
        return SplitIdentity(name=self.name, fingerprint=self.fingerprint)


def public(dataset: ImageDataset, *, seed: int = 0, known: float = 0.5) -> Splits:
    """The public-model protocol (SecurityNet, section 3.2): members are the dataset's own training part.

    Args:
        dataset: A dataset with parts ``train`` and ``test``.
        seed: Determines which records the adversary knows.
        known: Share of members, and of non-members, that the adversary knows, in (0, 1).

    Raises:
        SplitError: If a part is missing, or too small to leave records on both sides.
    """
    _check_share(known)
    missing = [part for part in ("train", "test") if len(dataset.parts.get(part, ())) == 0]
    if missing:
        raise SplitError(
            f"{dataset.reference} has no {' and no '.join(missing)} part.",
            hint="A recording needs a column or array `member` that says which records were trained on."
            if dataset.images is None
            else "The public protocol needs the training and the test part; a model trained by `securitynet train` "
            "uses --split four-way.",
        )
    members, non_members = np.sort(dataset.parts["train"]), np.sort(dataset.parts["test"])
    return Splits(
        "public",
        members,
        non_members,
        _sample(members, known, seed, "known members"),
        _sample(non_members, known, seed, "known non-members"),
        np.empty(0, np.int64),
        np.empty(0, np.int64),
    )


def four_way(dataset: ImageDataset, *, seed: int = 0, known: float = 0.7) -> Splits:
    """Four equal random parts of the whole dataset (ML-Doctor, section 5.1).

    Target-train (members), target-test (non-members), shadow-train and shadow-test. The adversary with a partial
    dataset knows 70% of target-train by default, and the same share of target-test.

    Args:
        dataset: A dataset; all its records are pooled, whatever parts it has.
        seed: Determines the permutation.
        known: Share that the adversary with partial data knows, in (0, 1).

    Raises:
        SplitError: If a part would be too small, or a class would be absent from target-train.
    """
    _check_share(known)
    if len(dataset) < 16:
        raise SplitError(f"{dataset.reference} has {len(dataset)} records; four parts need at least 16.")
    order = shuffle(len(dataset), "four-way", seed)
    members, non_members, shadow_train, shadow_test = (np.sort(part) for part in np.array_split(order, 4))
    for name, indices in (("target-train", members), ("shadow-train", shadow_train)):
        absent = np.flatnonzero(np.bincount(dataset.labels[indices], minlength=dataset.num_classes) == 0)
        if len(absent):
            raise SplitError(
                f"{dataset.reference} is too small for four parts: {name} would hold no record of class "
                f"{dataset.class_names[absent[0]]!r}.",
                hint="Use another seed or a dataset with more records of each class.",
            )
    return Splits(
        "four-way",
        members,
        non_members,
        _sample(members, known, seed, "known members"),
        _sample(non_members, known, seed, "known non-members"),
        shadow_train,
        shadow_test,
    )


def make(protocol: str, dataset: ImageDataset, *, seed: int = 0, known: float | None = None) -> Splits:
    """Make the splits of a named protocol.

    Args:
        protocol: ``public`` or ``four-way``.
        dataset: The dataset.
        seed: Seed of the split.
        known: Share that the adversary with partial data knows, in (0, 1); None for the value of the protocol's paper.

    Raises:
        ConfigurationError: If there is no such protocol.
        SplitError: If a part is missing or too small, or a class would be absent from the members.
    """
    if protocol not in PROTOCOLS:
        raise ConfigurationError(f"There is no split protocol {protocol!r}.", hint=f"Known: {', '.join(PROTOCOLS)}.")
    function = public if protocol == "public" else four_way
    return function(dataset, seed=seed) if known is None else function(dataset, seed=seed, known=known)


def _check_share(known: float) -> None:
    if not 0 < known < 1:
        raise SplitError(f"The share that the adversary knows must be between 0 and 1, not {known}.")


def _sample(indices: Indices, share: float, seed: int, purpose: str) -> Indices:
    count = round(len(indices) * share)
    if not 0 < count < len(indices):
        raise SplitError(
            f"{len(indices)} records cannot be divided into {share * 100:.3g}% that the adversary knows and a rest to "
            "score."
        )
    # A separate order for each purpose, so that drawing one more set changes no other set.
    return np.sort(indices[shuffle(len(indices), purpose, seed)[:count]])
