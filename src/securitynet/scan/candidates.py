"""What a scan proposes: codes of the catalog, each with its evidence and a confidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from securitynet.catalog.known import complete_entry
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.store import Item
from securitynet.catalog.weights import names_weights
from securitynet.records import Record

SOURCE = "scan"


class Evidence(Record):
    """One value that was read from a folder.

    Attributes:
        code: Code of the catalog.
        value: Its value.
        reason: What it was read from, in a few words.
        confidence: From 0 to 1: 1 if it is written there, less if it was inferred.
    """

    code: str
    value: Any
    reason: str
    confidence: float


class Candidate(Record):
    """Weights that were found, and what can be said about them.

    Attributes:
        checksum: Digest of the tensors, or of a file that holds a whole model: candidates with equal ones are one.
        paths: Files that hold these weights, relative to the folder that was scanned.
        location: The first of them, as an absolute path.
        evidence: What was read, the surest value of each code first.
        notes: What a person should look at.
    """

    checksum: str
    paths: tuple[str, ...]
    location: str
    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Key of the entry: the same for the same weights on every machine."""
        return f"{SOURCE}:{self.checksum.partition(':')[2][:16]}"

    @property
    def confidence(self) -> float:
        """How sure it is which network the weights belong to; 0 if none is known. The entry cannot be loaded else."""
        surest = self.surest()
        return surest["reference"].confidence if "reference" in surest else 0.0

    def surest(self, least: float = 0.0) -> dict[str, Evidence]:
        """The surest evidence of each code.

        Args:
            least: Least confidence.
        """
        surest: dict[str, Evidence] = {}
        for item in sorted(self.evidence, key=lambda item: -item.confidence):
            if item.confidence >= least:
                surest.setdefault(item.code, item)
        return surest

    def item(self, least: float = 0.0) -> Item:
        """The entry, with the evidence as the source of each value.

        Args:
            least: Least confidence of a value; less sure ones are left out.
        """
        chosen = self.surest(least)
        codes = {name: item.value for name, item in chosen.items()}
        sources = {name: f"{SOURCE}: {item.reason} ({item.confidence:.2f})" for name, item in chosen.items()}
        codes |= {
            "key": self.key,
            "source": SOURCE,
            "name": self.paths[0],
            "checksum": self.checksum,
        }
        if not names_weights(codes.get("reference")):
            codes["weights_file"] = self.location
        if self.notes:
            codes["notes"] = " ".join(self.notes)[:5000]
        entry, filled = complete_entry(codes, sources)
        return Item(entry, filled)

    def row(self) -> dict[str, Any]:
        """The candidate as JSON types: the entry's codes, ``confidence`` and ``evidence``."""
        entry: CatalogEntry = self.item().entry
        evidence = [item.model_dump(mode="json") for item in self.evidence]
        return {**entry.known(), "paths": list(self.paths), "confidence": self.confidence, "evidence": evidence}


def accept(candidates: Iterable[Candidate], least: float) -> Iterator[Item]:
    """The entries of candidates that are sure enough; of these, the values that are.

    Args:
        candidates: From a scan.
        least: Least confidence.
    """
    for candidate in candidates:
        if candidate.confidence >= least:
            yield candidate.item(least)
