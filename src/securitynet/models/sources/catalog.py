"""A model of the user's catalog, by the id or the key of its entry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from securitynet.errors import ModelError
from securitynet.files import expand_home
from securitynet.models.sources.base import Progress
from securitynet.models.sources.references import ModelReference, parse_reference, refuse_untyped
from securitynet.models.sources.schemes import Scheme

SCHEME = Scheme("catalog", "catalog:ENTRY-ID", network=True, takes_weights=True)


@dataclass(frozen=True)
class EntryModel:
    """How the model of an entry is loaded, and what the entry states about it.

    Attributes:
        reference: The reference stored in the entry.
        id: Id of the entry.
        key: Its key.
        checksum: Digest of its weights; None if it states none.
        weights: URL or path of the file of weights, if the reference names a network only and the entry states it.
        complete: Whether the reference names weights, so that no file is needed.
        dataset: The dataset that it was trained on, as the catalog spells it.
        claimed_accuracy: Test accuracy that its publisher states, in [0, 1].
        image_size: Height of its input in pixels, if it is square and known.
    """

    reference: ModelReference
    id: str
    key: str
    checksum: str | None
    weights: str | None
    complete: bool
    dataset: str | None
    claimed_accuracy: float | None
    image_size: int | None

    def accuracy_on(self, dataset: str) -> float | None:
        """The claimed accuracy; None if unknown or for another dataset than the one of this name or reference."""
        from securitynet.catalog.known import spell_dataset

        same = self.dataset is not None and spell_dataset(self.dataset) == spell_dataset(dataset.partition("@")[0])
        return self.claimed_accuracy if same else None

    def weights_file(self, given: Path | None, progress: Progress | None = None, *, trust: bool = False) -> Path | None:
        """The file of weights to load: the given one, else the entry's own; None if the reference names the weights.

        Args:
            given: The file that the user names.
            progress: Called with (bytes done, total bytes) while the file is downloaded.
            trust: Whether the user trusts the entry, so that a file without a checksum may be opened.

        Raises:
            ModelError: If there is none: a network must not be used under an entry's name with other weights. Also
                if the entry is not trusted and states no checksum by which its file would be recognised.
        """
        if given is not None or self.complete:
            return given
        if self.weights is None:
            digest = f" (its checksum is {self.checksum})" if self.checksum else ""
            raise ModelError(
                f"The catalog's entry {self.key} names a network, {self.reference.without_folders()}, and no file of "
                f"weights{digest}.",
                hint=f"Give the file: catalog:{self.id} --weights FILE, or state it in the entry: "
                f"securitynet catalog edit {self.id} --weights-file FILE.",
            )
        if self.checksum is None and not trust:
            raise ModelError(
                f"The catalog's entry {self.key} names a file of weights, {self.weights}, and no checksum of it.",
                hint=f"Give the file: catalog:{self.id} --weights FILE, or add --trust (trust=True in Python).",
            )
        return fetch_weights(self.weights, self.id, self.checksum, progress)


def fetch_weights(location: str, identifier: str, checksum: str | None, progress: Progress | None = None) -> Path:
    """The local file of an entry's weights, downloaded if it is a URL.

    Args:
        location: URL or path.
        identifier: Id of the entry.
        checksum: Its digest, by which a downloaded file is recognised in the cache.
        progress: Called with (bytes done, total bytes).

    Raises:
        ModelError: If there is no such file, or it cannot be downloaded.
    """
    if location.startswith(("https://", "http://")):
        from securitynet.models.sources._download import fetch_address

        name = location.partition("?")[0].rstrip("/").rpartition("/")[2]
        sha256 = checksum.partition(":")[2] if checksum and checksum.startswith("sha256:") else None
        reference = f"catalog:{identifier}"
        return fetch_address(
            location, reference=reference, sha256=sha256, name=f"{identifier}-{name}", progress=progress
        )
    path = expand_home(location)
    if not path.is_file():
        raise ModelError(
            f"The weights of the catalog's entry {identifier} are not at {location}.",
            hint=f"Give the file with --weights, or correct the entry: securitynet catalog edit {identifier} "
            "--weights-file FILE.",
        )
    return path


def resolve_entry(reference: ModelReference, *, trust: bool = False) -> EntryModel:
    """Look up an entry of the user's catalog (`securitynet.catalog.using` chooses another).

    Args:
        reference: The reference of the entry.
        trust: Whether the user trusts the entry, so that it may name code, files and addresses.

    Raises:
        SecurityNetError: If there is no such entry.
        ConfigurationError: If it names code, a file or an address, and is not trusted.
        ModelError: If its model is not a classifier, or cannot be loaded by reference.
    """
    # Imported here, because other models need no database.
    from securitynet import catalog
    from securitynet.catalog.location import find_default_url, is_database_missing
    from securitynet.catalog.weights import locate_entry_weights, names_weights

    if is_database_missing(find_default_url()):
        raise ModelError(
            f"{reference} cannot be looked up: there is no catalog yet.",
            hint="Fill it with `securitynet catalog collect --all`, or name the model by another reference.",
        )
    with catalog.open() as opened:
        entry = opened.get(reference.name)
    if entry.head not in ("classifier", None):
        raise ModelError(
            f"The catalog's entry {entry.key} is not a classifier: it ends in {entry.head}.",
            hint="Find one with `securitynet catalog search`.",
        )
    if entry.reference is None:
        raise ModelError(
            f"The catalog's entry {entry.key} does not say how to load its model.",
            hint="See its links with `securitynet catalog show`, and load the files by another reference.",
        )
    if not trust:
        remedy = f"give {entry.reference} in its place, or add --trust (trust=True in Python)"
        refuse_untyped(entry.reference, f"The catalog's entry {entry.key}", remedy)
    stored = parse_reference(entry.reference)
    if stored.scheme == "catalog":
        raise ModelError(
            f"The catalog's entry {entry.key} refers to the catalog again.", hint="Correct its reference by editing it."
        )
    complete = names_weights(entry.reference)
    return EntryModel(
        reference=stored,
        id=entry.id,
        key=entry.key,
        checksum=entry.checksum,
        weights=None if complete else locate_entry_weights(entry),
        complete=complete,
        dataset=entry.dataset,
        claimed_accuracy=entry.claimed_accuracy,
        image_size=entry.image_height if entry.image_height == entry.image_width else None,
    )
