"""Assessments of a defended target: its shadow models imitate the defense, or the trial says why they can't."""

from __future__ import annotations

import json

import pytest

from securitynet.api import assess
from securitynet.assessments.trial_plan import digest_training
from securitynet.attacks.membership.lira import LiRA
from securitynet.defenses.dp_sgd import DpSgd
from securitynet.files import add_digest
from securitynet.models.shadows import ShadowPlan
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_model
from securitynet.models.training.config import TrainConfig


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network of 60 digits that DP-SGD keeps from learning much; batches of 32."""
    out = tmp_path_factory.mktemp("trained") / "m.safetensors"
    config = TrainConfig(
        architecture="simple-cnn", dataset="digits", limit=240, out=out, epochs=2, batch_size=32, defense="dp-sgd"
    )
    train_model(config, defense=DpSgd(epsilon=1, delta=1e-3))
    return out


def run(weights, out, *configure):
    found = assess(
        "arch:simple-cnn",
        "digits",
        weights=weights,
        limit=240,
        out=out,
        cache=out / "cache",
        attacks=("lira",),
        detectors=("none",),
        configure=("lira.shadows.count=4", *configure),
        device="cpu",
    )
    (trial,) = found.assessment.trials
    facts = [json.loads(path.read_text()) for path in (out / "cache" / "shadows").glob("*/weights.json")]
    return trial, [fact["defense"] and fact["defense"]["name"] for fact in facts]


@pytest.mark.slow
def test_shadow_models_imitate_the_defense_unless_told_otherwise(trained, tmp_path):
    imitating, shadows = run(trained, tmp_path / "a")
    assert imitating.result.status == "ok", imitating.result.reason
    assert shadows == ["dp-sgd"] * 4
    other, shadows = run(trained, tmp_path / "b", "lira.shadows.defense=none")
    assert other.result.status == "ok" and shadows == [None] * 4
    assert other.result.spec.id != imitating.result.spec.id


def test_what_cannot_be_imitated_fails_with_the_reason(trained, tmp_path):
    trial, shadows = run(trained, tmp_path, "lira.shadows.share=0.25", "lira.shadows.recipe={batch_size=90}")
    assert trial.result.status == "failed" and shadows == []
    assert "can't be trained with the target's defense: DP-SGD draws batches of 90" in trial.result.reason


def test_a_defense_this_version_does_not_know_fails_what_imitates_it(trained, tmp_path):
    facts = json.loads(trained.with_suffix(".json").read_text())
    facts["defense"]["name"] = "of-another-package"
    copy = tmp_path / "m.safetensors"
    copy.write_bytes(trained.read_bytes())
    copy.with_suffix(".json").write_text(json.dumps(add_digest(facts)))
    trial, shadows = run(copy, tmp_path / "out")
    assert trial.result.status == "failed" and shadows == []
    assert "of-another-package, which is not available" in trial.result.reason


def test_the_id_of_a_trial_covers_the_defense_and_that_it_is_imitated(trained):
    model = read_target_record(trained)
    other = model.defense.model_copy(update={"settings": {**model.defense.settings, "epsilon": 2.0}})
    digests = {
        digest_training(model.model_copy(update={"defense": defense})) for defense in (model.defense, other, None)
    }
    assert len(digests) == 3
    # Trials in which shadow models were trained without the defense had this id; they must not be taken for these.
    assert "defense" not in LiRA().model_dump(mode="json")["shadows"]
    assert LiRA(shadows=ShadowPlan(defense="none")).model_dump(mode="json")["shadows"]["defense"] == "none"
