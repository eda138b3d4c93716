"""`RepairRecord`: the part of a model record that describes how a backdoor was removed from a trained model."""

from __future__ import annotations

from typing import Any

from securitynet.records import Record


class RepairScan(Record):
    """What a search for triggers (Neural Cleanse) found in a model.

    Attributes:
        label: The class with the smallest trigger; None if no search found a trigger that works.
        norm: Norm of that trigger's mask, in pixels.
        median: Median of the norms of all classes.
        flagged: Classes that the paper's rule flags.
    """

    label: int | None
    norm: float | None
    median: float | None
    flagged: tuple[int, ...] = ()


class RepairOutcome(Record):
    """What was measured on held-out images before or after a repair.

    Attributes:
        accuracy: Accuracy on clean images, in [0, 1].
        records: Their number.
        success: Attack success rate of the known trigger, in [0, 1]; None if no trigger is known.
        tried: Number of images with the known trigger.
        reconstructed: Attack success rate of the smallest trigger that was reconstructed before the repair; None if
            there is none.
        scan: The search for triggers; None if it was left out.
    """

    accuracy: float
    records: int
    success: float | None = None
    tried: int = 0
    reconstructed: float | None = None
    scan: RepairScan | None = None


class RepairRecord(Record):
    """The part of a model record that describes how a backdoor was removed from a trained model.

    Attributes:
        defenses: Names of the defenses that were applied, in their order.
        settings: Their fields.
        source: Digest of the weights before the repair.
        images: Number of clean images that the repair used.
        non_members: Number of non-members of the split among them; the repaired model was trained on these.
        seed: Seed of the repair.
        before: Measurements before the repair.
        after: Measurements after it.
        notes: Remarks for the reader.
    """

    defenses: tuple[str, ...]
    settings: tuple[dict[str, Any], ...]
    source: str
    images: int
    non_members: int = 0
    seed: int
    before: RepairOutcome
    after: RepairOutcome
    notes: tuple[str, ...] = ()

    @property
    def requested(self) -> dict[str, Any]:
        """What determined the repaired weights, as JSON values."""
        return self.model_dump(mode="json", include={"defenses", "settings", "source", "images", "seed"})
