"""`assess --defense` where only answers are there anyway: recorded outputs and an ONNX file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from securitynet.api import assess

OPTIONS = {"attacks": ("loss", "correctness"), "detectors": ("none",)}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Outputs that tell members by their confidence; a fifth of the predictions is wrong."""
    rng = np.random.default_rng(0)
    labels, members = rng.integers(0, 5, 300), np.arange(300) < 150
    predicted = np.where(rng.random(300) < 0.2, (labels + 1) % 5, labels)
    logits = rng.normal(0, 0.3, (300, 5))
    logits[np.arange(300), predicted] += np.where(members, 6.0, 3.0)
    posteriors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    path = tmp_path_factory.mktemp("recorded") / "r.npz"
    np.savez(path, posteriors=posteriors, labels=labels, members=members)
    return path


def run(model, out, **options):
    return assess(model, options.pop("dataset", None), out=out, **{**OPTIONS, **options})


def check(model, tmp_path, **options):
    """What each defense of answers does to a loss attack and to the accuracy; returns the AUCs."""
    plain = run(model, tmp_path / "plain", **options)
    aucs = {"none": plain["membership.loss.auc"]}
    for defense, setting in (("rounding", "digits=0"), ("top-k", "k=1"), ("temperature", "temperature=50.0")):
        found = run(model, tmp_path / defense, defense=defense, configure=(f"{defense}.{setting}",), **options)
        assert found["target.test_accuracy"] == plain["target.test_accuracy"]
        aucs[defense] = found["membership.loss.auc"]
    hidden = run(model, tmp_path / "labels", defense="label-only", **options).document
    assert {trial.name: trial.status for trial in hidden.trials} == {
        "membership.loss": "skipped", "membership.correctness": "ok",
    }  # fmt: skip
    # Rounded to no digit, every answer is a label: the loss says what correctness says.
    rounded = run(model, tmp_path / "rounding", defense="rounding", configure=("rounding.digits=0",), **options)
    assert rounded["membership.loss.auc"] == pytest.approx(rounded["membership.correctness.auc"], abs=0.02)
    return aucs


def test_recorded_outputs(recording, tmp_path):
    aucs = check(f"outputs:{recording}", tmp_path)
    assert aucs["none"] > 0.7 and aucs["rounding"] < 0.6
    assert aucs["top-k"] > 0.6  # what is not hidden tells as much


def test_memguard_on_recorded_outputs_turns_the_scores_within_its_budget(recording, tmp_path):
    plain = run(f"outputs:{recording}", tmp_path / "plain")
    found = run(f"outputs:{recording}", tmp_path / "out", defense="memguard", configure=("memguard.steps=60",))
    assert found["target.test_accuracy"] == plain["target.test_accuracy"]
    assert found["membership.loss.auc"] < plain["membership.loss.auc"] - 0.1


@pytest.mark.slow
def test_an_onnx_file(digits, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    from onnx import TensorProto, helper, numpy_helper

    weights = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    images = digits.batch(np.arange(len(digits))).float().flatten(1) / 255
    targets = torch.from_numpy(digits.labels)
    weights = weights.requires_grad_()
    optimizer = torch.optim.Adam([weights], 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(images @ weights.T, targets).backward()
        optimizer.step()
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["scores"])]
    graph = helper.make_graph(
        nodes, "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weights.detach().T.contiguous().numpy(), "w")],
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    check(f"onnx:{path}", tmp_path, dataset="digits")
