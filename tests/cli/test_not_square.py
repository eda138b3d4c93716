"""Images that are not square, from the command line: trained on, assessed, reconstructed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from securitynet.cli.main import app
from securitynet.errors import ModelError
from securitynet.models.loading.load import load_target
from securitynet.models.store.record_files import read_target_record

HEIGHT, WIDTH = 24, 32
NETS = """
from torch import nn

def any_size(num_classes):
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, num_classes))

def exact(num_classes):
    return nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(3 * 6 * 8, num_classes))

def square(num_classes, image_size):
    return nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(3 * (image_size // 4) ** 2, num_classes))
"""  # noqa: E501


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def train(folder, reference, *options):
    out = folder / f"{reference.rpartition(':')[2]}.safetensors"
    shared = (
        "--dataset",
        f"folder:{folder / 'data'}",
        "--split",
        "public",
        "--epochs",
        15,
        "--optimizer",
        "adam",
        "--learning-rate",
        0.01,
    )
    return run("train", reference, *shared, "--out", out, *options), out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with networks and a dataset of two classes, whose upper left quarter is dark or bright."""
    folder = tmp_path_factory.mktemp("not-square")
    (folder / "nets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for level, name in enumerate(("dark", "bright")):
            (folder / "data" / part / name).mkdir(parents=True)
            for number in range(24):
                pixels = rng.integers(0, 120, (HEIGHT, WIDTH, 3))
                pixels[: HEIGHT // 2, : WIDTH // 2] += 120 * level
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "data" / part / name / f"{number}.png")
    return folder


@pytest.mark.parametrize("factory", ["any_size", "exact"])
def test_a_network_of_ones_own_is_trained_assessed_and_inverted_on_the_images_as_they_are(folder, factory):
    reference = f"python:{folder / 'nets.py'}:{factory}"
    outcome, weights = train(folder, reference)
    assert outcome.exit_code == 0, outcome.output
    record = read_target_record(weights)
    assert record.image_size == (HEIGHT, WIDTH) and record.preprocessing.input_size is None
    assert record.test_accuracy > 0.9
    outcome = run(
        *("assess", reference, "--weights", weights, "--dataset", f"folder:{folder / 'data'}"),
        *("--attacks", "lira,fredrikson,pgd,patch", "--detectors", "mm-bd", "--out", folder / factory),
        *("--configure", "lira.shadows.count=4", "--cache", folder / "cache"),
    )
    assert outcome.exit_code == 0, outcome.output
    result = json.loads((folder / factory / "result.json").read_text())
    assert {trial["status"] for trial in result["trials"]} == {"ok"}
    # The shadow models see what the target sees, and the attack was made for images of that shape.
    shadows = [json.loads(path.read_text()) for path in (folder / "cache").glob("shadows/*/weights.json")]
    own = [shadow for shadow in shadows if shadow["architecture"] == f"python:nets.py:{factory}"]
    assert own and all(shadow["image_size"] == [HEIGHT, WIDTH] for shadow in own)
    assert all(shadow["preprocessing"]["input_size"] is None for shadow in own)
    values = {value["name"]: value["value"] for value in result["measurements"]}
    assert values["membership.lira.auc"] is not None and "inversion.fredrikson.mse" in values


def test_a_trained_network_is_loaded_without_its_dataset(folder):
    reference = f"python:{folder / 'nets.py'}:exact"
    weights = train(folder, reference, "--overwrite")[1]
    assert load_target(reference, weights=weights).posteriors(torch.zeros(1, 3, HEIGHT, WIDTH)).shape == (1, 2)


def test_a_network_for_squares_says_so_before_the_training(folder):
    outcome, weights = train(folder, f"python:{folder / 'nets.py'}:square")
    assert outcome.exit_code == 1 and isinstance(outcome.exception, ModelError)
    assert "takes square images only: it takes 3×32×32 and not 3×24×32" in outcome.exception.message
    assert "--image-size" in outcome.exception.hint and not weights.exists()
    outcome, weights = train(folder, f"python:{folder / 'nets.py'}:square", "--image-size", 32)
    assert outcome.exit_code == 0 and weights.exists(), outcome.output


def test_the_packages_networks_get_the_images_stretched_and_this_is_said(folder):
    outcome, weights = train(folder, "simple-cnn")
    assert outcome.exit_code == 0, outcome.output
    assert "gets them stretched to 32×32" in " ".join(outcome.output.split())
    record = read_target_record(weights)
    assert record.image_size == 32 and record.preprocessing.input_size == (32, 32)
    outcome = run(
        *("assess", "arch:simple-cnn", "--weights", weights, "--dataset", f"folder:{folder / 'data'}"),
        *("--attacks", "loss,pgd,fredrikson", "--detectors", "none", "--out", folder / "stretched"),
    )
    assert outcome.exit_code == 0, outcome.output
    result = json.loads((folder / "stretched" / "result.json").read_text())
    assert {trial["status"] for trial in result["trials"]} == {"ok"}
