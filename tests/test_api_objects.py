"""Models and data as objects: a tutorial's network and datasets, from `assess` to the exposed records."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import json
import pydoc
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, TensorDataset

import securitynet
import tutorial
from securitynet.assessments.assess import run_assessment
from securitynet.assessments.given import GivenData, prepare_given
from securitynet.assessments.result import to_document
from securitynet.errors import (
    AccessDenied,
    ConfigurationError,
    DatasetError,
    ModelError,
    SecurityNetError,
    TargetError,
    UnknownName,
)
from securitynet.models.loading.content_digest import digest_callable, digest_network
from securitynet.reports.outcome import Outcome
from securitynet.results.store import TrialStore

MEMBERS, OTHERS = range(160), range(200, 440)
STATED = f"{tutorial.MEAN[0]}/{tutorial.STD[0]}"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """(network in training mode, train, test) of the tutorial."""
    train = tutorial.Digits(MEMBERS, tutorial.make_transform())
    return tutorial.train_network(train), train, tutorial.Digits(OTHERS, tutorial.make_transform())


@pytest.fixture(scope="module")
def arrays(project):
    """((images, labels), (images, labels)): the same data as bytes."""
    return tuple(
        (np.stack([np.asarray(image) for image in part.images]), np.array(part.targets)) for part in project[1:]
    )


@pytest.fixture(scope="module")
def result(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("result")
    return securitynet.assess(
        *project, attacks=["loss", "gradient-norm"], detectors="none", out=folder / "out", cache=folder / "cache"
    )


def assess(model, train, test=None, *, out, **options):
    """The result of an assessment without its report, which takes longer than all of the attacks here."""
    names = ("members", "mean", "std")
    given = GivenData(train, test, **{name: options.pop(name) for name in names if name in options})
    options = {"attacks": ["loss"], "detectors": "none", "cache": out / "cache", **options}
    config, target = prepare_given(model, given, options)
    assessment = run_assessment(config, target, TrialStore(out / "out"))
    return Outcome(to_document(assessment), assessment, out / "out")


def values(result):
    return {m.name: (m.value, m.low, m.high) for m in result.document.measurements}


def test_objects_give_what_the_same_model_gives_by_reference(project, arrays, result, tmp_path):
    net, _, _ = project
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "net.py").write_text(Path(tutorial.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    by_reference = assess(
        f"python:{tmp_path / 'net.py'}:Net",
        *arrays,
        weights=tmp_path / "weights.pth",
        normalize=STATED,
        attacks=["loss", "gradient-norm"],
        out=tmp_path,
    )
    assert values(result) == values(by_reference)
    assert result["membership.loss.auc"] > 0.6
    assert result.document.target.access == "white-box"
    assert result.document.target.normalize == STATED, "Normalize of the transform became the target's"


def test_a_network_is_left_as_it_was(project, tmp_path):
    net = copy.deepcopy(project[0])
    net.linear.eval()
    net.convolution.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assess(net, *project[1:], attacks=["loss", "fgsm"], limit=40, out=tmp_path)
    assert net.training and not net.linear.training and net.dropout.training
    assert [p.requires_grad for p in net.parameters()] == [False] + [True] * (len(list(net.parameters())) - 1)
    assert all(p.grad is None or p.grad is q.grad for p, q in zip(net.parameters(), net.parameters(), strict=True))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_what_a_network_holds_that_cannot_be_copied_is_shared(project):
    net = copy.deepcopy(project[0])
    net.lock = threading.Lock()
    target = securitynet.load_target(net, input_size=8)
    images = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        expected = copy.deepcopy(project[0]).eval()(images)
    torch.testing.assert_close(target.raw_outputs(images), expected, rtol=1e-4, atol=1e-4)
    assert net.training

    class Stubborn(tutorial.Net):
        def __deepcopy__(self, memo):
            raise RuntimeError("no")

    with pytest.raises(ModelError, match="can't be copied, and an assessment must not change it"):
        securitynet.load_target(Stubborn(), input_size=8)


def test_finished_work_is_found_again_by_content(project, tmp_path):
    net, train, test = project
    first = assess(net, train, test, out=tmp_path)
    again = assess(copy.deepcopy(net).eval(), copy.copy(train), test, out=tmp_path)
    assert not any(trial.reused for trial in first.document.trials)
    assert all(trial.reused for trial in again.document.trials) and again.document.queries["sent"] == 0
    changed = copy.deepcopy(net)
    with torch.no_grad():
        changed.linear.bias[0] += 1e-3
    assert not any(trial.reused for trial in assess(changed, train, test, out=tmp_path).document.trials)


def import_source(path, text):
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("own_network", path)
    module = importlib.util.module_from_spec(spec)
    exec(compile(text, str(path), "exec"), module.__dict__)
    return module


def test_the_digest_of_a_network_covers_weights_settings_and_code(tmp_path):
    text = Path(tutorial.__file__).read_text(encoding="utf-8")

    def digest(source, change=lambda net: None):
        torch.manual_seed(0)
        net = import_source(tmp_path / "own_network.py", source).Net()
        change(net)
        return digest_network(net)

    same = digest(text)
    assert digest(text) == same
    assert digest(text, lambda net: net.eval().requires_grad_(False)) == same
    assert digest(f"unused = 3\n{text}".replace("from __future__ import annotations\n", "")) == same
    assert digest(text.replace("SCALE = 2.0", "SCALE = 3.0")) != same, "a constant that forward uses"
    assert digest(text.replace("torch.relu(", "torch.tanh(")) != same, "the code of forward"
    assert digest(text, lambda net: setattr(net.dropout, "p", 0.5)) != same, "a setting"
    assert digest(text, lambda net: net.register_forward_hook(lambda *args: args[2] * 2)) != same, "a hook"


def test_a_callable_is_a_black_box_and_is_stored_for_this_process_only(project, result, tmp_path):
    net = copy.deepcopy(project[0]).eval()
    calls = itertools.count()

    def answer(images):
        next(calls)
        assert images.dtype == torch.float32 and images.shape[1:] == (1, 8, 8)
        return net(images.add_(0)).softmax(1).numpy()  # it may write into what it is given

    first = assess(answer, *project[1:], attacks=["loss", "gradient-norm"], out=tmp_path)
    assert values(first)["membership.loss.auc"] == pytest.approx(values(result)["membership.loss.auc"], abs=1e-6)
    assert {trial.name: trial.status for trial in first.document.trials}["membership.gradient-norm"] == "skipped"
    assert any("stored for this process only" in note for note in first.document.target.notes)
    assert not list((tmp_path / "cache").glob("signals/*"))
    again = assess(answer, *project[1:], out=tmp_path)
    assert again.document.queries["sent"] == 0 and all(trial.reused for trial in again.document.trials)
    before = digest_callable(answer)
    with torch.no_grad():
        net.linear.bias[0] += 1
    assert digest_callable(answer) != before, "the network behind it was trained further"
    with pytest.raises(AccessDenied):
        securitynet.attacks.GradientNorm()(answer, *project[1:], securitynet.attacks.GradientNorm.threat_models[0])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda images: images.sum((1, 2, 3)), "one number for each image"),
        (lambda images: images.flatten(1).argmax(1), "a whole number for each image"),
        (lambda images: torch.zeros(3, 10), "for 64 images"),
        (lambda images: {}["absent"], "KeyError"),
        (lambda images: "cat", "not one row of class scores"),
    ],
)
def test_callables_that_return_no_scores_are_told_what_to_return(project, answer, words):
    with pytest.raises(TargetError, match=words) as caught:
        securitynet.attacks.Loss()(answer, *project[1:])
    assert caught.value.hint


def test_a_callable_that_counts_votes_returns_scores(project):
    net, *data = project
    members = [copy.deepcopy(net) for _ in range(3)]

    def count_votes(images):
        with torch.no_grad():
            labels = torch.stack([member.eval()(images).argmax(1) for member in members])
        return nn.functional.one_hot(labels, 10).sum(dim=0)

    output = securitynet.attacks.Correctness()(count_votes, *data)
    assert 0.5 < output.measure()["auc"].value <= 1


def test_records_that_the_network_never_saw_are_not_told_apart(project):
    net, transform = project[0], tutorial.make_transform()
    seen_by_nobody = [tutorial.Digits(range(start, start + 300), transform) for start in (500, 800, 1100, 1400)]
    aucs = [
        securitynet.attacks.Loss()(net, *pair).measure()["auc"] for pair in (seen_by_nobody[:2], seen_by_nobody[2:])
    ]
    assert abs(np.mean([auc.value for auc in aucs]) - 0.5) < 0.05
    assert any(auc.low <= 0.5 <= auc.high for auc in aucs)


def test_members_as_a_mask_over_one_dataset(project, result, tmp_path):
    net, train, test = project
    mask = np.arange(len(train) + len(test)) < len(train)
    stated = assess(net, ConcatDataset([train, test]), members=mask, out=tmp_path)
    assert stated["membership.loss.auc"] == result["membership.loss.auc"]
    assert stated.document.dataset.membership == "known" and stated.document.dataset.members_stated
    output = securitynet.attacks.Loss()(net, ConcatDataset([train, test]), members=torch.from_numpy(mask))
    assert np.array_equal(output.is_member, mask)


def test_normalised_tensors_are_refused_unless_their_normalisation_is_stated(project, result, tmp_path):
    net = project[0]
    parts = [
        TensorDataset(*map(torch.stack, zip(*[(i, torch.tensor(t)) for i, t in p], strict=True))) for p in project[1:]
    ]
    with pytest.raises(DatasetError, match="normalised already") as refused:
        assess(net, *parts, out=tmp_path)
    assert "without the transform" in refused.value.hint and "mean=..., std=..." in refused.value.hint
    stated = assess(net, *parts, mean=tutorial.MEAN, std=tutorial.STD, out=tmp_path)
    assert stated["membership.loss.auc"] == result["membership.loss.auc"]
    assert stated.document.target.normalize == STATED


WRONG = {
    "no model": lambda net, train, test: securitynet.assess(None, train, test),
    "a class": lambda net, train, test: securitynet.assess(tutorial.Net, train, test),
    "a misspelled option": lambda net, train, test: securitynet.assess(net, train, test, atacks=["loss"]),
    "an unknown attack": lambda net, train, test: securitynet.assess(net, train, test, attacks=["los"]),
    "a wrong type": lambda net, train, test: securitynet.assess(net, train, test, attacks=3),
    "out of range": lambda net, train, test: securitynet.assess(net, train, test, level=3),
    "no membership": lambda net, train, test: securitynet.assess(net, train),
    "no data": lambda net, train, test: securitynet.assess(net),
    "no train": lambda net, train, test: securitynet.assess(net, test=test),
    "a mask of another length": lambda net, train, test: securitynet.assess(net, train, members=[True, False]),
    "members that are none": lambda net, train, test: securitynet.assess(net, train, members=3),
    "swapped": lambda net, train, test: securitynet.assess(train, net, test),
    "a stream": lambda net, train, test: securitynet.assess(net, iter([1]), test),
    "a setting": lambda net, train, test: securitynet.assess(net, train, test, configure={"loss": {"x": 1}}),
    "an option of files": lambda net, train, test: securitynet.assess(net, train, test, channels=3),
    "weights of an object": lambda net, train, test: securitynet.assess(net, train, test, weights="w.pth"),
    "a path": lambda net, train, test: securitynet.assess(net, train, test, out=3),
    "a callback": lambda net, train, test: securitynet.assess(net, train, test, progress=3),
    "a device": lambda net, train, test: securitynet.assess(net, train, test, device="gpu"),
    "too few classes": lambda net, train, test: securitynet.assess(tutorial.Net(4), train, test),
    "another size": lambda net, train, test: securitynet.assess(
        nn.Sequential(nn.Flatten(), nn.Linear(9, 10)), train, test
    ),
    "lazy layers": lambda net, train, test: securitynet.assess(nn.LazyLinear(10), train, test),
    "a reference": lambda net, train, test: securitynet.assess("resnet18", train, test),
    "a dataset's name": lambda net, train, test: securitynet.assess(net, "digitz"),
    "an option of one attack": lambda net, train, test: securitynet.attacks.Loss()(net, train, test, memers=[1]),
    "a field of an attack": lambda net, train, test: securitynet.attacks.Loss(per_klass=True),
    "an option of train": lambda net, train, test: securitynet.train("simple-cnn", "digits", epoch=3),
    "an option of a dataset": lambda net, train, test: securitynet.load_dataset(train, tset=test),
    "a family": lambda net, train, test: securitynet.list_attacks("memebership"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments_are_said_in_sentences_with_a_hint(project, what):
    with pytest.raises(SecurityNetError) as caught:
        WRONG[what](*project)
    error = caught.value
    assert "pydantic" not in str(error)
    assert error.hint or what in (
        "a mask of another length",
        "members that are none",
        "out of range",
        "a wrong type",
        "a path",
    )
    assert "validation error" not in str(error)


def test_names_that_are_nearly_right_are_suggested(project, result):
    for what, word in {
        "a misspelled option": "attacks",
        "an unknown attack": "loss",
        "an option of train": "epochs",
    }.items():
        with pytest.raises(SecurityNetError, match=f"Did you mean .*{word}"):
            WRONG[what](*project)
    with pytest.raises(AttributeError, match="Did you mean Loss"):
        securitynet.attacks.Los  # noqa: B018
    with pytest.raises(AttributeError, match="Did you mean assess"):
        securitynet.asess  # noqa: B018
    with pytest.raises(UnknownName, match=r"Did you mean membership\.loss\.auc"):
        result["membership.loss.aucc"]
    with pytest.raises(KeyError):
        result["membership.loss.aucc"]


def test_a_result_is_a_mapping_and_frames(result):
    frame = result.to_frame()
    assert list(frame.index) == list(result) and len(result) == len(frame)
    assert frame.loc["membership.loss.auc", "value"] == result["membership.loss.auc"]
    assert frame.loc["membership.gradient-norm.auc", "attack"] == "membership.gradient-norm"
    assert frame.loc["target.test_accuracy", "better"] == "higher"
    assert "target.overfitting" in result and "nothing" not in result
    assert len(repr(result)) < 300 and "membership." in repr(result) and "object:Net" in repr(result)


def test_exposed_records_are_the_members_in_the_order_of_the_file(result):
    exposed = result.exposed_records()
    lines = (result.folder / "exposed.csv").read_text(encoding="utf-8").splitlines()
    members = [line.split(",") for line in lines[1:] if line.split(",")[2] == "1"]
    assert [str(record) for record in exposed.index] == [line[0] for line in members]
    assert exposed["file"].tolist() == [line[1] for line in members] and len(exposed) == len(MEMBERS)
    by_loss = result.exposed_records("loss", count=5)
    assert len(by_loss) == 5 and list(by_loss.columns)[-2:] == ["score:membership.loss", "share:membership.loss"]
    assert by_loss["score:membership.loss"].is_monotonic_decreasing
    assert set(by_loss["class"]) <= {f"digit {number}" for number in range(10)}
    with pytest.raises(UnknownName):
        result.exposed_records("lira")


def test_a_notebook_shows_tables_and_plots_and_escapes_names(project, tmp_path):
    net, train, test = project
    hostile = [f"<script>alert({number})</script>" for number in range(10)]
    parts = [copy.copy(part) for part in (train, test)]
    for part in parts:
        part.classes = hostile
    shown = assess(net, *parts, out=tmp_path)._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown
    assert "What to do next" in shown and re.search(r'class="grade [a-z-]+">', shown)
    assert shown.index('class="grade') < shown.index("<details>") < shown.index("<figure>")
    assert shown.count("<figure>") == 2 and "<svg" in shown and "<table>" in shown
    assert "data:image/png;base64," in shown and "exposed" not in re.findall(r"<style>.*?</style>", shown, re.DOTALL)[0]
    again = assess(net, *parts, out=tmp_path)._repr_html_()
    assert not set(re.findall(r'\bid="([^"]+)"', shown)) & set(re.findall(r'\bid="([^"]+)"', again))


def test_one_attack_of_each_kind_runs_on_objects(project, arrays):
    net, train, test = project
    evasion = securitynet.attacks.Fgsm(epsilons=(0.1,))(net, train, test, limit=60)
    assert 0 <= evasion["robust-accuracy@epsilon=0.1"] <= evasion["clean-accuracy"]
    assert 0 <= securitynet.detectors.Strip()(net, train, test, limit=100)["false-rejection-rate"] <= 1
    assert securitynet.attacks.Loss()(net, *arrays, normalize=STATED)["auc"] == pytest.approx(
        securitynet.attacks.Loss()(net, train, test)["auc"]
    )
    with pytest.raises(ConfigurationError, match="needs white-box access"):
        quiet = copy.deepcopy(net).eval()
        securitynet.attacks.MLDoctorWhiteBox()(lambda images: quiet(images), train, test)


def test_importing_loads_no_torch_and_names_are_listed():
    code = (
        "import sys, json, securitynet; loaded = 'torch' in sys.modules; "
        "names = [securitynet.list_attacks('membership'), securitynet.list_detectors(), securitynet.list_defenses(), "
        "securitynet.list_datasets(), securitynet.list_architectures(), securitynet.list_backdoors()]; "
        "print(json.dumps([loaded, 'torch' in sys.modules, names]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    at_import, after, names = json.loads(done.stdout)
    assert not at_import and not after
    assert "membership.lira" in names[0] and "strip" in names[1] and "digits" in names[3]
    assert all(names)
    assert "timm" in securitynet.list_backends()
    assert "torchvision:resnet18@IMAGENET1K_V1" in securitynet.list_models("resnet18*", source="torchvision")


def test_help_reads_well():
    text = re.sub(".\b", "", pydoc.render_doc(securitynet))
    for name in ("assess(", "load_target(", "list_models(", "train(", "class Outcome"):
        assert name in text, name
    assert "result.exposed_records()" in text
    for name in securitynet.__all__:
        assert getattr(securitynet, name) is not None
        if callable(getattr(securitynet, name)):
            assert getattr(securitynet, name).__doc__, name


def test_paths_and_mixed_datasets(project, arrays, tmp_path):
    net = project[0]
    joined = securitynet.load_dataset("digits", (arrays[1][0], arrays[1][1]), class_names=[str(n) for n in range(10)])
    assert {part: len(indices) for part, indices in joined.parts.items()}["test"] == len(OTHERS)
    limited = securitynet.load_dataset(*arrays, limit=30)
    assert {part: len(indices) for part, indices in limited.parts.items()} == {"train": 30, "test": 30}
    with pytest.raises(SecurityNetError, match="absent"):
        securitynet.load_target(tmp_path / "absent.onnx")
    assert securitynet.load_target(net.forward, input_size=8).access.value == "white-box"
    assert securitynet.load_target(nn.DataParallel(net), input_size=8).reference == "object:Net"


FEW = {"lira": {"shadows": {"count": 4, "recipe": {"epochs": 1}}}}


def shadow_architectures(cache):
    records = [json.loads(path.read_text(encoding="utf-8")) for path in cache.glob("shadows/*/*.json")]
    return {record["architecture"] for record in records}


def test_shadow_models_have_the_architecture_of_the_object_or_the_one_that_is_stated(project, tmp_path):
    def make_wide(num_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, num_classes))

    options = {"attacks": ["lira"], "configure": FEW}
    own = assess(*project, out=tmp_path / "own", **options)
    assert [trial.status for trial in own.document.trials] == ["ok"]
    (name,) = shadow_architectures(tmp_path / "own" / "cache")
    assert name.startswith("Net@")
    stated = assess(*project, architecture=make_wide, out=tmp_path / "own", **options)
    assert not any(trial.reused for trial in stated.document.trials), "another architecture is another trial"
    assert {label.partition("@")[0] for label in shadow_architectures(tmp_path / "own" / "cache")} == {
        "Net",
        "make_wide",
    }
    again = assess(*project, architecture=make_wide, out=tmp_path / "own", **options)
    assert all(trial.reused for trial in again.document.trials)
    alone = securitynet.attacks.LiRA(**FEW["lira"])(*project, architecture=make_wide, cache=tmp_path / "own" / "cache")
    assert alone["auc"] == stated["membership.lira.auc"], "the attack alone finds the same shadow models"
    with pytest.raises(SecurityNetError):
        assess(*project, architecture=3, out=tmp_path, **options)


def test_an_own_architecture_is_trained_on_objects(arrays):
    target = securitynet.train(tutorial.Net, *arrays, split="public", epochs=1, device="cpu")
    assert target.num_classes == 10 and "trained here on object:arrays" in target.notes[0]
