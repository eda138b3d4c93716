"""Results with their trial files, written as an assessment writes them, without running one."""

from __future__ import annotations

import numpy as np

from securitynet.files import write_json
from securitynet.records import (
    Access,
    Auxiliary,
    DatasetIdentity,
    Direction,
    Measurement,
    SplitIdentity,
    TargetIdentity,
    ThreatModel,
    TrialResult,
    TrialSpec,
)
from securitynet.results.document import DatasetDescription, ResultDocument, TargetDescription, TrialSummary
from securitynet.results.store import TrialStore

ATTACK = "membership.loss"
N = 400


def auc_of(value, low, high):
    return Measurement(
        name=f"{ATTACK}.auc", value=value, low=low, high=high, n=N, direction=Direction.LOWER, method="by hand"
    )


def write_result(folder, checksum, scores, correct, fingerprint="f" * 16, extra=(), auc=(0.6, 0.55, 0.65)):
    """A result with one membership attack and its trial file, as an assessment writes them."""
    is_member = np.arange(N) < N // 2
    threat = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.NONE)
    spec = TrialSpec(
        target=TargetIdentity(reference="arch:a", checksum=checksum, preprocessing={}, head="logits"),
        dataset=DatasetIdentity(reference="d", fingerprint=fingerprint),
        split=SplitIdentity(name="public", fingerprint="s"),
        kind="attack",
        method=ATTACK,
        threat_model=threat,
    )
    measured = (auc_of(*auc), *extra)
    result = TrialResult(spec=spec, status="ok", measurements=measured, finished="2026-01-01T00:00:00+00:00")
    arrays = {"indices": np.arange(N), "scores": scores, "is_member": is_member, "correct": correct}
    TrialStore(folder).save(result, arrays)
    right = [float(correct[is_member].mean()), float(correct[~is_member].mean())]
    accuracies = tuple(
        Measurement(
            name=f"target.{part}_accuracy", value=value, low=max(value - 0.05, 0), high=min(value + 0.05, 1), n=N // 2,
            direction=Direction.HIGHER, method="by hand",
        )
        for part, value in zip(("train", "test"), right, strict=True)
    )  # fmt: skip
    document = ResultDocument(
        created="2026-01-01T00:00:00+00:00",
        target=TargetDescription(
            reference="arch:a", checksum=checksum, preprocessing="none", normalize="none", head="logits",
            num_classes=2, access="white-box", precision="fp32",
        ),
        dataset=DatasetDescription(
            reference="d", fingerprint=fingerprint, records=N, classes=("a", "b"), image_shape=None, split="public",
            split_seed=0, split_fingerprint="s", membership="known", members=N // 2, non_members=N // 2,
            known_members=0, known_non_members=0,
        ),
        measurements=(*measured, *accuracies),
        trials=(
            TrialSummary(
                id=result.id, name=ATTACK, status="ok", reason=None, threat_model=threat, configuration={},
                queries=result.queries, seconds={},
            ),
        ),
        not_assessed=(), queries={}, seconds={}, environment={}, settings={"model": "arch:a"},
    )  # fmt: skip
    write_json(folder / "result.json", document.to_json())
    rows = "".join(f"{k},photos/{k:03d}.png\n" for k in range(N))
    (folder / "exposed.csv").write_text("record,file\n" + rows)
    return document
