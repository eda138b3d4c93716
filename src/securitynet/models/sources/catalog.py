"""A model of the user's catalog, by the id or the key of its entry."""

from __future__ import annotations

from pathlib import Path

from securitynet.errors import ModelError
from securitynet.models.sources.references import ModelReference, parse_reference, refuse_code
from securitynet.models.sources.schemes import Scheme

SCHEME = Scheme("catalog", "catalog:ENTRY-ID", network=True, takes_weights=True)


def stated_accuracy(reference: ModelReference, dataset: str) -> float | None:
    """Test accuracy that the publisher of an entry states, in [0, 1]; None if unknown or for another dataset."""
    from securitynet import catalog
    from securitynet.catalog.known import dataset_name

    with catalog.open() as opened:
        entry = opened.get(reference.name)
    same = entry.dataset is not None and dataset_name(entry.dataset) == dataset_name(dataset.partition("@")[0])
    return entry.claimed_accuracy if same else None


def resolve(reference: ModelReference) -> ModelReference:
    """The reference stored in an entry of the user's catalog.

    Raises:
        SecurityNetError: If there is no such entry.
        ModelError: If its model is not a classifier, or cannot be loaded by reference.
    """
    # Imported here, because other models need no database.
    from securitynet import catalog
    from securitynet.catalog.database import default_url

    if not Path(default_url().removeprefix("sqlite:///")).exists():
        raise ModelError(
            f"{reference} cannot be looked up: there is no catalog yet.",
            hint="Fill it with `securitynet catalog collect`, or name the model by another reference.",
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
    refuse_code(entry.reference, f"The catalog's entry {entry.key}")
    reference = parse_reference(entry.reference)
    if reference.scheme == "catalog":
        raise ModelError(
            f"The catalog's entry {entry.key} refers to the catalog again.", hint="Correct its reference by editing it."
        )
    return reference
