"""Secrets of an endpoint, in its address and its headers, are in no file that a command writes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from inference_server import CLASSES, SHAPE, InferenceServer

FORMATS = ("cyclonedx", "model-card", "atlas", "sarif", "eval-result", "csv", "parquet")


@pytest.fixture
def server():
    opened = InferenceServer()
    yield opened
    opened.close()


@pytest.mark.slow
def test_secrets_are_in_no_file_and_no_message(server, tmp_path, monkeypatch, run_cli):
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in range(CLASSES):
            folder = tmp_path / "data" / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(6):
                pixels = generator.integers(0, 256, (*SHAPE[1:], SHAPE[0]), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECURITYNET_HTTP_TOKEN", "s3cret-token")
    url = f"{server.url}?key=s3cret-key"
    done = run_cli("assess", url, "--dataset", "folder:data", "--attacks", "correctness,modified-entropy",
                   "--detectors", "none", "--out", "report", "-V")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert server.headers[-1]["Authorization"] == "Bearer s3cret-token", "it reached the server"
    printed = done.stdout + done.stderr
    for kind in FORMATS:
        exported = run_cli("export", "report", "--as", kind, "--out", f"exported-{kind}")
        assert exported.returncode == 0, exported.stderr
        printed += exported.stdout + exported.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 60
    assert not [path for path in written if b"s3cret" in path.read_bytes()]
    assert "s3cret" not in printed
