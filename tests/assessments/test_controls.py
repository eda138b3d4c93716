"""Controls of an assessment: groups that differ without the model, copies between them, and what is said of both."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from securitynet.assessments import assess as assessment
from securitynet.assessments.assessed_target import AssessedTarget
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.controls import measure_controls
from securitynet.assessments.policy import judge_bounds, read_policy
from securitynet.assessments.result import to_document
from securitynet.reports import verdict
from securitynet.reports.build import render_report
from securitynet.results.store import TrialStore

ATTACKS = ("membership.confidence", "membership.loss")


@pytest.fixture(scope="module")
def groups(overfitted, unseen):
    """(target, splits, dataset) of 700 records on either side, none of which the target was trained on."""
    target, _, dataset = overfitted
    return target, unseen(0), dataset


def assess(target, splits, dataset, folder, membership="known", cache="cache"):
    config = AssessConfig(model="arch:simple-cnn", attacks=ATTACKS, detectors=("none",), cache=folder / cache)
    subject = AssessedTarget(target, dataset, splits, 0, membership)
    return assessment.run_assessment(config, subject, TrialStore(folder))


def replace_images(dataset, images):
    return dataclasses.replace(dataset, images=images, content_digest=None)


@pytest.fixture(scope="module")
def shifted(groups, tmp_path_factory):
    """Members with a little noise: the groups differ, though the target saw neither."""
    target, splits, dataset = groups
    images = dataset.batch(np.arange(len(dataset), dtype=np.int64)).clone()
    noise = torch.randint(-24, 25, images[splits.members].shape, generator=torch.Generator().manual_seed(0))
    images[splits.members] = (images[splits.members].int() + noise).clamp(0, 255).to(torch.uint8)
    found = assess(target, splits, replace_images(dataset, images), tmp_path_factory.mktemp("shifted"), "assumed")
    return found, to_document(found)


def test_groups_that_differ_are_told_apart_and_every_sentence_says_so(shifted):
    found, document = shifted
    assert found["membership.blind.auc"].low > 0.5 and document.controls.blind.differ
    assert found["membership.loss.blind-auc"].value == found["membership.blind.auc"].value
    said = verdict.write_verdict(document)
    assert "Members and non-members differ anyway" in said[0]
    assert "only assumed" in said[1]
    attacks = [sentence for sentence in said if "can distinguish members" in sentence or "identif" in sentence]
    assert len(attacks) >= 2 and all("the groups differ anyway" in sentence for sentence in attacks)
    assert not any("better than guessing" in sentence for sentence in attacks)
    page = render_report([document], [found])
    assert "Blind baseline, without the model" in page and "the groups differ anyway" in page


def test_attacks_are_judged_on_matched_records_where_there_are_enough(groups, tmp_path):
    target, splits, dataset = groups
    images = dataset.batch(np.arange(len(dataset), dtype=np.int64)).clone()
    brighter = splits.members[::2]  # half of the members: the others have their match
    images[brighter] = (images[brighter].int() + 12).clamp(0, 255).to(torch.uint8)
    found = assess(target, splits, replace_images(dataset, images), tmp_path)
    document = to_document(found)
    assert document.controls.blind.differ and document.controls.blind.matched_pairs >= 50
    matched = found["membership.loss.matched-auc"]
    assert matched.n <= 2 * document.controls.blind.matched_pairs and matched.low <= 0.5 <= matched.high
    assert any("pairs of a member and a non-member" in sentence for sentence in verdict.write_verdict(document))


def test_groups_that_do_not_differ_are_not_said_to(groups, tmp_path):
    found = assess(*groups, tmp_path)
    document = to_document(found)
    assert not document.controls.blind.differ
    assert not any("differ anyway" in sentence for sentence in verdict.write_verdict(document))
    with pytest.raises(KeyError):
        found["membership.loss.matched-auc"]


def test_copies_are_counted_named_and_left_out_under_the_same_trial_ids(groups, tmp_path):
    target, splits, dataset = groups
    images = dataset.batch(np.arange(len(dataset), dtype=np.int64)).clone()
    images[splits.non_members[:300]] = images[splits.members[:300]]
    copied = replace_images(dataset, images)
    found = assess(target, splits, copied, tmp_path)
    document = to_document(found)
    copies = document.controls.copies
    assert copies.members >= 300 and copies.non_members >= 300 and copies.equal >= 300
    assert copies.named[0].member == copied.get_record_name(int(splits.members[0])) and copies.named[0].equal
    rest = 1400 - copies.members - copies.non_members
    assert found["membership.loss.auc"].n == rest == len(found.trials[0].output.scores)
    assert found["target.test_accuracy"].n == 700 - copies.non_members
    assert any("are copies of members" in sentence for sentence in verdict.write_verdict(document))
    # The trial's file keeps all scores, and says which were not judged; a second run reads the same.
    arrays = TrialStore(tmp_path).load_arrays(found.trials[0].result)
    assert len(arrays["scores"]) == 1400 and len(arrays["left_out"]) == 1400 - rest
    again = assess(target, splits, copied, tmp_path)
    assert all(trial.reused for trial in again.trials) and again.all_measurements() == found.all_measurements()


def test_groups_that_are_the_same_images_are_judged_whole_and_said_to_be(groups, tmp_path):
    target, splits, dataset = groups
    images = dataset.batch(np.arange(len(dataset), dtype=np.int64)).clone()
    images[splits.non_members] = images[splits.members]
    found = assess(target, splits, replace_images(dataset, images), tmp_path)
    document = to_document(found)
    assert document.controls.blind is None and "no copies" in document.controls.why_not
    assert found["membership.copies.share"].value == 1
    assert any("700 of 700 non-members are copies" in sentence for sentence in verdict.write_verdict(document))


def test_policies_may_bound_the_blind_baseline(shifted, tmp_path):
    found, _ = shifted
    path = tmp_path / "policy.toml"
    path.write_text('"membership.blind.auc" = { max = 0.55 }\n')
    assert not judge_bounds(read_policy(path), found.all_measurements()).met


def test_controls_are_computed_once(groups, tmp_path, monkeypatch):
    _, splits, dataset = groups
    first = measure_controls(dataset, splits, level=0.95, cache=tmp_path)
    monkeypatch.setattr("securitynet.assessments.controls.describe_records", None)  # must not be called again
    second = measure_controls(dataset, splits, level=0.95, cache=tmp_path)
    assert first.measurements == second.measurements and first.facts == second.facts
    next((tmp_path / "controls").iterdir()).write_bytes(b"damage")
    with pytest.raises(TypeError):
        measure_controls(dataset, splits, level=0.95, cache=tmp_path)


def test_recordings_have_no_images_to_look_at(groups):
    _, splits, dataset = groups
    found = measure_controls(dataclasses.replace(dataset, images=None), splits, level=0.95, cache=None)
    assert found.facts.blind is None and "no images" in found.facts.why_not and found.measurements == ()
