"""Why a target of a study cannot be loaded as it is declared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.weights import TENSORS, compare_checksums
from securitynet.studies.definition.paths import list_paths


def find_loading_obstacle(
    config: dict[str, Any],
    file_digests: Mapping[str, str | None],
    checksum: str | None,
    enforced: str | None,
    lacks_weights: CatalogEntry | None,
) -> str | None:
    """Find the first reason why a target cannot be loaded as declared; None if there is none.

    Args:
        config: Options of `AssessConfig`, paths absolute.
        file_digests: Digest of each file that they name; None for a missing one.
        checksum: What the study expects of the weights.
        enforced: What loading will enforce.
        lacks_weights: The entry of the catalog, if it names a network and nothing names its weights.
    """
    for what, path in list_paths(config):
        if file_digests[what] is None:
            return f"{what} is missing: {path}"
    if checksum is not None and "weights" in config and not checksum.startswith(f"{TENSORS}:"):
        plain = checksum.lower().removeprefix("sha256:")
        actual = str(file_digests["weights"])
        if not actual.startswith(plain):
            return f"the weights have the checksum {actual[:16]}…, where {plain[:16]}… was expected"
    if lacks_weights is not None:
        return (
            f"the catalog's entry {lacks_weights.key} names a network and no file of weights with its checksum; give "
            f"weights, or state both in the entry (securitynet catalog edit {lacks_weights.id} --weights-file FILE "
            "--checksum DIGEST)"
        )
    if compare_checksums(enforced, _with_kind(checksum)) is False:
        return f"the study expects the checksum {checksum}, the catalog states {enforced}"
    return None


def _with_kind(checksum: str | None) -> str | None:
    """The checksum of a study file, which may leave out that it is a SHA-256, as the catalog writes it."""
    return checksum if checksum is None or ":" in checksum else f"sha256:{checksum.lower()}"
