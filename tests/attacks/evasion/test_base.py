"""What every evasion attack must keep, run on each of them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from evasion_cases import made_up, small, splits_of, white_box
from securitynet.attacks import ATTACKS
from securitynet.attacks.evasion._norms import measure_norms as norms_of
from securitynet.attacks.evasion.base import Evasion, EvasionAttack
from securitynet.errors import AccessDenied, ConfigurationError, QueryBudgetExceeded, SplitError, TargetError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.query_count import QueryCounter
from securitynet.models.targets.target import Target
from securitynet.records import Access

QUICK_SURROGATE = {"architecture": "simple-cnn", "recipe": {"epochs": 15, "optimizer": "adam", "learning_rate": 5e-3}}
SETTINGS = {
    "fgsm": {"samples": 80, "epsilons": (0.05, 0.1, 0.2)},
    "fgsm-transfer": {"samples": 80, "epsilons": (0.05, 0.1, 0.2), **QUICK_SURROGATE},
    "pgd": {"samples": 60, "epsilons": (0.05, 0.2), "steps": 6},
    "square": {"samples": 30, "epsilons": (0.1, 0.3), "queries": 60},
    "apgd-t": {"samples": 16, "epsilons": (0.05, 0.2), "steps": 6},
    "apgd-l1": {"samples": 40, "epsilons": (1.0, 5.0), "steps": 20},
    "pgd-targeted": {"samples": 30, "epsilons": (0.05, 0.2), "steps": 6},
    "sparse-rs": {"samples": 30, "epsilons": (0.05, 0.2), "queries": 60},
    "patch": {"samples": 30, "epsilons": (0.05, 0.3), "steps": 8, "places": 3},
    "auto-attack": {"samples": 12, "epsilons": (0.05, 0.2), "steps": 4, "queries": 10},
}
SHORT = {
    "fgsm": {"epsilons": (0.2,)},
    "fgsm-transfer": {"epsilons": (0.2,)},
    "pgd": {"epsilons": (0.2,), "steps": 3},
    "square": {"epsilons": (0.3,), "queries": 15},
    "apgd-t": {"epsilons": (0.2,), "steps": 3},
    "apgd-l1": {"epsilons": (5.0,), "steps": 4},
    "pgd-targeted": {"epsilons": (0.2,), "steps": 3},
    "sparse-rs": {"epsilons": (0.2,), "queries": 15},
    "patch": {"epsilons": (0.3,), "steps": 3, "places": 2},
    "auto-attack": {"epsilons": (0.2,), "steps": 3, "queries": 5},
}
"""Settings for what does not depend on how far an attack gets."""

NAMES = [name.partition(".")[2] for name in ATTACKS.names("evasion") if issubclass(ATTACKS.get(name), EvasionAttack)]
LIBRARY = ("square", "auto-attack")

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("torchattacks") is None, reason="torchattacks is not installed"
)
each = pytest.mark.parametrize("name", [pytest.param(n, marks=needs_library if n in LIBRARY else ()) for n in NAMES])


def make(name, **changes):
    return ATTACKS.get(f"evasion.{name}")(**{**SETTINGS[name], **changes})


def run(name, target, data, context, **changes):
    attack = make(name, **changes)
    return attack(target, data, context, attack.threat_models[0])


def measured(output):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


@dataclass(frozen=True)
class Finished:
    """An attack that was run with `SETTINGS` and seed 3, on a target with a query count of its own."""

    output: Evasion
    target: Target
    context: Context


@pytest.fixture(scope="module")
def finished(networks, digits, surrogates_kept, tmp_path_factory):
    """Each attack on the first network: run when it is first wanted, and shared by the tests."""

    @cache
    def run_once(name):
        folder = tmp_path_factory.mktemp("finished")
        (folder / "surrogates").symlink_to(surrogates_kept, target_is_directory=True)
        target, context = white_box(networks[0]), Context(seed=3, cache=folder, device="cpu")
        data = TrialData(digits, splits_of(len(digits)))
        return Finished(run(name, target, data, context, keep_examples=True), target, context)

    return run_once


class Sealed(Backend):
    """Answers only: what an endpoint or an ONNX file shows of a network."""

    def __init__(self, inner):
        self.inner, self.reference, self.checksum = inner, "sealed", inner.checksum
        self.calls, self.seen = 0, set()

    def outputs(self, inputs):
        self.calls += len(inputs)
        self.seen |= {image.numpy().tobytes() for image in inputs}
        return self.inner.outputs(inputs)


def test_every_attack_is_here():
    assert set(NAMES) == set(SETTINGS)


@each
def test_evades_and_more_so_with_a_larger_budget(name, finished):
    output = finished(name).output
    found = measured(output)
    first, *_, last = [f"success@epsilon={epsilon:g}" for epsilon in SETTINGS[name]["epsilons"]]
    assert found["clean-accuracy"].value > 0.85
    assert found[last].low > (0.12 if name == "fgsm-transfer" else 0.3)
    assert found[last].value >= found[first].value
    assert set(output.headline) <= set(found)


@each
def test_perturbations_keep_to_their_budget(name, target, data, finished):
    output = finished(name).output
    images = data.dataset.batch(output.indices).float().numpy() / 255
    assert output.examples.shape == (1, len(output.epsilons), *images.shape)
    assert output.examples.min() >= 0 and output.examples.max() <= 1
    for examples, sizes, epsilon in zip(output.examples[0], output.sizes[0], output.epsilons, strict=True):
        moved = norms_of(torch.from_numpy(examples - images), output.norm).numpy()
        np.testing.assert_allclose(sizes, moved, atol=1e-6)
        assert moved.max() <= epsilon * (1 + 1e-6) + 1e-6
    asked = target.labels(torch.from_numpy(output.examples[0, -1]))
    np.testing.assert_array_equal(asked.numpy(), output.perturbed[0, -1], "the examples are those that were judged")


@each
def test_same_seed_same_result_whatever_was_drawn_before(name, target, data, fresh):
    short = {"samples": 12, **SHORT[name]}
    first = run(name, target, data, Context(seed=5, cache=fresh("a")), **short)
    np.random.seed(1)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    second = run(name, target, data, Context(seed=5, cache=fresh("b")), **short)
    assert torch.equal(state, torch.random.get_rng_state()), "the global random state is left as it was"
    assert first.arrays().keys() == second.arrays().keys()
    for key, array in first.arrays().items():
        np.testing.assert_array_equal(array, second.arrays()[key], key)


@each
def test_output_survives_being_kept(name, finished, tmp_path):
    output = finished(name).output
    np.savez(tmp_path / "kept.npz", **output.arrays())
    with np.load(tmp_path / "kept.npz", allow_pickle=False) as arrays:
        again = type(output).from_arrays(dict(arrays))
    assert measured(again) == measured(output)
    assert [g.rows for g in again.galleries()] == [g.rows for g in output.galleries()]
    np.testing.assert_array_equal(again.examples, output.examples)


@each
def test_bill_and_access(name, target, data, context, finished):
    sealed = Sealed(target.backend)
    shut = Target(sealed, access=Access.BLACK_BOX)
    if make(name).threat_models[0].access is Access.WHITE_BOX:
        with pytest.raises(AccessDenied, match="white-box"):
            run(name, shut, data, context)
        assert sealed.calls == 0
        bill, counter = finished(name).context.queries(), finished(name).target.query_counter
        assert bill.total == counter.total and bill.unique == counter.unique
        return
    run(name, shut, data, context, samples=12, **SHORT[name])
    bill = context.queries()
    assert bill.total == sealed.calls
    assert bill.unique == len(sealed.seen)


@each
def test_killed_and_started_again_gives_the_same(name, target, data, fresh, monkeypatch):
    monkeypatch.setattr(ATTACKS.get(f"evasion.{name}"), "most_together", 5)
    whole = Context(seed=5, cache=fresh("whole"))
    short = {"samples": 12, **SHORT[name]}
    expected = run(name, target, data, whole, **short)

    class Killed(BaseException):
        pass

    def kill(done, total):
        if total == 12 and done == 10:
            raise Killed

    cache = fresh("cut")
    with pytest.raises(Killed):
        run(name, target, data, Context(seed=5, cache=cache, progress=kill), **short)
    assert list(cache.glob("evasion/*/*.piece"))
    resumed = Context(seed=5, cache=cache)
    found = run(name, target, data, resumed, **short)
    for key, array in expected.arrays().items():
        np.testing.assert_array_equal(found.arrays()[key], array, key)
    assert resumed.queries() == whole.queries(), "what was asked before the kill is on the bill"
    assert not list(cache.glob("evasion/*")), "pieces go when all is done"


@each
def test_samples_are_non_members_and_the_same_for_all_attacks(name, target, data, context):
    output = run(name, target, data, context, samples=12, **SHORT[name])
    assert len(output.indices) == 12 and np.isin(output.indices, data.splits.non_members).all()
    np.testing.assert_array_equal(output.indices, run("fgsm", target, data, context, samples=12).indices)
    other = Context(seed=context.seed + 1)
    assert not np.array_equal(output.indices, run("fgsm", target, data, other, samples=12).indices)


@each
@pytest.mark.parametrize("shape, classes", [((1, 8, 8), 2), ((3, 12, 20), 200), ((3, 16, 16), 10)])
def test_grey_oblong_many_classes_and_a_batch_of_one(name, shape, classes, context):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        target = white_box(small(shape[0], classes).eval(), example=shape)
    data = made_up(target, shape, classes)
    changes = {"samples": 1, "epsilons": (0.3,)}
    if name == "fgsm-transfer":
        changes["recipe"] = {"epochs": 1}
    output = run(name, target, data, context, **changes)
    assert len(output.indices) == 1 and measured(output)["clean-accuracy"].value == 1


def check_head(name, head, last, networks, data, context, finished):
    largest = SETTINGS[name]["epsilons"][-1]
    target = white_box(nn.Sequential(*networks[0], last), head=head)
    found = measured(run(name, target, data, context))
    plain = measured(finished(name).output)
    key = f"success@epsilon={largest:g}"
    assert found[key].value == pytest.approx(plain[key].value, abs=0.15)


@each
def test_a_head_of_probabilities_is_attacked_as_well(name, networks, data, context, finished):
    check_head(name, "probabilities", nn.Softmax(dim=1), networks, data, context, finished)


# One for each way to the logits: gradients, queries, both through the library, and a surrogate that learns from them.
@pytest.mark.parametrize(
    "name", ["pgd", "sparse-rs", *(pytest.param(n, marks=needs_library) for n in LIBRARY), "fgsm-transfer"]
)
def test_a_head_of_log_probabilities_is_attacked_as_well(name, networks, data, context, finished):
    check_head(name, "log-probabilities", nn.LogSoftmax(dim=1), networks, data, context, finished)


def test_clear_errors_before_any_work(target, data, context, digits):
    empty = replace(data.splits, non_members=np.empty(0, np.int64))
    with pytest.raises(SplitError, match="no non-members"):
        run("fgsm", target, TrialData(digits, empty), context)
    recorded = TrialData(replace(digits, images=None, content_digest="x"), data.splits)
    with pytest.raises(ConfigurationError, match="recorded outputs"):
        run("fgsm", target, recorded, context)
    with pytest.raises(ConfigurationError, match="positive"):
        make("fgsm", epsilons=(0.1, -0.1))
    with pytest.raises(ConfigurationError):
        make("fgsm", samples=0)
    three = white_box(small(1, 3).eval())
    with pytest.raises(TargetError, match="3 classes"):
        run("fgsm", three, data, context)


def test_epsilons_are_sorted_and_each_is_tried_once():
    assert make("fgsm", epsilons=(0.1, 0.01, 0.1)).epsilons == (0.01, 0.1)


def test_a_cap_on_queries_holds(networks, data, context):
    target = white_box(networks[0])
    capped = Target(target.backend, access=Access.WHITE_BOX, query_counter=QueryCounter(100))
    with pytest.raises(QueryBudgetExceeded):
        run("fgsm", capped, data, context)
    assert capped.query_counter.unique <= 100


def test_the_gallery_shows_what_happened(data, finished):
    output = finished("fgsm").output
    (gallery,) = output.galleries()
    assert 1 <= len(gallery.rows) <= 8
    assert gallery.images.shape == (len(gallery.rows), 3, 1, 8, 8) and gallery.images.dtype == np.uint8
    assert len(gallery.columns) == 3
    for (record, label, prediction, e), pictures, row in zip(output.facts, gallery.images, gallery.rows, strict=True):
        at = int(np.flatnonzero(output.indices == record)[0])
        assert label == output.labels[at] == output.clean[at] != prediction == output.perturbed[0, e, at]
        assert (output.perturbed[0, :e, at] == label).all(), "the smallest epsilon that suffices"
        np.testing.assert_array_equal(pictures[0], data.dataset.batch(output.indices[at : at + 1])[0].numpy())
        np.testing.assert_array_equal(pictures[2], np.round(output.examples[0, e, at] * 255))
        names = data.dataset.class_names
        assert row.startswith(f"{names[label]} → {names[prediction]}") and f"{output.epsilons[e]:g}" in row


def test_no_gallery_where_nothing_evades(target, data, context):
    assert run("fgsm", target, data, context, epsilons=(1e-6,)).galleries() == []


def test_a_damaged_piece_is_made_again(target, data, tmp_path, caplog):
    from securitynet.attacks.evasion._pieces import PieceStore

    store = PieceStore(tmp_path / "pieces")
    store.write("000000", {"a": np.arange(3)})
    np.testing.assert_array_equal(store.read("000000")["a"], np.arange(3))
    file = next((tmp_path / "pieces").iterdir())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert store.read("000000") is None and "damaged" in caplog.text
    assert PieceStore(None).read("000000") is None
