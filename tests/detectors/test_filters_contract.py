"""What filters of inputs and activation clustering must keep: seeds, access, bills, kills, and clear errors."""

import dataclasses
import hashlib
from functools import cache

import numpy as np
import pytest
import torch

from backdoored import PATCH, Sealed, poisoned, split, stripes, target_of, train
from securitynet.detectors import DETECTORS
from securitynet.detectors._known_trigger import Trigger
from securitynet.errors import AccessDenied, ConfigurationError, DatasetError, QueryBudgetExceeded, TargetError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.interface import LabelsOnly
from securitynet.models.targets.query_count import QueryCounter, compute_image_keys
from securitynet.models.targets.target import Target
from securitynet.records import Access, Auxiliary, ThreatModel
from securitynet.testing import check_detector

SETTINGS = {
    "strip": {"images": 40, "calibration": 40, "overlays": 3, "mix": "add", "trigger": PATCH},
    "neo": {"images": 6, "held_out": 20, "regions": 12, "size": 0.25, "trigger": PATCH},
    "scale-up": {"images": 40, "calibration": 40, "trigger": PATCH},
    "teco": {"images": 40, "calibration": 40, "kinds": ("contrast", "shot-noise"), "trigger": PATCH},
    "activation-clustering": {"trigger": PATCH, "records": 300, "held_out": 150, "dims": 3},
    "spectral-signatures": {"trigger": PATCH, "records": 300, "held_out": 150},
    "two-sample": {"trigger": PATCH, "records": 300, "held_out": 150},
}
FILTERS = ("strip", "neo")


def make(name, **settings):
    return DETECTORS.get(name)(**{**SETTINGS[name], **settings})


def run(name, target, data, cache=None, seed=0, progress=None, **settings):
    method = make(name, **settings)
    context = Context(seed=seed, cache=cache, progress=progress)
    return method(target, data, context, method.threat_models[0]), context


def measures(output, seed=0):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(0.1,), seed=seed)}


def assert_same(first, second):
    first, second = first.arrays(), second.arrays()
    assert first.keys() == second.keys()
    for key, array in first.items():
        np.testing.assert_array_equal(array, second[key])


@pytest.fixture(scope="module")
def finished(patched):
    """Each detector on the network with a backdoor: run when it is first wanted, and shared by the tests.

    Returns its output, its context, and the progress that it reported.
    """

    @cache
    def run_once(name):
        reported = []
        output, context = run(name, *patched[:2], progress=lambda done, total: reported.append((done, total)))
        return output, context, reported

    return run_once


@pytest.mark.parametrize("name", SETTINGS)
def test_same_seed_same_result_whatever_was_drawn_before(name, patched, finished):
    first, context, _ = finished(name)
    np.random.seed(123)
    torch.manual_seed(123)
    second, again = run(name, *patched[:2])
    assert_same(first, second)
    assert context.queries() == again.queries()
    other, _ = run(name, *patched[:2], seed=1)
    assert other.arrays()["indices"].tolist() != first.arrays()["indices"].tolist()


@pytest.mark.parametrize("name", SETTINGS)
def test_output_survives_being_kept(name, finished):
    output, *_ = finished(name)
    again = type(output).from_arrays(output.arrays())
    assert measures(again) == measures(output)
    assert_same(output, again)
    assert set(type(output).headline) & set(measures(output))
    assert [gallery.rows for gallery in again.galleries()] == [gallery.rows for gallery in output.galleries()]


@pytest.mark.parametrize("name", FILTERS)
def test_filters_work_with_answers_alone_and_pay_for_each(name, patched, finished):
    target, data = patched[:2]
    sealed = Sealed(target.backend)
    output, context = run(name, Target(sealed, access=Access.BLACK_BOX), data)
    assert context.queries().total == sealed.calls
    assert 0 < context.queries().unique <= context.queries().total
    np.testing.assert_array_equal(output.clean.scores, finished(name)[0].clean.scores)


def test_clustering_needs_the_network(patched):
    target, data = patched[:2]
    with pytest.raises(AccessDenied):
        run("activation-clustering", Target(Sealed(target.backend), access=Access.BLACK_BOX), data)


@pytest.mark.parametrize("name", SETTINGS)
def test_refuses_a_threat_model_that_it_does_not_serve(name, patched):
    target, data = patched[:2]
    with pytest.raises(ConfigurationError, match="does not serve"):
        make(name)(target, data, Context(), ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.NONE))


@pytest.mark.parametrize("name", FILTERS)
def test_a_killed_run_goes_on_where_it_stopped(name, patched, tmp_path, monkeypatch):
    from securitynet.detectors import _filters

    monkeypatch.setattr(_filters.FittedFilter, "piece", 4)
    target, data = patched[:2]
    whole, context = run(name, target, data, tmp_path / "undisturbed")
    counted = Sealed(target.backend)
    run(name, Target(counted), data, tmp_path / "counted")
    stopped = Sealed(target.backend, most=counted.calls * 2 // 3)
    with pytest.raises(KeyboardInterrupt):
        run(name, Target(stopped), data, tmp_path / "killed")
    rest = Sealed(target.backend)
    output, resumed = run(name, Target(rest), data, tmp_path / "killed")
    assert_same(output, whole)
    assert resumed.queries() == context.queries(), "the bill is that of the whole"
    assert rest.calls < counted.calls * 0.6
    run(name, Target(done := Sealed(target.backend)), data, tmp_path / "killed")
    assert done.calls == 0


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [flip_bit, lambda path: path.write_bytes(path.read_bytes()[:-40]), lambda path: path.write_bytes(b"")],
    ids=["a flipped bit", "cut short", "empty"],
)
def test_a_damaged_piece_is_computed_again(patched, tmp_path, caplog, damage):
    target, data = patched[:2]
    whole, _ = run("strip", target, data, tmp_path)
    pieces = sorted(tmp_path.glob("screenings/*/*.npz"))
    whole_piece = pieces[0].read_bytes()
    damage(pieces[0])
    again, _ = run("strip", target, data, tmp_path)
    assert_same(whole, again)
    assert "damaged" in caplog.text
    assert len(pieces[0].read_bytes()) == len(whole_piece), "it was written again"


def test_pieces_of_a_version_that_wrote_no_digest_are_computed_again(patched, tmp_path):
    target, data = patched[:2]
    whole, _ = run("strip", target, data, tmp_path)
    for path in tmp_path.glob("screenings/*/*.npz"):
        path.write_bytes(path.read_bytes()[hashlib.sha256().digest_size :])
    again, _ = run("strip", target, data, tmp_path)
    assert_same(whole, again)


@pytest.mark.parametrize("name", SETTINGS)
def test_progress_rises_to_its_end(name, finished):
    *_, reported = finished(name)
    own = [entry for entry in reported if entry[1] == reported[-1][1]]
    assert own == sorted(own) and own[-1][0] == own[-1][1]


@pytest.mark.parametrize("name", FILTERS)
def test_a_query_cap_holds_and_what_was_asked_is_billed(name, patched):
    target, data = patched[:2]
    capped = Target(target.backend, query_counter=QueryCounter(cap=120))
    method, context = make(name), Context()
    with pytest.raises(QueryBudgetExceeded):
        method(capped, data, context, method.threat_models[0])
    assert context.queries().unique <= 120


def test_labels_only_neo_works_and_strip_says_why_not(patched):
    target, data = patched[:2]
    seen = target.through(LabelsOnly())
    with pytest.raises(AccessDenied):
        run("strip", seen, data)
    found = measures(run("neo", seen, data, images=25, regions=49)[0])
    assert found["detection-rate"].value > 0.5 and found["false-rejection-rate"].value == 0


@pytest.mark.parametrize("head", ["probabilities", "log-probabilities"])
def test_heads_that_emit_probabilities_lead_to_the_same_verdicts(head, patched, finished):
    target, data = patched[:2]

    class Softmax(Sealed):
        def outputs(self, inputs):
            logits = super().outputs(inputs)
            return logits.softmax(1) if head == "probabilities" else logits.log_softmax(1)

    for name in FILTERS:
        plain, *_ = finished(name)
        other, _ = run(name, Target(Softmax(target.backend), head=head), data)
        np.testing.assert_array_equal(plain.clean.flagged, other.clean.flagged)
        np.testing.assert_array_equal(plain.triggered.flagged, other.triggered.flagged)


def test_recorded_outputs_are_refused(patched, tmp_path):
    from securitynet.models.targets.backends.recorded import RecordedBackend

    data = patched[1]
    path = tmp_path / "recorded.npz"
    np.savez(path, logits=9 * np.eye(10, dtype=np.float32) - 3, labels=np.arange(10), member=np.arange(10) % 2 == 0)
    for name in SETTINGS:
        recorded = Target(RecordedBackend(path, reference="outputs:recorded.npz"), access=Access.BLACK_BOX)
        with pytest.raises((TargetError, AccessDenied)):
            run(name, recorded, data)


@pytest.fixture(scope="module")
def coloured():
    """(target, data): colour images of 24×32 with a patch that leads to class 2, three classes."""
    dataset, trigger = stripes(), Trigger(size=5, value=255)
    splits = split(len(dataset), 200)
    dirty, _ = poisoned(dataset, splits.members, trigger, 2, share=0.25)

    class Pooled(torch.nn.Module):  # images of any shape
        def __init__(self):
            super().__init__()
            self.features = torch.nn.Sequential(
                torch.nn.Conv2d(3, 12, 5, 2, 2), torch.nn.ReLU(), torch.nn.Conv2d(12, 24, 3), torch.nn.ReLU()
            )
            self.classifier = torch.nn.Linear(24, 3)

        def forward(self, images):
            return self.classifier(self.features(images).amax(dim=(2, 3)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Pooled()
        optimizer = torch.optim.Adam(network.parameters(), 5e-3)
        inputs, labels = dirty.batch(splits.members).float() / 255, torch.from_numpy(dirty.labels[splits.members])
        for _ in range(120):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs), labels).backward()
            optimizer.step()
    return target_of(network.eval(), (3, 24, 32), "coloured"), TrialData(dataset, splits)


def test_colour_images_that_are_not_square(coloured):
    target, data = coloured
    trigger = {"size": 5}
    strip = measures(run("strip", target, data, trigger=trigger, images=100, calibration=60, overlays=10)[0])
    assert strip["trigger-success-rate"].value > 0.4
    assert strip["auc"].low > 0.5
    neo, _ = run("neo", target, data, trigger=trigger, images=8, regions=60, size=0.2)
    found = measures(neo)
    assert found["detection-rate"].value > 0.5, "with three classes at most two thirds of all predictions can change"
    assert found["false-rejection-rate"].value < 0.3
    assert neo.galleries()[0].images.shape[2:] == (3, 24, 32)


def test_two_hundred_classes_and_one_image():
    dataset = stripes(count=450, shape=(3, 16, 16), classes=200)
    network = train(dataset.batch(np.arange(450)), dataset.labels, 200, epochs=1)
    target, data = target_of(network, (3, 16, 16), "many"), TrialData(dataset, split(450, 200))
    for name in FILTERS:
        output, _ = run(name, target, data, images=1, trigger={"size": 3})
        assert len(output.clean) == 1 and measures(output)["false-rejection-rate"].n == 1
    output, _ = run("activation-clustering", target, data, trigger=None)
    found = measures(output)
    assert found["foreign-p-value"].value is None and "enough records" in found["foreign-p-value"].note


def test_onnx_files_are_asked_exactly_as_often_as_billed(patched, tmp_path, finished):
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    from securitynet.models.targets.backends.onnx import OnnxBackend

    target, data = patched[:2]
    path = tmp_path / "net.onnx"
    torch.onnx.export(
        target.module,
        (torch.zeros(2, 1, 8, 8),),
        str(path),
        input_names=["images"],
        dynamo=False,
        dynamic_axes={"images": {0: "n"}},
    )
    for name in FILTERS:
        sealed = Sealed(OnnxBackend(path, reference="onnx:net.onnx"))
        output, context = run(name, Target(sealed), data)
        assert context.queries().total == sealed.calls
        torch_output, *_ = finished(name)
        np.testing.assert_allclose(output.clean.scores, torch_output.clean.scores, atol=1e-4)


def test_endpoints_are_asked_exactly_as_often_as_billed(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    import inference_server as module
    from securitynet.models.targets.backends.http import HttpBackend

    dataset = stripes(count=120, shape=(3, 16, 16), classes=4)
    dataset = dataclasses.replace(dataset, images=dataset.images[:, :, 6:10, 6:10].clone())
    data = TrialData(dataset, split(120, 40))
    for name in FILTERS:
        server = module.InferenceServer()
        try:
            target = Target(HttpBackend(server.url, reference="endpoint"))
            settings = {"strip": {"images": 5, "calibration": 10}, "neo": {"images": 3}}[name]
            _, context = run(name, target, data, trigger={"size": 1}, **settings)
            assert context.queries().unique == len(set(server.asked)) > 30
            assert context.queries().total >= len(server.asked)
        finally:
            server.close()


# What is known of a backdoor


def test_a_patch_and_the_same_as_a_file(tmp_path):
    images = torch.randint(0, 256, (4, 3, 9, 11), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    patch = Trigger(size=3, corner="top-right", margin=1, value=200)
    expected = images.clone()
    expected[:, :, 1:4, 7:10] = 200
    assert torch.equal(patch.apply_trigger(images), expected)
    mask, pattern = np.zeros((9, 11), np.float32), np.full((3, 9, 11), 200, np.uint8)
    mask[1:4, 7:10] = 1
    np.savez(tmp_path / "t.npz", mask=mask, pattern=pattern)
    filed = Trigger.model_validate(tmp_path / "t.npz")
    assert torch.equal(filed.apply_trigger(images), expected)
    np.testing.assert_array_equal(filed.area(3, 9, 11), patch.area(3, 9, 11))
    np.savez(tmp_path / "b.npz", mask=mask * 0.25, pattern=pattern)
    blended = Trigger(file=tmp_path / "b.npz").apply_trigger(images).int()
    inside = (0.75 * images[:, :, 1:4, 7:10] + 0.25 * 200).round().int()
    assert (blended[:, :, 1:4, 7:10] - inside).abs().max() <= 1 and torch.equal(
        blended[:, :, 5:], images[:, :, 5:].int()
    )
    assert Trigger(file=tmp_path / "b.npz").area(3, 9, 11).sum() == 9


def test_a_trigger_is_known_by_its_content(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, mask=np.ones((8, 8), np.uint8), pattern=np.zeros((1, 8, 8), np.uint8))
    first = make("strip", trigger=str(path)).model_dump(mode="json")
    assert make("strip", **first).model_dump(mode="json") == first
    np.savez(path, mask=np.ones((8, 8), np.uint8), pattern=np.ones((1, 8, 8), np.uint8))
    second = make("strip", trigger=str(path)).model_dump(mode="json")
    assert first["trigger"]["sha256"] != second["trigger"]["sha256"]
    with pytest.raises(ConfigurationError, match="digest"):
        make("strip", **first)


@pytest.mark.parametrize(
    "content, words",
    [
        ({"mask": np.ones((8, 8))}, "no array named pattern"),
        ({"mask": np.ones((8, 9)), "pattern": np.ones((1, 8, 9))}, "mask has shape"),
        ({"mask": np.full((8, 8), 2.0), "pattern": np.ones((1, 8, 8))}, r"\[0, 1\]"),
        ({"mask": np.ones((8, 8), np.int64), "pattern": np.ones((1, 8, 8))}, "int64"),
        ({"mask": np.full((8, 8), np.nan), "pattern": np.ones((1, 8, 8))}, r"\[0, 1\]"),
    ],
)
def test_triggers_that_make_no_sense(content, words, tmp_path, patched):
    np.savez(tmp_path / "t.npz", **content)
    sealed = Sealed(patched[0].backend)
    with pytest.raises(ConfigurationError, match=words):
        run("strip", Target(sealed), patched[1], trigger=tmp_path / "t.npz")
    assert sealed.calls == 0, "told before anything is asked"


def test_triggers_and_suspects_that_can_not_be_read(tmp_path, patched):
    (tmp_path / "t.npz").write_bytes(b"not an archive")
    for wrong in ({"file": tmp_path / "t.npz"}, {"file": tmp_path / "absent.npz"}, {}, {"size": 2, "file": "x"}):
        with pytest.raises(ConfigurationError):
            make("strip", trigger=wrong)
    with pytest.raises(ConfigurationError, match="does not fit"):
        run("strip", *patched[:2], trigger={"size": 9})
    with pytest.raises(ConfigurationError, match="does not fit"):
        run("activation-clustering", *patched[:2], trigger={"size": 9})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no images"):
        run("strip", *patched[:2], suspects=tmp_path / "empty")
    np.savez(tmp_path / "s.npz", images=np.zeros((2, 7, 8), np.uint8))
    with pytest.raises(ConfigurationError, match="shape"):
        run("strip", *patched[:2], suspects=tmp_path / "s.npz")


def test_suspects_from_a_file_and_from_a_folder(patched, tmp_path):
    from PIL import Image

    target, data = patched[:2]
    stamped = Trigger(**PATCH).apply_trigger(data.dataset.batch(data.splits.scored_non_members[100:140]))
    np.savez(tmp_path / "s.npz", images=stamped[:, 0].numpy())
    (tmp_path / "in").mkdir()
    for number, image in enumerate(stamped):
        Image.fromarray(image[0].numpy()).save(tmp_path / "in" / f"{number:03d}.png")
    outputs = [
        run("strip", target, data, trigger=None, suspects=tmp_path / where, images=150, calibration=100, overlays=15)[0]
        for where in ("s.npz", "in")
    ]
    np.testing.assert_array_equal(outputs[0].suspects.scores, outputs[1].suspects.scores)
    found = measures(outputs[0])
    assert found["suspects-flagged"].low > 0.6 and found["suspects-excess"].low > 0.5
    assert "detection-rate" not in found


def test_keys_of_made_up_images_are_those_of_the_ledger(patched):
    """The bill's unique count and the ledger's are the same where nothing was asked before."""
    target, data = patched[:2]
    fresh = Target(target.backend, query_counter=QueryCounter())
    _, context = run("neo", fresh, data)
    assert context.queries().unique == fresh.query_counter.unique
    assert context.queries().total == fresh.query_counter.total
    assert len(set(compute_image_keys(torch.zeros(3, 1, 8, 8)))) == 1


@pytest.mark.parametrize("name", ["ibd-psc", "spectral-signatures", "two-sample"])
def test_the_checks_of_plug_ins_are_passed(name):
    settings = {"images": 20, "calibration": 20} if name == "ibd-psc" else {"records": 200, "held_out": 100}
    check_detector(DETECTORS.get(name)(**settings))
