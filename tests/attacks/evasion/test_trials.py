"""Evasion from the outside: an assessment from start to report, ONNX files, and settings on the command line."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from evasion_cases import splits_of, trained
from securitynet.assessments.config import split_commas
from securitynet.attacks.evasion.fgsm import Fgsm
from securitynet.attacks.evasion.fgsm_transfer import FgsmTransfer
from securitynet.attacks.evasion.square import Square
from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.models.architectures.factory import build
from securitynet.models.loading.load import load_target


@pytest.fixture(scope="module")
def weights(digits, tmp_path_factory):
    members = splits_of(len(digits)).members
    images, labels = digits.batch(members).float() / 255, torch.from_numpy(digits.labels[members])
    network = trained(lambda: build("simple-cnn", 10, channels=1, image_size=8), images, labels, epochs=8)
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    save_file(network.state_dict(), path)
    return network, path


def result(folder):
    return json.loads((folder / "result.json").read_text())


def test_assessment_with_a_surrogate_on_the_command_line(weights, tmp_path, run_cli):
    _, path = weights
    surrogate = f'fgsm-transfer.surrogates=[{{model="arch:simple-cnn", weights="{path}", normalize="none"}}]'
    settings = f"fgsm.samples=40,fgsm.epsilons=[0.05,0.2],fgsm-transfer.samples=40,{surrogate}"
    options = ("--weights", path, "--dataset", "digits", "--normalize", "none", "--detectors", "none")
    methods = ("--attacks", "fgsm,fgsm-transfer", "--configure", settings, "--auxiliary", "partial")
    done = run_cli("assess", "arch:simple-cnn", *options, *methods, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = {m["name"]: m for m in result(tmp_path / "out")["measurements"]}
    assert found["evasion.fgsm.success@epsilon=0.2"]["value"] > 0.3
    # The surrogate is the target itself, so its examples are as good as the target's own.
    transferred = found["evasion.fgsm-transfer@partial.accuracy-drop@epsilon=0.1"]
    assert transferred["value"] > 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "perturbation, amplified" in page and "of the images that it classifies correctly" in page


@pytest.mark.slow
def test_an_onnx_file_gives_no_gradients_and_can_be_attacked_without(weights, data, context, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torchattacks")
    network, path = weights
    file, count = tmp_path / "model.onnx", torch.export.Dim("n")
    example = (torch.zeros(2, 1, 8, 8),)
    torch.onnx.export(network, example, file, dynamo=True, dynamic_shapes=({0: count},), verbose=False)
    target = load_target(f"onnx:{file}", dataset=data.dataset, normalize="none")
    with pytest.raises(AccessDenied, match="white-box"):
        Fgsm(samples=10)(target, data, context, Fgsm.threat_models[0])
    surrogate = {"model": "arch:simple-cnn", "weights": path, "normalize": "none"}
    transfer = FgsmTransfer(samples=30, epsilons=(0.2,), surrogates=surrogate)
    output = transfer(target, data, context, FgsmTransfer.threat_models[0])
    assert (output.perturbed != output.labels).mean() > 0.3
    square = Square(samples=10, epsilons=(0.3,), queries=40)
    output = square(target, data, context, Square.threat_models[0])
    assert (output.perturbed != output.labels).mean() > 0.1
    surrogate = FgsmTransfer(samples=10, surrogates=f"onnx:{file}")
    with pytest.raises(ConfigurationError, match="outputs only"):
        surrogate(target, data, context, FgsmTransfer.threat_models[0])


def test_lists_and_tables_are_settings():
    text = 'fgsm.epsilons=[0.1, 0.2],a.b=[{m="x,y", n=1}], c.d=",q",e.f=1'
    assert split_commas(text) == ["fgsm.epsilons=[0.1, 0.2]", 'a.b=[{m="x,y", n=1}]', 'c.d=",q"', "e.f=1"]
    assert split_commas("it's,b,,") == ["it's", "b"]
