"""What reports say of model stealing."""

from __future__ import annotations

import pytest

from securitynet.metrics import rates
from securitynet.records import Access, Auxiliary, Direction, Queries, ThreatModel
from securitynet.reports import words
from securitynet.reports.families import stealing
from securitynet.results.document import ResultDocument, TrialSummary

NAME = "stealing.securitynet-surrogate@partial"


def trial(name=NAME):
    return TrialSummary(
        id="0",
        name=name,
        status="ok",
        reason=None,
        threat_model=ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
        configuration={},
        queries=Queries(total=500, unique=500),
        seconds={},
    )


def document(*measurements):
    return ResultDocument.model_construct(measurements=measurements)


def rate(name, count, n=1000):
    return rates.rate(f"{NAME}.{name}", count, n, direction=Direction.LOWER)


@pytest.mark.parametrize(
    "agreed, words_",
    [
        (800, ": always predicting the same class would agree on 10%."),
        (105, "not distinguishable"),
        (50, "less than a"),
    ],
)
def test_agreement_is_compared_with_a_constant_answer(agreed, words_):
    (sentence,) = stealing.write_sentences(
        document(rate("agreement", agreed), rate("constant-agreement", 100)), [trial()]
    )
    assert words_ in sentence and "queries the model with 500 images" in sentence


def test_growth_is_claimed_only_where_the_difference_shows_it():
    common = rate("agreement", 800), rate("constant-agreement", 100)
    for few, many, said in ((500, 800, "help:"), (780, 800, "not shown"), (800, 500, "reduce")):
        curve = rate("agreement@budget=100", few), rate("agreement@budget=5000", many)
        sentence = stealing.write_sentences(document(*common, *curve), [trial()])[-1]
        assert said in sentence and "5,000" in sentence


def test_nothing_is_said_where_nothing_was_measured():
    assert stealing.write_sentences(document(), [trial()]) == []


def test_measurements_have_names_for_people():
    assert words.find_kind(f"{NAME}.agreement").label == "Agreement with the target"
    assert words.find_kind(f"{NAME}.agreement@budget=500").label == "Agreement with the target, 500 queries"
