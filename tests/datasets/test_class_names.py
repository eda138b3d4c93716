"""Names of classes that differ less than they seem to."""

from __future__ import annotations

import pytest

from securitynet.datasets.class_names import explain_difference, find_name_order, find_near_name

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_near_names() -> None:
    assert find_near_name("Hot_Dog", ["hot dog", "cat", "Hot_Dog"]) == "hot dog"
    assert find_near_name("Hot_Dog", ["hot dog", "HOTDOG"]) is None  # which of them is unknown
    assert find_near_name("hot dogs", ["hot dog"]) is None
    assert find_near_name("cafe", [COMPOSED]) is None  # an accent makes another word


def test_positions_of_names_in_another_order() -> None:
    assert find_name_order([DECOMPOSED, "b", "c"], ["c", COMPOSED, "b"]) == [1, 2, 0]
    assert find_name_order(["a", "b"], ["a", "c"]) is None
    assert find_name_order(["a", "b"], ["a", "b", "c"]) is None
    assert find_name_order([COMPOSED, DECOMPOSED], [COMPOSED, "b"]) is None


@pytest.mark.parametrize(
    ("names", "others", "words"),
    [
        (["a", "b"], ["a", "b"], None),
        (["a", "b"], ["a", "c"], None),
        ([COMPOSED, "b"], [DECOMPOSED, "b"], "another Unicode form"),
        (["a", "b", "c"], ["b", "a", "c"], "another order: a is 0 here and 1 there, b is 1 here and 0 there."),
        (["Hot_Dog", "b"], ["hot dog", "b"], "case or spacing only: 'Hot_Dog' here and 'hot dog' there"),
    ],
)
def test_differences_in_words(names: list[str], others: list[str], words: str | None) -> None:
    found = explain_difference(names, others)
    if words is None:
        assert found is None
    else:
        assert found is not None and words in found
