"""The index of search terms, by hand; tests/web/test_reading.py compares it with the database's own."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from securitynet.web.term_index import TermIndex, build_terms

TEXTS = {2: "resnet 50 year=2016", 3: "resnext 50", 7: "vgg resnet", 9: "hidden"}


@pytest.fixture(scope="module")
def index() -> TermIndex:
    parts = [
        pl.DataFrame({"number": numbers, "search_text": [TEXTS[number] for number in numbers]})
        for numbers in ([2, 3], [7, 9])
    ]
    return TermIndex(build_terms(parts), np.array([2, 3, 7]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resnet", [2, 7]),
        ("ResNet 50", [2]),
        ("resn", [2, 3, 7]),
        ("vg", [7]),
        ("res*", [2, 3, 7]),
        ("res* vgg", [7]),
        ("res 5", [2, 3]),
        ("hidden", []),
        ("hid", []),
        ("absent", []),
        ("...", [2, 3, 7]),
    ],
)
def test_words_and_beginnings(index: TermIndex, text: str, expected: list[int]) -> None:
    assert np.array([2, 3, 7])[index.match(text)].tolist() == expected


def test_an_empty_catalog_has_no_terms() -> None:
    empty = pl.DataFrame(schema={"number": pl.Int64, "search_text": pl.String})
    terms = build_terms([empty])
    assert terms.height == 0
    assert TermIndex(terms, np.zeros(0, dtype=np.int64)).match("net").tolist() == []
