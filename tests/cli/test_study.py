"""`securitynet study` as a user runs it: a small study of real attacks, its table, and the catalog."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas
import pyarrow.parquet
import pytest
import torch

import securitynet.catalog
from securitynet.assessments.known_methods import find_default_settings
from securitynet.catalog.schema import CatalogEntry
from securitynet.cli.main import main
from securitynet.results import export
from securitynet.results.export import to_frame
from securitynet.studies.execution.inspect import open_index
from securitynet.studies.execution.run import find_results


@pytest.fixture
def invoke(monkeypatch, capsys, forked_workers):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["securitynet", "study", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


STUDY = """
name = "command"
catalog = "{catalog}"
[data]
dataset = "digits"
limit = 300
[[train]]
architecture = "simple-cnn"
epochs = [2, 8]
learning_rate = 0.05
limit = 300
[[models]]
catalog = "mine:net"
normalize = "none"
head = "logits"
split = "four-way"
[[attacks]]
name = "correctness"
[[attacks]]
name = "ml-doctor-black-box"
settings = {{ epochs = 5 }}
"""


def test_from_a_file_to_the_catalog(invoke, tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(network, (torch.rand(4, 1, 8, 8),), dynamic_shapes=batch)
    torch.export.save(program, tmp_path / "net.pt2")
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    entry = CatalogEntry(key="mine:net", source="mine", name="net", reference=f"exported:{tmp_path}/net.pt2",
                         head="classifier", dataset="digits", claimed_accuracy=0.97, family="Linear")  # fmt: skip
    with securitynet.catalog.open(url) as catalog:
        catalog.add(entry.known())
    study, out = tmp_path / "study.toml", tmp_path / "out"
    study.write_text(STUDY.format(catalog=url) + '[datasets]\ndigits = "digits"\n')
    code, stdout, _ = invoke("plan", study, "--out", out, "--trust", "mine:net")
    assert code == 0 and "9 trials on 3 targets" in stdout and "To train first: 2 targets" in stdout
    code, stdout, stderr = invoke(
        "run", study, "--out", out, "--workers", 1, "--threads", 1, "--json", "--trust", "mine:net"
    )
    assert code == 0, stderr
    status = json.loads(stdout)
    assert (status["ok"], status["failed"], status["subjects"]["opened"]) == (9, 0, 3)
    assert "the accuracy is" in stderr and "0.9700 is stated" in stderr  # an untrained network is not what was claimed
    assert "9 of 9 trials ok" in invoke("status", study, "--out", out)[1]
    code, _, _ = invoke("export", out, tmp_path / "table.parquet")
    frame = pandas.read_parquet(tmp_path / "table.parquet")
    trained = frame[frame["architecture"] == "simple-cnn"]
    assert set(trained["epochs"]) == {2, 8} and len(set(frame["case"])) == 3
    assert set(frame[frame["catalog.family"] == "Linear"]["as_said"]) == {False}
    aucs = frame[(frame["method"] == "correctness") & (frame["measure"] == "auc")]
    overfitting = aucs["target_overfitting"]
    assert aucs["value"].to_numpy() == pytest.approx(0.5 + overfitting.to_numpy() / 2)  # Yeom et al.
    # Published twice, recorded once, with the trial that each value comes from.
    assert "new values of 1 entries; 2 targets are not in the catalog" in invoke("publish", out, "--catalog", url)[2]
    assert "0 new values" in invoke("publish", out, "--catalog", url)[2]
    with securitynet.catalog.open(url) as catalog:
        measured = {m.name: m for m in catalog.details("mine:net").measured}
    auc = frame[(frame["catalog.family"] == "Linear") & (frame["name"] == "membership.correctness.auc")].iloc[0]
    assert measured["membership.correctness.auc"].value == auc["value"]
    assert measured["membership.correctness.auc"].source == auc["trial"]
    # Its accuracy has the name under which published tables give theirs, so that searches and figures take it.
    assert measured["accuracy.test"].measured_by == "trial" and "target.test_accuracy" not in measured
    assert invoke("reindex", out)[0] == 0
    assert invoke("merge", out, "--out", tmp_path / "merged")[0] == 0
    assert invoke("export", tmp_path / "merged", tmp_path / "merged.csv")[0] == 0
    assert len(pandas.read_csv(tmp_path / "merged.csv")) == len(frame)
    check_parts(out, tmp_path)
    check_without_torch(out, tmp_path)


def check_parts(out, folder):
    """A table that is written in parts is the one that is written at once."""
    with open_index(find_results(str(out)), print) as index, pytest.MonkeyPatch.context() as patch:
        whole = to_frame(index, find_default_settings)
        patch.setattr(export, "ROWS_AT_ONCE", 7)
        for name in ("parts.parquet", "parts.csv", "parts.jsonl"):
            assert export.write_table(index, folder / name, find_default_settings) == (len(whole), 0)
    whole.to_parquet(folder / "whole.parquet", index=False)
    kinds = [pyarrow.parquet.read_schema(folder / name) for name in ("parts.parquet", "whole.parquet")]
    assert len(whole) > 14 and kinds[0].equals(kinds[1], check_metadata=True)
    frames = [pandas.read_parquet(folder / name) for name in ("parts.parquet", "whole.parquet")]
    pandas.testing.assert_frame_equal(*frames)
    assert (folder / "parts.csv").read_bytes() == export.encode_csv(whole)
    lines = whole.to_json(orient="records", lines=True, force_ascii=False)
    assert (folder / "parts.jsonl").read_text(encoding="utf-8") == lines


def check_without_torch(out, folder):
    """What only reads results takes neither the seconds nor the memory of torch."""
    run = "from securitynet.cli.main import app; app(standalone_mode=False)"
    code = f"import sys; {run}; assert 'torch' not in sys.modules"
    for arguments in (
        ("report", out),
        ("study", "export", out, folder / "again.csv"),
        ("study", "status", out),
        ("figures", "list", "--from", out),
    ):
        done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "absent.toml"), "There is no file"),
        (("status", "absent-folder"), "There are no results"),
        (("export", ".", "table.xlsx"), ".xlsx"),
    ],
)
def test_mistakes_are_told(invoke, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    code, _, stderr = invoke(*arguments)
    assert code == 1 and told in stderr and "Traceback" not in stderr


@pytest.mark.slow
def test_calibration_estimates_time_memory_and_queries(invoke, tmp_path):
    study = tmp_path / "study.toml"
    study.write_text("""
name = "estimate"
[data]
dataset = "digits"
[[train]]
architecture = "simple-cnn"
epochs = 3
[[attacks]]
name = "correctness"
""")
    code, stdout, stderr = invoke("plan", study, "--out", tmp_path / "out", "--calibrate", "--json", "--workers", 2)
    assert code == 0, stderr
    found = json.loads(stdout)["estimate"]
    assert found["seconds"] > 0 and found["memory"] > 2**27 and found["workers"] == 2
    assert found["queries"] == pytest.approx(899, rel=0.02)  # members and non-members of all digits
    assert not (tmp_path / "out" / "trials").exists()


@pytest.mark.real_data
@pytest.mark.slow
def test_the_shared_checkpoints_give_the_known_numbers(invoke, tmp_path, shared_data):
    """CIFAR-10's public ResNets, measured by hand before any of this was written."""
    study = tmp_path / "study.toml"
    text = f'name = "known"\n[data]\ndataset = "parquet:{shared_data}/cifar10-jpeg"\nnormalize = "imagenet"\n'
    for number, file in ((20, "resnet20-12fca82f.th"), (32, "resnet32-d509ac18.th")):
        text += f'[[models]]\nlabel = "resnet{number}"\nreference = "arch:cifar-resnet{number}"\n'
        text += f'weights = "{shared_data}/cifar10-resnets/{file}"\n'
    study.write_text(text + '[[attacks]]\nname = "modified-entropy"\n')
    code, _, stderr = invoke("run", study, "--out", tmp_path / "out", "--workers", 1)
    assert code == 0, stderr
    invoke("export", tmp_path / "out", tmp_path / "table.csv")
    frame = pandas.read_csv(tmp_path / "table.csv")
    aucs = frame[(frame["method"] == "modified-entropy") & (frame["measure"] == "auc")].set_index("model")
    known = {"resnet20": (0.8604, 0.8103, 0.5232), "resnet32": (0.8811, 0.8256, 0.5286)}
    for model, (train, test, auc) in known.items():
        row = aucs.loc[model]
        assert row["target_train_accuracy"] == pytest.approx(train, abs=2e-4)
        assert row["target_test_accuracy"] == pytest.approx(test, abs=2e-4)
        assert row["value"] == pytest.approx(auc, abs=2e-3)
