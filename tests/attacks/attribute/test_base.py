"""Attribute inference: what embeddings give away, and what they don't; the contract of attacks; settings and errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from securitynet.attacks import ATTACKS
from securitynet.attacks.attribute._embedding_networks import EmbeddingScale
from securitynet.attacks.attribute.base import InferredAttributes, name_attributes
from securitynet.datasets.base import Attribute
from securitynet.datasets.splits import four_way
from securitynet.errors import AccessDenied, ConfigurationError, ModelError, SplitError, UnknownName
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.architectures.factory import build
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.query_count import QueryCounter
from securitynet.models.targets.signals import collect_embeddings
from securitynet.models.targets.target import Target
from securitynet.models.training.fit import fit
from securitynet.models.training.recipe import Recipe
from securitynet.records import Access, Auxiliary, ThreatModel

PARTIAL = ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL)
SHADOW = ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.SHADOW)
NAMES = ATTACKS.names("attribute")
CASES = [(name, model) for name in NAMES for model in ATTACKS.get(name).threat_models]


@pytest.fixture(scope="module")
def network(digits):
    """A digit classifier."""
    splits = four_way(digits, known=0.7)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build("simple-cnn", 10, channels=1, image_size=8)
    recipe = Recipe(epochs=12, batch_size=32, optimizer="adam", learning_rate=2e-3, schedule="constant", weight_decay=0)
    fit(network, digits.images, digits.labels[splits.members], recipe, indices=splits.members)
    return network.eval()


def target_of(network, **settings):
    backend = ModuleBackend(network, reference="arch:simple-cnn", checksum="digits", example_shape=(1, 8, 8))
    return Target(backend, access=Access.WHITE_BOX, **settings)


@pytest.fixture
def target(network):
    return target_of(network)


def with_attributes(digits, **values):
    made = {
        name.replace("_", "-"): Attribute(np.asarray(codes, dtype=np.int64), tuple(f"v{i}" for i in range(count)))
        for name, (codes, count) in values.items()
    }
    dataset = dataclasses.replace(digits, attributes={**digits.attributes, **made})
    return TrialData(dataset, four_way(dataset, known=0.7))


@pytest.fixture(scope="module")
def data(digits):
    return with_attributes(digits)


def run(target, data, model=PARTIAL, cache=None, seed=0, name="embedding-mlp", **fields):
    return ATTACKS.get(name)(**fields)(target, data, Context(seed=seed, cache=cache, device="cpu"), model)


def measures(output):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


@pytest.mark.parametrize("name, model", CASES)
def test_slant_and_thickness_are_inferred_beyond_the_digit(name, model, target, data, tmp_path):
    found = measures(run(target, data, model, tmp_path, name=name, epochs=25))
    assert set(found) == {
        f"{attribute}.{measure}"
        for attribute in ("slant", "stroke-thickness")
        for measure in (
            "gain",
            "accuracy",
            "baseline-accuracy",
            "macro-f1-gain",
            "macro-f1",
            "baseline-macro-f1",
            "random-gain",
            "gain-over-random",
            "pixel-gain",
            "gain-over-pixels",
        )
    }
    assert found["slant.gain"].low > 0.05 and found["slant.accuracy"].low > 0.8
    assert found["stroke-thickness.gain"].low > 0.03
    assert found["slant.macro-f1-gain"].low > 0.05
    assert {m.direction.value for m in found.values()} == {"lower"}


@pytest.mark.parametrize("name, model", CASES)
def test_a_random_attribute_is_not(name, model, target, digits, tmp_path):
    generator = np.random.default_rng(11)
    n = len(digits)
    data = with_attributes(
        digits,
        fair=(generator.integers(0, 2, n), 2),
        four=(generator.integers(0, 4, n), 4),
        skewed=(generator.random(n) < 0.3, 2),
        rare=(generator.random(n) < 0.05, 2),
    )
    random = ("fair", "four", "skewed", "rare")
    found = measures(run(target, data, model, tmp_path, name=name, attributes=random, epochs=8))
    for attribute in random:
        for measure in (found[f"{attribute}.gain"], found[f"{attribute}.macro-f1-gain"]):
            half = (measure.high - measure.low) / 2
            assert abs(measure.value) < 1.6 * half, measure.name  # about 3 standard errors


def test_what_the_label_says_is_no_gain(target, digits, tmp_path):
    data = with_attributes(digits, even=(digits.labels % 2, 2))
    found = measures(run(target, data, cache=tmp_path, attributes=("even",), epochs=25))
    assert found["even.accuracy"].low > 0.85 and found["even.baseline-accuracy"].value == 1
    assert found["even.gain"].high <= 0


@pytest.mark.parametrize("name, model", CASES)
def test_contract(name, model, network, data, tmp_path):
    first_target = target_of(network, query_counter=QueryCounter())
    context = Context(cache=tmp_path / "a", device="cpu")
    attack = ATTACKS.get(name)(epochs=3, repeats=2, attributes=("slant",))
    first = attack(first_target, data, context, model)
    splits = data.splits
    learned = splits.shadow_train if model == SHADOW else splits.known_members
    asked = len(learned) + len(splits.non_members)
    assert context.queries().total == first_target.query_counter.total == asked
    np.testing.assert_array_equal(first.attributes[0].indices, splits.non_members)
    np.random.seed(3)
    torch.manual_seed(3)
    again = attack(target_of(network), data, Context(cache=tmp_path / "b", device="cpu"), model)
    for key, array in first.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[key])
    attack(first_target, data, Context(cache=tmp_path / "a", device="cpu"), model)
    assert first_target.query_counter.total == asked  # embeddings are cached
    kept = InferredAttributes.from_arrays(first.arrays())
    assert measures(kept) == measures(first)
    with pytest.raises(AccessDenied):
        attack(first_target.under(Access.BLACK_BOX), data, Context(), model)
    with pytest.raises(ConfigurationError, match="does not serve"):
        attack(first_target, data, Context(), ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.NONE))
    other = attack(first_target, data, Context(seed=1, cache=tmp_path / "a", device="cpu"), model)
    assert (other.attributes[0].predicted != first.attributes[0].predicted).any()


def test_nobody_is_learned_from_and_judged(target, data, tmp_path):
    splits = data.splits
    members = run(target, data, cache=tmp_path, judged="members", epochs=3, attributes=("slant",))
    np.testing.assert_array_equal(members.attributes[0].indices, splits.scored_members)
    # What the judged are is never looked at: whatever they are said to be, the answers are the same.
    attribute = data.dataset.attributes["slant"]
    values = attribute.values.copy()
    values[splits.non_members] = 1 - values[splits.non_members]
    turned = dataclasses.replace(data.dataset, attributes={"slant": Attribute(values, attribute.names)})
    one = run(target, data, cache=tmp_path, epochs=3, attributes=("slant",)).attributes[0]
    other = run(target, TrialData(turned, splits), epochs=3, attributes=("slant",)).attributes[0]
    np.testing.assert_array_equal(one.predicted, other.predicted)
    np.testing.assert_array_equal(one.baseline, other.baseline)
    np.testing.assert_array_equal(one.truth, 1 - other.truth)


def test_what_is_not_annotated_is_left_out(target, digits, tmp_path):
    values = digits.attributes["slant"].values.copy()
    values[::3] = -1
    data = with_attributes(digits, partly=(values, 2))
    (found,) = run(target, data, cache=tmp_path, attributes=("partly",), epochs=3).attributes
    assert (found.indices % 3 != 0).all() and (found.truth >= 0).all()
    assert len(found.indices) == (data.splits.non_members % 3 != 0).sum()
    values[data.splits.non_members] = -1
    with pytest.raises(SplitError, match="not annotated for any of the non-members"):
        run(target, with_attributes(digits, partly=(values, 2)), attributes=("partly",))
    values[data.splits.known_members] = -1
    with pytest.raises(ConfigurationError, match="not annotated for any record that the adversary knows"):
        run(target, with_attributes(digits, partly=(values, 2)), attributes=("partly",))


def test_a_value_that_nobody_known_has_is_never_said_and_noted(target, digits, tmp_path):
    data = with_attributes(digits)
    values = digits.attributes["slant"].values.copy()
    values[data.splits.non_members[:40]] = 2
    data = with_attributes(digits, unknown=(values, 3))
    (found,) = run(target, data, cache=tmp_path, attributes=("unknown",), epochs=5).attributes
    assert (found.predicted != 2).all()
    assert "40 evaluated records have a value ('v2')" in found.notes[0]


def test_an_attribute_with_one_value(target, digits, tmp_path):
    constant = with_attributes(digits, constant=(np.zeros(len(digits)), 1))
    with pytest.raises(ConfigurationError, match="'constant' has only one value, 'v0'"):
        run(target, constant, cache=tmp_path, attributes=("constant",))
    # Among all attributes it is left out, and the others are told.
    found = run(target, constant, cache=tmp_path, epochs=2)
    assert [one.name for one in found.attributes] == ["slant", "stroke-thickness"]
    assert "'constant' has only one value" in measures(found)["slant.gain"].note
    values = np.ones(len(digits))
    values[constant.splits.non_members] = 0
    with pytest.raises(ConfigurationError, match="among the records that the adversary knows"):
        run(target, with_attributes(digits, known_alike=(values, 2)), attributes=("known-alike",))


def test_clear_errors_before_long_work(network, digits, data):
    target = target_of(network, query_counter=QueryCounter(cap=0))  # anything that is asked would be another error
    with pytest.raises(UnknownName, match=r"no attribute named 'slnat'.*slant"):
        run(target, data, attributes=("slnat",))
    with pytest.raises(ConfigurationError, match="No attribute"):
        run(target, data, attributes=())
    bare = TrialData(dataclasses.replace(digits, attributes={}), data.splits)
    with pytest.raises(ConfigurationError, match="has no attributes"):
        run(target, bare)
    empty = np.empty(0, np.int64)
    splits = dataclasses.replace(data.splits, shadow_train=empty, known_members=empty)
    with pytest.raises(SplitError, match="no shadow data"):
        run(target, TrialData(data.dataset, splits), SHADOW)
    with pytest.raises(SplitError, match="no members that the adversary knows"):
        run(target, TrialData(data.dataset, splits))
    assert ATTACKS.get("embedding-mlp")(attributes="slant+a b").attributes == ("slant", "a b")
    for fields in ({"epochs": 0}, {"neurons": 0}, {"learning_rate": 0}, {"judged": "all"}, {"unknown": 1}):
        with pytest.raises(ConfigurationError):
            ATTACKS.get("embedding-mlp")(**fields)


@pytest.mark.slow
def test_another_layer_by_name(network, target, data, tmp_path):
    with pytest.raises(ModelError, match="no layer 'nowhere'"):
        run(target, data, layer="nowhere")
    *_, last = (name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear))
    found = run(target, data, cache=tmp_path, epochs=5)
    same = run(target, data, cache=tmp_path, epochs=5, layer=f"{last}:input")
    np.testing.assert_array_equal(found.attributes[0].predicted, same.attributes[0].predicted)
    # The scores of ten classes say less of slant than the embedding does.
    few = measures(run(target, data, cache=tmp_path, layer=last))
    assert few["slant.gain"].high < measures(run(target, data, cache=tmp_path))["slant.accuracy"].value


def test_embeddings_are_kept_in_blocks_of_their_own(network, target, data, tmp_path):
    some, more = np.arange(50), np.arange(20, 90)
    first = collect_embeddings(target, data.dataset, some, cache=tmp_path)
    assert first.sent == 50 and first.values.shape == (50, first.values.shape[1])
    rest = collect_embeddings(target, data.dataset, more, cache=tmp_path)
    assert rest.sent == 40 and (rest.queries.total, rest.queries.unique <= 70) == (70, True)
    np.testing.assert_array_equal(rest.values[:30], first.values[20:])
    direct = target.embeddings(data.dataset.batch(more))
    np.testing.assert_allclose(rest.values, direct.numpy(), rtol=1e-4, atol=1e-5)
    *_, last = (name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear))
    assert collect_embeddings(target, data.dataset, some, cache=tmp_path, layer=last).values.shape == (50, 10)
    (damaged,) = [path for path in tmp_path.rglob("*.block") if path.stat().st_size > 20_000]
    damaged.write_bytes(damaged.read_bytes()[:-3])
    again = collect_embeddings(target, data.dataset, some, cache=tmp_path)
    assert again.sent == 50
    np.testing.assert_allclose(again.values, first.values, rtol=1e-4, atol=1e-5)


def test_scaling_does_not_blow_up_rounding():
    values = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    values[:, 1] = 1000 + 1e-5 * values[:, 1]
    values[:, 2] = 0
    scaled = EmbeddingScale(values)(values)
    np.testing.assert_allclose(scaled[:, 0].std(), 1, atol=0.05)
    assert (scaled[:, 1:3] == 0).all()


def test_names_of_attributes_become_parts_of_dotted_names():
    assert name_attributes(["Male", "5 o'clock shadow", "a.b", "a b", "@"]) == [
        "Male",
        "5-o'clock-shadow",
        "a-b",
        "a-b-2",
        "attribute",
    ]
