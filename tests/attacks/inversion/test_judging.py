"""A classifier that does not recognise real images clears nothing, in measurements, policies and sentences."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from securitynet.assessments.policy import Bound, judge_bounds
from securitynet.attacks.inversion.base import Reconstructions
from securitynet.records import Access, Auxiliary, Queries, ThreatModel
from securitynet.reports.families import inversion
from securitynet.results.document import ResultDocument, TrialSummary

NAME = "inversion.fredrikson@none"


def reconstructions(rank, recognised, commonest=0) -> Reconstructions:
    classes = np.arange(10, dtype=np.int64)
    values, images = np.full(10, 0.5), np.zeros((10, 1, 8, 8), dtype=np.uint8)
    return Reconstructions(
        images=images,
        classes=classes,
        posterior=values,
        iterations=classes,
        rank=np.asarray(rank),
        mse=values,
        ssim=values,
        embedding_distance=values,
        feature_distance=values,
        nearest_distance=values,
        closer_to_member=classes % 2 == 0,
        labels=classes,
        names=tuple(map(str, range(10))),
        blank_mse=values,
        mean_colour_mse=values,
        other_class_mse=values,
        means=images,
        nearest=images,
        num_classes=10,
        recognised=recognised,
        commonest=commonest,
    )


def measured(output):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


def said(output):
    target = SimpleNamespace(num_classes=10)
    named = tuple(m.model_copy(update={"name": f"{NAME}.{m.name}"}) for m in measured(output).values())
    trial = TrialSummary(
        id="0",
        name=NAME,
        status="ok",
        reason=None,
        threat_model=ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.NONE),
        configuration={},
        queries=Queries(total=0, unique=0),
        seconds={},
    )
    return inversion.write_sentences(ResultDocument.model_construct(measurements=named, target=target), [trial])


@pytest.mark.parametrize("rank", [[1] * 10, [0] * 10])
def test_a_blind_judge_gives_no_verdict(rank):
    output = reconstructions(rank, (1, 12), 2)
    values = measured(output)
    for name in ("accuracy", "top5-accuracy", "accuracy-ratio"):
        assert values[name].value is None and "cannot judge" in values[name].note
    assert "cannot judge" in values["feature-distance"].note and values["mse"].note is None
    assert not judge_bounds({"accuracy": Bound(max=0.99)}, values.values()).met
    sentences = " ".join(said(output))
    assert "cannot be judged" in sentences and "guessing would give" not in sentences
    assert measured(Reconstructions.from_arrays(output.arrays())) == values


def test_a_judge_that_sees_gives_the_ratio():
    output = reconstructions([0] * 4 + [1] * 6, (90, 100), 10)
    values = measured(output)
    assert values["accuracy"].value == 0.4
    assert values["accuracy-ratio"].value == pytest.approx(0.4 / 0.9)
    assert values["judge-accuracy"].value == 0.9
    sentences = " ".join(said(output))
    assert "40.0%" in sentences or "40%" in sentences
    assert "0.44 times" in sentences and "cannot be judged" not in sentences


def test_results_of_earlier_versions_are_read():
    output = reconstructions([0] * 10, (90, 100))
    arrays = output.arrays()
    del arrays["commonest"]
    assert measured(Reconstructions.from_arrays(arrays)) == measured(dataclasses.replace(output, commonest=0))
