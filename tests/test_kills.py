"""Kills at named moments and disks that fill up: at the n-th event of a kind, over the commands that write.

After a kill, the same command ends with the results of an undisturbed run and leaves nothing else behind. On a full
disk, a command ends with one clear message, and what was there stays whole. The sweeps over all n are slow tests;
`make test` takes a sample of some commands.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from command_line import run_command
from dying import KINDS, SPACE, dying_environment, read_counts

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="files are found by their descriptors")

CHANGING = {
    "seconds", "finished", "digest", "environment", "timings", "started", "written", "created", "run", "stamp",
    "record", "added_at", "updated_at", "at", "when", "time", "sent", "reused",
}  # fmt: skip
"""Fields that differ between two undisturbed runs, or repeat those that do."""

RUNNER = ("out/run/", "out/term")
"""Of a study: what its workers say while they run, and the number of the runner that holds it."""

RECIPE = ("--dataset", "digits", "--limit", "200", "--device", "cpu")

STUDY = """
name = "small"

[data]
dataset = "digits"
limit = 200
normalize = "none"
[[train]]
architecture = "simple-cnn"
epochs = 2

[[attacks]]
name = ["correctness", "modified-entropy"]

[[attacks]]
name = "lira"
settings = { shadows = { count = 4 } }

"""
RUN = """
[run]
workers = 1
threads = 1
device = "cpu"
"""


def write_nothing(folder: Path) -> None:
    pass


@dataclass
class Command:
    """A command whose runs are killed.

    Attributes:
        arguments: Of the command line; run in the folder that holds all that it writes.
        prepare: Puts what it reads into that folder.
        before: Commands that run undisturbed before it.
        ignored: Parts of paths that two undisturbed runs need not have in common.
        writes: The files for which it is run.
        refuses: What it says where these exist, as they do after a kill at the very end.
    """

    arguments: tuple[str, ...]
    prepare: Callable[[Path], None] = write_nothing
    before: tuple[tuple[str, ...], ...] = ()
    ignored: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    refuses: str | None = None


def write_study(folder: Path) -> None:
    (folder / "study.toml").write_text(STUDY + RUN)


def write_small_study(folder: Path) -> None:
    """Two trials of an entry of the catalog, whose weights lie beside the study."""
    from securitynet.models.architectures.factory import build

    torch.manual_seed(0)
    save_file(build("simple-cnn", 10, 1, 8).state_dict(), folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    codes = {"key": "test:a", "source": "test", "name": "a", "reference": "arch:simple-cnn", "dataset": "digits",
             "head": "classifier", "task_type": "classification", "checksum": f"sha256:{digest}"}  # fmt: skip
    (folder / "table.jsonl").write_text(json.dumps(codes) + "\n")
    data, trained, attacks = STUDY.partition('[[train]]\narchitecture = "simple-cnn"\nepochs = 2\n')
    assert trained
    model = '[[models]]\ncatalog = "test:a"\nweights = "model.safetensors"\n'
    few = attacks.partition('[[attacks]]\nname = "lira"')[0]
    (folder / "study.toml").write_text(f'catalog = "catalog.sqlite"\n{data}head = "logits"\n{model}{few}{RUN}')


def write_ray_study(folder: Path) -> None:
    pytest.importorskip("ray")
    (folder / "study.toml").write_text(STUDY + RUN.replace("[run]", '[run]\nexecutor = "ray"'))


def write_table(folder: Path) -> None:
    rows = [
        {"key": f"test:{number}", "source": "test", "name": f"net {number}", "dataset": "CIFAR-10"}
        for number in range(40)
    ]
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_key_and_policy(folder: Path) -> None:
    evidence = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from cryptography.hazmat.primitives import serialization as form

    key = evidence.Ed25519PrivateKey.from_private_bytes(bytes(32))
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    (folder / "policy.toml").write_text('"target.test_accuracy" = { min = 0.0 }\n')


TRAIN = ("train", "simple-cnn", *RECIPE, "--epochs", "3", "--out", "model.safetensors")
ASSESS = ("assess", "arch:simple-cnn", "--weights", "model.safetensors", *RECIPE, "--attacks",
          "correctness,modified-entropy,lira,pgd", "--detectors", "none", "--configure", "lira.shadows.count=4",
          "--out", "report")  # fmt: skip
SMALL_ASSESS = (*ASSESS[: ASSESS.index("--attacks")], "--attacks", "loss", "--detectors", "none", "--out", "report")
REPAIR = ("repair", "arch:simple-cnn", "--weights", "model.safetensors", *RECIPE, "--defense", "fine-pruning",
          "--configure", "fine-pruning.epochs=2", "--no-scan", "--out", "repaired.safetensors")  # fmt: skip
SIGN = ("sign", "report", "--key", "key.pem")
IMPORT = ("catalog", "import", "table.jsonl", "--db", "catalog.sqlite")
STUDY_RUN = ("study", "run", "study.toml", "--out", "out")
COMMANDS = {
    "train": Command(TRAIN, writes=("model.safetensors", "model.json")),
    "assess": Command(ASSESS, before=(TRAIN,), writes=("report/result.json", "report/report.html")),
    "small assess": Command(SMALL_ASSESS, before=(TRAIN,), writes=("report/result.json", "report/report.html")),
    "repair": Command(
        REPAIR, before=(TRAIN,), writes=("repaired.safetensors", "repaired.json"), refuses="exists already"
    ),
    **{
        name: Command(
            ("export", "report", "--as", form, "--out", file), write_key_and_policy, (TRAIN, ASSESS), writes=(file,)
        )
        for name, form, file in (
            ("export", "cyclonedx", "bom.json"),
            ("model card", "model-card", "card.md"),
            ("table", "parquet", "table.parquet"),
        )
    },
    "sign": Command(SIGN, write_key_and_policy, before=(TRAIN, ASSESS), writes=("report/result.intoto.json",)),
    "verify": Command(
        ("verify", "report", "--counter-sign", "key.pem", "--sample", "0.3"),
        write_key_and_policy,
        before=(TRAIN, ASSESS, SIGN),
        writes=("report/result.reproduced.intoto.json",),
    ),
    "compare": Command(
        ("compare", "report", "report", "--policy", "policy.toml", "--markdown", "comment.md"),
        write_key_and_policy,
        before=(TRAIN, ASSESS),
        writes=("comment.md",),
    ),
    "import": Command(IMPORT, write_table),
    "catalog export": Command(
        ("catalog", "export", "out.csv", "--db", "catalog.sqlite"),
        write_table,
        before=(IMPORT,),
        writes=("out.csv",),
    ),
    "study": Command(STUDY_RUN, write_study, ignored=RUNNER),
    "ray study": Command(STUDY_RUN, write_ray_study, ignored=RUNNER),
    "study export": Command(
        ("study", "export", "out", "table.csv"),
        write_study,
        before=(STUDY_RUN,),
        writes=("table.csv",),
    ),
    "small study": Command(STUDY_RUN, write_small_study, before=(IMPORT,), ignored=RUNNER),
    "reindex": Command(("study", "reindex", "out"), write_small_study, before=(IMPORT, STUDY_RUN)),
    "merge": Command(("study", "merge", "out", "--out", "merged"), write_small_study, before=(IMPORT, STUDY_RUN)),
    "publish": Command(
        ("study", "publish", "out", "--catalog", "catalog.sqlite"), write_small_study, before=(IMPORT, STUDY_RUN)
    ),
}


@dataclass
class Place:
    """A folder in which a command runs, again and again."""

    folder: Path
    streams: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """(exit code, errors) of a command; a negative code is the signal that ended it."""
        settings = {"SECURITYNET_CACHE": f"{self.folder}/cache", "SECURITYNET_DATA": f"{self.folder}/data"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (settings | {"OMP_NUM_THREADS": "1"} | environment).items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            done = run_command(list(arguments), self.streams, timeout=300)
        return done.returncode, done.stderr


def describe_folder(folder: Path, ignored: tuple[str, ...]) -> dict[str, Any]:
    """Path -> what must be the same in each run, for every file below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    return {name: describe_file(path) for path, name in names.items() if not name.startswith(ignored)}


def describe_file(path: Path) -> Any:
    if path.name == "checksums.json":  # by path and inode, which no two runs have in common
        return sorted(digest for _, digest in json.loads(path.read_text()).values())
    if path.suffix in (".json", ".jsonl"):
        return [drop_changing(json.loads(text)) for text in split_documents(path)]
    if path.suffix in (".html", ".sqlite-wal", ".sqlite-shm", ".lock"):
        return "exists"
    if path.suffix == ".sqlite":
        return describe_database(path)
    if path.suffix == ".csv":
        lines = path.read_text().splitlines()
        kept = [number for number, name in enumerate(lines[0].split(",")) if name not in CHANGING]
        return len(lines), [lines[0].split(",")[number] for number in kept]
    return hashlib.sha256(path.read_bytes()).hexdigest()


def split_documents(path: Path) -> list[str]:
    text = path.read_text()
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def drop_changing(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: drop_changing(part) for name, part in value.items() if name not in CHANGING}
    return [drop_changing(part) for part in value] if isinstance(value, list) else value


def describe_database(path: Path) -> dict[str, Any]:
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        content = {}
        for table in tables:
            cursor = connection.execute(f'SELECT * FROM "{table}"')
            # The checksum of a trial is that of its record, with its times.
            changing = CHANGING | ({"checksum"} if table == "result_trials" else set())
            kept = [number for number, column in enumerate(cursor.description) if column[0] not in changing]
            content[table] = sorted(repr([row[number] for number in kept]) for row in cursor)
    connection.close()
    return content


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Name of a command -> (folder as before it, description of the folder after it, number of each kind of event)."""
    known: dict[str, tuple[Path, dict[str, Any], dict[str, int]]] = {}
    prepared: dict[tuple[Any, ...], Path] = {}

    def prepare(command: Command, count: int) -> Path:
        """The folder after the first commands that run before a command; several commands share it."""
        key = command.prepare, command.before[:count]
        if key not in prepared:
            home = tmp_path_factory.mktemp("prepared")
            place = Place(home / "place", home)
            if count:
                shutil.copytree(prepare(command, count - 1), place.folder)
                code, errors = place.run(*command.before[count - 1])
                assert code == 0, errors
            else:
                place.folder.mkdir()
                command.prepare(place.folder)
            prepared[key] = place.folder
        return prepared[key]

    def find(name: str) -> tuple[Path, dict[str, Any], dict[str, int]]:
        if name not in known:
            command, home = COMMANDS[name], tmp_path_factory.mktemp("undisturbed")
            place = Place(home / "place", home)
            before = prepare(command, len(command.before))
            shutil.copytree(before, place.folder)
            code, errors = place.run(*command.arguments, **dying_environment(place.folder, home / "counts", None))
            assert code == 0, errors
            known[name] = before, describe_folder(place.folder, command.ignored), read_counts(home / "counts")
        return known[name]

    return find


def kill_and_run_again(name: str, kind: str, number: int, home: Path, undisturbed: Any) -> int:
    """Kill a command at a moment, run it again, and compare; returns how the first run ended."""
    before, expected, _ = undisturbed(name)
    command, place = COMMANDS[name], Place(home / "place", home)
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(before, place.folder)
    first, _ = place.run(*command.arguments, **dying_environment(place.folder, home / "counts", (kind, number)))
    again, errors = place.run(*command.arguments)
    done = again == 0 or (command.refuses is not None and command.refuses in errors)
    assert done, f"{name}, {kind} {number}: {errors}"
    found = describe_folder(place.folder, command.ignored)
    more, fewer = sorted(found.keys() - expected.keys()), sorted(expected.keys() - found.keys())
    other = [path for path in sorted(found.keys() & expected.keys()) if found[path] != expected[path]]
    assert not more + fewer + other, f"{name}, {kind} {number}: {more=}, {fewer=}, {other=}"
    return first


@pytest.mark.parametrize("name", ["train", "import"])
def test_a_kill(name, tmp_path, undisturbed):
    counts = undisturbed(name)[2]
    moments = [(kind, number) for kind in KINDS for number in range(1, counts.get(kind, 0) + 1)]
    kind, number = random.Random(name).choice(moments)
    # The clock decides on some events (the next checkpoint), so that the last may not come.
    while kill_and_run_again(name, kind, number, tmp_path / "home", undisturbed) != -9:
        number -= 1
        assert number, f"{kind} never came"


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_all_kills(name, tmp_path, undisturbed):
    limit = int(os.environ.get("SECURITYNET_KILLS", "40"))
    counts = undisturbed(name)[2]
    moments = [(kind, number) for kind in KINDS for number in range(1, counts.get(kind, 0) + 1)]
    if len(moments) > limit:  # evenly, so that every kind and every phase is among them
        moments = [moments[index * len(moments) // limit] for index in range(limit)]
    killed, wrong = 0, []
    for kind, number in moments:
        try:
            killed += kill_and_run_again(name, kind, number, tmp_path / "home", undisturbed) == -9
        except AssertionError as error:
            wrong.append(str(error).partition("assert (")[0])
    print(f"{name}: {counts}; {killed} of {len(moments)} killed, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)


def check_full_disk(name: str, number: int, earlier: bytes | None, home: Path, undisturbed: Any) -> None:
    """Run a command whose disk is full from the n-th event on: it ends with an error, unless the event never came.

    The clock decides on some events (the next checkpoint).
    """
    before, expected, _ = undisturbed(name)
    command, place = COMMANDS[name], Place(home / "place", home)
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(before, place.folder)
    files = [place.folder / file for file in command.writes]
    if earlier is not None:
        for file in files:
            file.write_bytes(earlier)
    code, errors = place.run(*command.arguments, **dying_environment(place.folder, home / "counts", (SPACE, number)))
    moment = f"{name}, {number}: exit code {code}, {errors}"
    assert not list(place.folder.rglob(".*.tmp")), moment
    for file, path in zip(command.writes, files, strict=True):
        whole = path.exists() and describe_file(path) == expected[file]
        assert whole or (path.read_bytes() if path.exists() else None) == earlier, f"{file}; {moment}"
        assert whole or code, moment
    if code:
        assert code == 1 and errors.count("No space left on device") == 1 and "Traceback" not in errors, moment
    else:
        assert read_counts(home / "counts").get(SPACE, 0) < number, moment


def sweep_full_disk(name: str, limit: int, home: Path, undisturbed: Any) -> None:
    events = undisturbed(name)[2][SPACE]
    numbers = range(1, events + 1) if events <= limit else [1 + index * events // limit for index in range(limit)]
    refuses = name in ("train", "repair")  # to replace a model
    for number in numbers:
        check_full_disk(name, number, None if refuses or number % 2 else b"[]", home, undisturbed)


@pytest.mark.parametrize("name", ["catalog export"])
def test_a_full_disk(name, tmp_path, undisturbed):
    sweep_full_disk(name, 3, tmp_path / "home", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.writes])
def test_all_full_disks(name, tmp_path, undisturbed):
    sweep_full_disk(name, 12, tmp_path / "home", undisturbed)
