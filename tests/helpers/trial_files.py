"""A trial that was not run, for tests of the files that hold trials."""

from typing import Any

from securitynet.records import TrialResult

SPEC = {
    "target": {"reference": "arch:a", "checksum": "c", "preprocessing": {}, "head": "logits"},
    "dataset": {"reference": "d", "fingerprint": "f"},
    "split": {"name": "public", "fingerprint": "s"},
    "kind": "attack",
    "method": "membership.loss",
    "threat_model": {"access": "black-box", "auxiliary": "none"},
}


def make_trial(seed: int = 0, **fields: Any) -> TrialResult:
    """A trial that failed, unless its fields say otherwise."""
    return TrialResult.model_validate(
        {"spec": {**SPEC, "seed": seed}, "status": "failed", "reason": "old", "finished": "2026", **fields}
    )
