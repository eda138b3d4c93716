"""Records: trial ids, measurements, threat models."""

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

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
from securitynet.results.store import TrialStore, parse_trial

SPEC = TrialSpec(
    target=TargetIdentity(reference="arch:x", checksum="c0ffee", preprocessing={"mean": [0.5]}, head="logits"),
    dataset=DatasetIdentity(reference="digits", fingerprint="f00d"),
    split=SplitIdentity(name="public", fingerprint="5917"),
    kind="attack",
    method="membership.correctness",
    threat_model=ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.NONE),
)


def test_id_is_pinned():
    # If this changes, every finished trial of every user is orphaned: raise TRIAL_VERSION and mean it.
    assert SPEC.id == "09b2ad53831e275081e10e2f525d5672"


def test_id_is_the_same_in_another_process_and_from_the_finished_file(tmp_path):
    code = "import sys; from securitynet.records import TrialSpec; print(TrialSpec.model_validate_json(sys.argv[1]).id)"
    other = subprocess.run(
        [sys.executable, "-c", code, SPEC.model_dump_json()], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == SPEC.id
    store = TrialStore(tmp_path)
    store.save(TrialResult(spec=SPEC, status="skipped", reason="no", finished="2026-01-01T00:00:00+00:00"))
    path = tmp_path / "trials" / SPEC.id[:2] / f"{SPEC.id}.json"
    assert json.loads(path.read_text())["id"] == SPEC.id
    assert store.load(SPEC.id).id == parse_trial(path.read_text()).id == SPEC.id


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"method": "membership.other"},
        {"configuration": {"k": 3}},
        {"method_version": 2},
        {"precision": "bf16"},
        {"threat_model": ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.NONE)},
        {"target": SPEC.target.model_copy(update={"checksum": "other"})},
        {"target": SPEC.target.model_copy(update={"head": "probabilities"})},
        {"dataset": SPEC.dataset.model_copy(update={"fingerprint": "other"})},
        {"split": SPEC.split.model_copy(update={"fingerprint": "other"})},
    ],
)
def test_id_changes_with_what_decides_the_result(change):
    assert SPEC.model_copy(update=change).id != SPEC.id


def test_id_does_not_depend_on_names_and_has_no_runtime_fields():
    assert SPEC.model_copy(update={"target": SPEC.target.model_copy(update={"reference": "copy"})}).id == SPEC.id
    assert not {"device", "workers", "batch_size"} & set(TrialSpec.model_fields)


def test_measurement_needs_an_interval_that_holds_its_value():
    common = {"name": "x", "n": 5, "direction": Direction.LOWER, "method": "m"}
    Measurement(value=None, note="not resolvable", **common)
    with pytest.raises(ValidationError, match="no interval"):
        Measurement(value=0.5, **common)
    with pytest.raises(ValidationError, match="outside"):
        Measurement(value=0.5, low=0.6, high=0.7, **common)


def test_damaged_trial_files_are_noticed(tmp_path, caplog):
    import numpy as np

    store = TrialStore(tmp_path)
    result = TrialResult(spec=SPEC, status="ok", finished="2026-01-01T00:00:00+00:00")
    result = store.save(result, {"scores": np.arange(5.0)})
    assert store.load_arrays(result)["scores"].tolist() == [0, 1, 2, 3, 4]
    arrays = store.path(SPEC.id, ".npz")
    arrays.write_bytes(arrays.read_bytes()[:-20])
    assert store.load_arrays(result) is None
    record = store.path(SPEC.id)
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 7'))
    assert store.load(SPEC.id) is None and "does not match" in caplog.text
    record.write_text("{")
    assert store.load(SPEC.id) is None
    assert list(store) == []


def test_every_threat_model_can_be_said_in_words():
    for access in Access:
        for auxiliary in Auxiliary:
            words = ThreatModel(access=access, auxiliary=auxiliary).in_words()
            assert words.startswith("The adversary ") and words.endswith(".")


@pytest.mark.parametrize(("low", "value", "high"), [(0, 1e308, 1e308), (-1e308, 0, 0), (0, 0, 1e101)])
def test_values_of_which_no_differences_can_be_taken_are_refused(low, value, high):
    with pytest.raises(ValidationError, match="beyond 1e100"):
        Measurement(name="a", value=value, low=low, high=high, n=1, direction="lower", method="m")
