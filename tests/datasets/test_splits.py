from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from securitynet.datasets import load
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import sample_stratified, shuffle, unite
from securitynet.datasets.splits import PROTOCOLS, four_way, make, public
from securitynet.errors import ConfigurationError, SplitError


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load("digits")


def tiny(count: int, classes: int = 2, parts: dict | None = None) -> ImageDataset:
    labels = np.arange(count) % classes
    images = torch.zeros(count, 1, 2, 2, dtype=torch.uint8)
    return ImageDataset("tiny", images, labels, tuple(map(str, range(classes))), parts or {})


def test_four_way_divides_all_records_into_equal_disjoint_parts(digits: ImageDataset) -> None:
    split = four_way(digits)
    parts = [split.members, split.non_members, split.shadow_train, split.shadow_test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(1797))
    assert {len(part) for part in parts} == {449, 450}
    assert len(split.known_members) == round(0.7 * len(split.members))


def test_public_takes_the_parts_of_the_dataset(digits: ImageDataset) -> None:
    split = public(digits)
    assert np.array_equal(split.members, digits.parts["train"])
    assert np.array_equal(split.non_members, digits.parts["test"])
    assert len(split.known_members) == round(0.5 * 1437)
    assert len(split.shadow_train) == len(split.shadow_test) == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_the_adversary_knows_is_never_scored(protocol: str, digits: ImageDataset) -> None:
    split = make(protocol, digits, seed=3, known=0.3)
    for whole, known, scored in (
        (split.members, split.known_members, split.scored_members),
        (split.non_members, split.known_non_members, split.scored_non_members),
    ):
        assert not np.intersect1d(known, scored).size
        assert np.array_equal(np.union1d(known, scored), whole)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_the_seed_and_the_shares_decide(protocol: str, digits: ImageDataset) -> None:
    reference = make(protocol, digits, seed=1)
    np.random.seed(99)
    torch.manual_seed(99)
    random.seed(99)
    np.random.random(7)
    make(protocol, digits, seed=5)
    assert make(protocol, digits, seed=1).fingerprint == reference.fingerprint
    assert make(protocol, digits, seed=2).fingerprint != reference.fingerprint
    assert make(protocol, digits, seed=1, known=0.4).fingerprint != reference.fingerprint


def test_making_a_split_leaves_the_global_random_state_alone(digits: ImageDataset) -> None:
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), random.getstate()
    four_way(digits)
    load("digits", limit=20, size=4)
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), random.getstate()) == before


def test_fingerprints_stay_the_same_for_ever(digits: ImageDataset) -> None:
    # Published results name these. If a change breaks this test, it changes who is a member.
    assert four_way(digits, seed=0).fingerprint == "2bb2a6047b5e6fa5ff9bc660af5736c4"
    assert public(digits, seed=0).fingerprint == "a74ad443d16bb216859c884b09e22086"
    assert digits.fingerprint == "acb60c81248c7a15b5491aa6b76f17b2"
    assert shuffle(8, "purpose", 0).tolist() == [1, 5, 3, 0, 4, 2, 7, 6]


@pytest.mark.parametrize(
    ("dataset", "protocol", "options", "message"),
    [
        (tiny(15), "four-way", {}, "at least 16"),
        (tiny(40, classes=30), "four-way", {}, "would hold no record of class"),
        (tiny(20), "public", {}, "no train and no test"),
        (tiny(20, parts={"train": np.arange(20)}), "public", {}, "has no test part"),
        (tiny(20, parts={"train": np.arange(19), "test": np.array([19])}), "public", {}, "cannot be divided"),
        (tiny(20), "four-way", {"known": 1.0}, "between 0 and 1"),
        (tiny(20), "four-way", {"known": 0.01}, "cannot be divided"),
    ],
)
def test_splits_that_cannot_be_made(dataset: ImageDataset, protocol: str, options: dict, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        make(protocol, dataset, **options)


def test_unknown_protocol(digits: ImageDataset) -> None:
    with pytest.raises(ConfigurationError, match="Known: public, four-way"):
        make("three-way", digits)


@pytest.mark.parametrize("count", [5, 6, 17, 50, 99, 100])
def test_stratified_choice_keeps_class_shares(count: int) -> None:
    labels = np.repeat([0, 1, 2, 3, 4], [60, 20, 15, 4, 1])
    chosen = sample_stratified(labels, count, "key")
    assert len(np.unique(chosen)) == count
    got = np.bincount(labels[chosen], minlength=5)
    assert (got >= 1).all()
    assert (np.abs(got - np.bincount(labels) * count / 100) <= 3).all()


def test_stratified_choice_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        sample_stratified(np.array([0, 1, 2]), 2, "key")


def test_a_union_is_sorted_and_holds_each_record_once():
    draws = np.random.default_rng(0)
    for sizes in ((50, 30), (0, 5), (0, 0), (7,), (20, 20, 20)):
        parts = [draws.integers(0, 40, size) for size in sizes]
        found = unite(*parts)
        assert found.dtype == np.int64
        assert found.tolist() == sorted({int(value) for part in parts for value in part})
