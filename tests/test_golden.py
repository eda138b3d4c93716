"""Trial ids, cache keys and a ``result.json`` as the package made them before its modules were rearranged.

A change here means that trials, caches and results of users are not recognised any more: such a change is made on
purpose, with a new version of the format, or not at all.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

GOLDEN = Path(__file__).parent / "golden"
IDENTITIES = json.loads((GOLDEN / "identities.json").read_text(encoding="utf-8"))
RESULT = json.loads((GOLDEN / "result.json").read_text(encoding="utf-8"))


def write_weights(path: Path) -> None:
    """Weights of SimpleCNN for digits, the same on every machine."""
    from securitynet.models.architectures.factory import build

    state = {}
    for number, (name, tensor) in enumerate(
        sorted(build("simple-cnn", 10, channels=1, image_size=8).state_dict().items())
    ):
        values = np.random.default_rng(number).integers(-128, 128, size=tuple(tensor.shape))
        fan_in = tensor[0].numel() if tensor.ndim > 1 else tensor.numel()
        state[name] = torch.from_numpy((values / (128 * np.sqrt(fan_in))).astype(np.float32))
    safetensors.torch.save_file(state, path)


@pytest.fixture(scope="module")
def assessed(tmp_path_factory):
    """(result folder, cache folder) of the golden assessment, run by this version."""
    from securitynet.cli.main import app

    folder = tmp_path_factory.mktemp("golden")
    write_weights(folder / "weights.safetensors")
    options = {"config": GOLDEN / "assessment.toml", "weights": folder / "weights.safetensors"}
    options |= {"out": folder / "out", "cache": folder / "cache"}
    outcome = CliRunner().invoke(app, ["assess", *(f"--{name}={value}" for name, value in options.items())])
    assert outcome.exit_code == 0, outcome.output
    return folder / "out", folder / "cache"


def test_trial_ids(assessed):
    out, _ = assessed
    assert sorted(path.stem for path in out.glob("trials/*/*.json")) == sorted(IDENTITIES["trials"].values())
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert {trial["name"]: trial["id"] for trial in result["trials"]} == IDENTITIES["trials"]


def test_cache_keys(assessed):
    _, cache = assessed
    entries = sorted({path.relative_to(cache).as_posix() for path in cache.glob("*/*") if path.is_dir()})
    # Outputs of shadow models are kept by the digests of their weights, which the processor's rounding decides: no
    # machine-independent name can be expected of those four.
    of_shadows = [entry for entry in entries if entry.startswith("signals/") and entry not in IDENTITIES["cache"]]
    assert len(of_shadows) == 4
    # Copies of finished trials go by their ids, which are pinned above.
    rest = [entry for entry in entries if entry not in of_shadows and not entry.startswith("trials/")]
    assert rest == IDENTITIES["cache"]


def test_result(assessed):
    out, _ = assessed
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert set(RESULT) <= set(result)
    assert any("hardly better than chance" in note for note in result["target"].pop("notes"))  # said since 0.2.0
    for part in ("target", "dataset"):
        golden = {key: value for key, value in RESULT[part].items() if key != "notes"}
        changed = {key: result[part].get(key) for key, value in golden.items() if result[part].get(key) != value}
        assert not changed
    measured = {measurement["name"]: measurement for measurement in result["measurements"]}
    for golden in RESULT["measurements"]:
        trained = golden["name"].startswith("membership.rmia")  # a training's last bits are those of the processor
        value = measured[golden["name"]]["value"]
        assert value == pytest.approx(golden["value"], abs=0.05 if trained else 1e-6), golden["name"]


@pytest.mark.parametrize("name", sorted(IDENTITIES["configurations"]))
def test_default_configurations(name):
    """What a method is configured with by default is part of its trials' ids."""
    from securitynet.files import hash_stably

    kind, _, method = name.partition(" ")
    assert hash_stably(default_configuration(kind, method)) == IDENTITIES["configurations"][name]


def test_versions_of_methods():
    """A method that computes something else with equal settings has another version, and its trials other ids."""
    from securitynet.attacks import ATTACKS
    from securitynet.detectors import DETECTORS

    versions = {
        f"{kind} {name}": registry.get(name).version
        for kind, registry in (("attack", ATTACKS), ("detector", DETECTORS))
        for name in registry
    }
    assert {name: version for name, version in versions.items() if version != 1} == IDENTITIES["versions"]


def default_configuration(kind, method):
    from securitynet.assessments.known_methods import find_default_settings

    return find_default_settings(kind, method)
