"""Targets that do not answer the same for the same image are found out, whatever the backend, and stopped."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from securitynet.datasets.base import ImageDataset
from securitynet.errors import TargetError
from securitynet.models.loading.examination import describe_doubts, examine, require_constant
from securitynet.models.loading.load import load_target
from securitynet.models.loading.sanity_checks import check_constancy, compare_outputs
from securitynet.models.targets.backends.averaged import REPEATS, AveragedBackend
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access


def images(count=64):
    return torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def dataset():
    labels = np.arange(200, dtype=np.int64) % 4
    parts = {"train": np.arange(100), "test": np.arange(100, 200)}
    return ImageDataset("noise", images(200), labels, tuple("abcd"), parts)


def target_of(network):
    torch.manual_seed(0)
    return Target(
        ModuleBackend(network, reference="net", checksum="0", example_shape=(3, 8, 8)), access=Access.WHITE_BOX
    )


def body(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


class Dropping(nn.Module):
    """Dropout that does not ask whether the network is being trained."""

    def __init__(self, share=0.5):
        super().__init__()
        self.inner, self.share = body(nn.BatchNorm2d(8)), share

    def forward(self, x):
        return self.inner(functional.dropout(x, self.share))


class Centred(nn.Module):
    """Takes the mean of the batch away by hand: no layer shows it."""

    def __init__(self):
        super().__init__()
        self.inner = body(nn.BatchNorm2d(8))

    def forward(self, x):
        return self.inner(x - x.mean(dim=0, keepdim=True))


class OneDimensional(nn.Module):
    """Batch norms in batch statistics raise an error on a single image."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8, track_running_stats=False))

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize(
    ("network", "kind", "word"),
    [
        (body(nn.BatchNorm2d(8)), "same", ""),
        (body(nn.GroupNorm(2, 8)), "same", ""),
        (body(nn.Dropout(0.5)), "same", ""),
        (body(nn.BatchNorm2d(8, track_running_stats=False)), "batch", "running statistics"),
        (Centred(), "batch", "rest of the batch"),
        (OneDimensional(), "batch", "running statistics"),
        (Dropping(), "random", "dropout"),
        (Dropping(0.01), "random", "dropout"),
    ],
)
def test_kinds(network, kind, word):
    constancy = check_constancy(target_of(network), images())
    assert constancy.kind == kind
    check = constancy.check()
    assert check.agrees == (kind == "same")
    assert word in (check.note or "")


def test_a_network_that_squeezes_is_no_liar():
    class Squeezing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = body(nn.BatchNorm2d(8))

        def forward(self, x):
            return self.inner(x).squeeze()

    assert check_constancy(target_of(Squeezing()), images()).kind == "same"


def test_half_precision_may_round():
    target = target_of(body(nn.BatchNorm2d(8)))
    assert check_constancy(target.in_half(), images()).kind == "same"


def test_compare_by_hand():
    first = torch.tensor([[10.0, 0.0], [0.0, 5.0]])
    second = torch.tensor([[10.0, 1.0], [6.0, 5.0]])
    found = compare_outputs(first, second)
    assert (found.largest, found.other_class, found.images) == (pytest.approx(0.6), 1, 2)
    minus = torch.tensor([[0.0, -torch.inf]])
    assert compare_outputs(minus, minus).largest == 0
    assert compare_outputs(minus, torch.tensor([[0.0, -3.0]])).largest == torch.inf


class Endpoint(Backend):
    """Answers of an endpoint: remembered, as those of HTTP are, unless they are asked for anew."""

    charges = True
    rounding = 5e-3

    def __init__(self, noise=0.0, updated=False):
        self.reference, self.checksum, self.num_classes, self.channels = "http://host/model", "0", 4, 3
        self.network, self.noise, self.updated, self.asked = body(nn.BatchNorm2d(8)).eval(), noise, updated, 0

    @torch.no_grad()
    def outputs(self, inputs):
        return self.network(inputs)

    @torch.no_grad()
    def fresh_outputs(self, inputs):
        self.asked += len(inputs)
        outputs = self.network(inputs + 0.3 if self.updated else inputs)
        return outputs + self.noise * torch.randn_like(outputs)


@pytest.mark.parametrize(
    ("options", "kind"), [({}, "same"), ({"noise": 0.05}, "random"), ({"updated": True}, "random")]
)
def test_an_endpoint_is_asked_little(options, kind):
    backend = Endpoint(**options)
    target = Target(backend)
    assert check_constancy(target, images(), paid=True).kind == kind
    assert backend.asked <= 10
    assert target.query_counter.unique == 8


def test_an_onnx_file_that_answers_by_its_batch(tmp_path):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Flatten", ["centred"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    values = np.random.default_rng(0).normal(size=(192, 4)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [onnx.numpy_helper.from_array(values, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    target = load_target(f"onnx:{tmp_path / 'net.onnx'}", dataset=dataset(), normalize="none")
    assert any("rest of the batch" in note for note in target.notes)
    with pytest.raises(TargetError, match="rest of the batch"):
        require_constant(target, allow_random=False)


def test_a_random_network_is_stopped_or_averaged():
    found = examine(target_of(Dropping()), dataset())
    with pytest.raises(TargetError, match=r"can't be assessed.*--allow-random"):
        require_constant(found, allow_random=False)
    averaged = examine(target_of(Dropping()), dataset(), allow_random=True)
    require_constant(averaged, allow_random=True)
    assert isinstance(averaged.backend, AveragedBackend)
    assert averaged.backend.checksum != found.backend.checksum
    assert any(f"averages over {REPEATS} repeats" in note for note in averaged.notes)
    assert describe_doubts(averaged.checks)
    assert averaged.query_counter.total == 0

    def spread(target):
        return float((target.logits(images()) - target.logits(images())).std())

    assert spread(averaged) < 0.5 * spread(found)  # a quarter, by the square root of the repeats
    leaf = images(4).float().div(255).requires_grad_()
    averaged.module(leaf).sum().backward()
    assert float(leaf.grad.abs().sum()) > 0
    before = averaged.query_counter.total
    averaged.logits(images(5))
    assert averaged.query_counter.total - before == 5 * REPEATS


def test_a_constant_network_has_no_doubts_and_is_examined_once():
    network = target_of(body(nn.BatchNorm2d(8)))
    found = examine(network, dataset())
    require_constant(found, allow_random=False)
    assert [check.what for check in found.checks if check.agrees] == ["answers"]
    assert any("hardly better than chance" in doubt for doubt in describe_doubts(found.checks))  # it was never trained
    assert examine(found, dataset()) is found


def test_assess_stops_before_work(tmp_path, run_cli):
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(s): super().__init__(); s.fc = nn.Linear(64, 10)\n"
        "    def forward(s, x): return s.fc(nn.functional.dropout(x.flatten(1), 0.5))\n"
        "def make(): return Net()\n"
    )
    command = [
        "assess",
        f"python:{tmp_path / 'net.py'}:make",
        "--normalize",
        "none",
        "--dataset",
        "digits",
        "--limit",
        60,
    ]
    command += ["--attacks", "membership.loss", "--detectors", "none", "--out", tmp_path / "out"]
    stopped = run_cli(*command)
    assert stopped.returncode == 1
    assert "gives different outputs" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (tmp_path / "out" / "result.json").exists()
    marked = run_cli(*command, "--allow-random")
    assert marked.returncode == 0
    assert "averages over" in marked.stdout
    import json

    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert {check["what"] for check in result["target"]["checks"] if not check["agrees"]} >= {"answers"}
    assert all(trial["doubts"] for trial in result["trials"])
    assert "The numbers below may not describe this model" in (tmp_path / "out" / "report.html").read_text()
