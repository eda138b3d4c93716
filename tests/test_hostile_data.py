"""Hostile data, settings and results, one a row: see the fixture `run_refused` for what must hold of each."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from hostile_rows import choose_rows

ASSESS = ("assess", "arch:simple-cnn", "--dataset")


def png(width=8, height=8):
    """An image that announces a size and holds next to nothing."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 200)) + chunk(b"IEND", b"")
    )


def good_image():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(folder, content, *, name="a.png"):
    """A dataset of two classes, one of whose images is hostile."""
    for part in ("train", "test"):
        for label in ("x", "y"):
            (folder / part / label).mkdir(parents=True)
            for number in range(4):
                (folder / part / label / f"{number}.png").write_bytes(good_image())
    path = folder / "train" / "x" / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)


IMAGES = {
    "a size of ten thousand million": png(100_000, 100_000),
    "a size of no pixels": png(0, 0),
    "the largest size": png(2**31 - 1, 2**31 - 1),
    "a picture cut short": good_image()[:40],
    "text": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch executed) run\n",
    "nothing": b"",
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", choose_rows(IMAGES))
def test_images_in_folders(run_refused, tmp_path, kind):
    write_images(tmp_path / "data", IMAGES[kind], name="a.eps.png" if kind == "PostScript" else "a.png")
    if kind == "a folder":
        (tmp_path / "data" / "train" / "x" / "a.png" / "b.png").write_bytes(b"no image")
    run_refused(*ASSESS, "folder:data")
    assert not (tmp_path / "executed").exists()


def write_columns(folder, names):
    folder.mkdir()
    values = {"image": pa.array([{"bytes": good_image(), "path": None}] * 6), "label": pa.array([0, 1] * 3)}
    table = pa.Table.from_arrays([values.get(name, values["label"]) for name in names], names=names)
    for part in ("train", "test"):
        pa.parquet.write_table(table, folder / f"{part}.parquet")


def write_parquet(folder, images=None, labels=None, count=6):
    folder.mkdir()
    images = [{"bytes": good_image(), "path": None}] * count if images is None else images
    labels = [number % 2 for number in range(count)] if labels is None else labels
    for part in ("train", "test"):
        pa.parquet.write_table(pa.table({"image": images, "label": labels}), folder / f"{part}.parquet")


def damage_footer(folder, change):
    write_parquet(folder)
    path = folder / "train.parquet"
    path.write_bytes(change(path.read_bytes()))


TABLES = {
    "a path instead of an image": lambda f: write_parquet(f, [{"bytes": None, "path": "/etc/passwd"}] * 6),
    "images that announce giants": lambda f: write_parquet(f, [{"bytes": png(60_000, 60_000), "path": None}] * 6),
    "no images": lambda f: write_parquet(f, [None] * 6),
    "numbers for images": lambda f: write_parquet(f, list(range(6))),
    "labels below zero": lambda f: write_parquet(f, labels=[-(10**9)] * 6),
    "labels that are not numbers": lambda f: write_parquet(f, labels=[float("nan")] * 6),
    "labels without end": lambda f: write_parquet(f, labels=[10**15 + number for number in range(6)]),
    "lists for labels": lambda f: write_parquet(f, labels=[[0, 1]] * 6),
    "no labels": lambda f: write_parquet(f, labels=pa.array([None] * 6, pa.int64())),
    "a footer longer than the file": lambda f: damage_footer(f, lambda b: b[:-8] + b"\xff\xff\xff\x7fPAR1"),
    "a footer of noise": lambda f: damage_footer(f, lambda b: b[:60] + bytes(255 - c for c in b[60:-8]) + b[-8:]),
    "a file cut short": lambda f: damage_footer(f, lambda b: b[: len(b) // 2]),
    "no rows": lambda f: write_parquet(f, [], [], 0),
    "two columns of one name": lambda f: write_columns(f, ["image", "label", "image"]),
    "thousands of columns": lambda f: write_columns(f, ["image", "label", *(f"c{n}" for n in range(5000))]),
}


@pytest.mark.parametrize("kind", choose_rows(TABLES, "a path instead of an image"))
def test_parquet(run_refused, tmp_path, kind):
    TABLES[kind](tmp_path / "data")
    run_refused(*ASSESS, "parquet:data")


MEMBERS = {
    "a giant field": "file\n" + '"' + "x" * 300_000,
    "zeros": b"file\n\0\0\0\0",
    "UTF-16": "file\nx/a.png\n".encode("utf-16"),
    "records below zero": "record\n-5\n-6\n",
    "records beyond the end": "record\n99999999999999999999999\n",
    "records of no number": "record\nnan\ninf\n",
    "records in fractions": "record\n1.5\n2.5\n",
    "records twice": "record\n" + "1\n" * 5,
    "paths outside": "file\n../../etc/passwd\n",
    "columns without end": ",".join(f"c{number}" for number in range(50_000)) + "\n",
    "rows without end": "record\n" + "1\n" * 2_500_000,
    "commands for a terminal": "record\n\x1b[2J\x1b]0;x\x07\n",
}


@pytest.mark.parametrize("kind", choose_rows(MEMBERS, "a giant field"))
def test_members(run_refused, tmp_path, kind):
    text = MEMBERS[kind]
    (tmp_path / "m.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    run_refused(*ASSESS, "digits", "--limit", "40", "--weights", "absent.pth", "--members", "m.csv")


STUDY = 'name = "a"\n[data]\ndataset = "digits"\n'
MODEL = '[[models]]\nreference = "arch:simple-cnn"\n'
ATTACK = '[[attacks]]\nname = "correctness"\n'
STUDIES = {
    "a grid without end": STUDY + MODEL + '[[attacks]]\nname = "lira"\n[attacks.grid]\n'
    + "".join(f'"{name}" = [{", ".join(map(str, range(1, 400)))}]\n' for name in ("shadows.count", "queries", "a")),
    "a number of 5,000 digits": f"seeds = [{'9' * 5000}]\n" + STUDY + MODEL + ATTACK,
    "a date for a name": "name = 1979-05-27\n" + MODEL + ATTACK,
    "an accuracy that is not a number": STUDY + MODEL + "accuracy = nan\n" + ATTACK,
    "an accuracy without bound": STUDY + MODEL + "accuracy = inf\n" + ATTACK,
    "a list that is the study itself": STUDY + '[[models]]\nlist = "s.toml"\n' + ATTACK,
    "a list that is a device": STUDY + '[[models]]\nlist = "/dev/zero"\n' + ATTACK,
    "a key twice": STUDY + STUDY,
    "a name that is a path": 'name = "../../x"\n[data]\ndataset = "digits"\n' + MODEL.replace("arch", "no") + ATTACK,
    "commands for a terminal": STUDY + MODEL + ATTACK.replace("correctness", "\\u001b[2J"),
    "workers below zero": STUDY + MODEL + ATTACK + "[run]\nworkers = -1\n",
    "no bytes of text": b"\xff\xfe\x00",
    "rates beyond one": STUDY + MODEL + ATTACK + "[measures]\nfprs = [2.0, -1.0]\n",
    "tables nested deeply": "[" + ".".join("a" * 3000) + "]\nx = 1\n",
    "a key of 20,000 parts": ".".join("a" * 20_000) + " = 1\n",
    "more epochs than 64 bits count": STUDY + '[[train]]\narchitecture = "mlp"\nepochs = 1' + "0" * 21 + "\n" + ATTACK,
    "a trillion workers": STUDY + MODEL + ATTACK + "[run]\nworkers = 1000000000000\n",
    "a path with a NUL": STUDY.replace("digits", "folder:a\\u0000b") + MODEL + ATTACK,
}  # fmt: skip


@pytest.mark.parametrize("kind", choose_rows(STUDIES, "a number of 5,000 digits"))
def test_studies(run_refused, tmp_path, kind):
    text = STUDIES[kind]
    (tmp_path / "s.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    run_refused("study", "plan", "s.toml")


POLICIES = {
    "a bound that is not a number": "[bounds]\n'membership.loss.auc' = { max = nan }\n",
    "a bound of another type": "[bounds]\n'membership.loss.auc' = 'low'\n",
    "a bound above nothing": "max = 1\n",
    "a list": "bounds = [1, 2, 3]\n",
    "no bytes of text": b"\xff\xfe\x00",
    "a number of 5,000 digits": "a = " + "9" * 5000,
}


@pytest.mark.parametrize("kind", choose_rows(POLICIES, "a number of 5,000 digits"))
def test_policies(run_refused, tmp_path, kind):
    text = POLICIES[kind]
    (tmp_path / "p.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    run_refused(*ASSESS, "digits", "--limit", "40", "--weights", "absent.pth", "--policy", "p.toml")


# Rows of the catalog


def row(**values):
    return json.dumps({"key": "test:a", "name": "a", **values})


ROWS = {
    "a.jsonl": {
        "a number of 5,000 digits": '{"key": "test:a", "name": "a", "parameters": ' + "9" * 5000 + "}",
        "a number without bound": '{"key": "test:a", "name": "a", "parameters": 1e999}',
        "a list for a name": row(name=["a"]),
        "a list of lists": "[[[]]]",
        "a nested value": '{"key": "test:a", "name": ' + "[" * 30_000,
        "no bytes of text": b"\xff\xfe\x00",
    },
    "a.csv": {
        "no columns that it knows": "a,b\n1,2\n",
        "a giant field": 'key,name\ntest:a,"' + "x" * 300_000,
        "zeros": b"key,name\ntest:a,\0\n",
        "millions of unusable rows": "key,name\n" + "x\n" * 3_000_000,
    },
    "a.md": {"a table cut short": "| key | na", "nothing": ""},
    "a.parquet": {"no table": "PAR1" + "x" * 100 + "PAR1"},
}


@pytest.mark.parametrize(
    ("name", "kind"), choose_rows([(name, kind) for name, kinds in ROWS.items() for kind in kinds])
)
def test_catalog_rows(run_refused, tmp_path, name, kind):
    text = ROWS[name][kind]
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    run_refused("catalog", "import", name, "--strict", "--db", "catalog.sqlite")


# Results of others


def write_trial(folder, text):
    (folder / "trials" / "ab").mkdir(parents=True)
    (folder / "trials" / "ab" / ("ab" + "0" * 30 + ".json")).write_text(text)


def write_endless_index(folder):
    """An index whose tables are views that never end."""
    write_trial(folder, "{}")
    with sqlite3.connect(folder / "index.sqlite") as connection:
        for table in ("result_files", "result_trials", "result_measurements", "result_subjects"):
            connection.execute(
                f"CREATE VIEW {table} AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
                "SELECT x AS root, x AS path, x AS stamp, x AS id, x AS record, x AS key, x AS status FROM n"
            )
    connection.close()


def write_endless_trigger(folder):
    """An index in which whoever writes runs a query that never ends."""
    write_trial(folder, "{}")
    with sqlite3.connect(folder / "index.sqlite") as connection:
        connection.execute("CREATE TABLE result_files (root TEXT, path TEXT, stamp TEXT)")
        connection.execute(
            "CREATE TRIGGER a AFTER INSERT ON result_files BEGIN SELECT count(*) FROM (WITH RECURSIVE n(x) AS "
            "(SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n); END"
        )
    connection.close()


def link_trials(folder):
    """Folders of trials that hold each other by links: following them, there are 3^40."""
    write_trial(folder, "{}")
    for name in ("a", "b", "c"):
        (folder / "trials" / name).symlink_to(".")


def replace_trial(folder, make):
    write_trial(folder, "")
    path = next(folder.rglob("*.json"))
    path.unlink()
    make(path)


RESULTS = {
    "a trial that is not a number": lambda f: write_trial(f, "NaN"),
    "a trial that is a list": lambda f: write_trial(f, "[]"),
    "a trial without bound": lambda f: write_trial(f, '{"version": 1e999}'),
    "a trial that is a device": lambda f: replace_trial(f, lambda path: path.symlink_to("/dev/zero")),
    "a trial that is a link to itself": lambda f: replace_trial(f, lambda path: path.symlink_to(path.name)),
    "a trial of a terabyte": lambda f: replace_trial(f, lambda path: (path.touch(), os.truncate(path, 10**12))),
    "trials that hold each other": link_trials,
    "an index that never ends": write_endless_index,
    "an index that never lets go": write_endless_trigger,
    "an index of noise": lambda f: (write_trial(f, "{}"), (f / "index.sqlite").write_bytes(b"SQLite format 3\0" * 90)),
    "nothing": lambda f: f.mkdir(),
}  # fmt: skip


@pytest.mark.parametrize("kind", choose_rows(RESULTS, "an index that never ends"))
def test_studies_of_others(run_refused, tmp_path, kind):
    RESULTS[kind](tmp_path / "r")
    run_refused("report", "r")


DOCUMENTS = {
    "a list": "[]",
    "a million empty trials": '{"trials":[' + "[]," * 10**6 + "[]]}",
    "a number": "1",
    "a number without bound": '{"version": 1e999}',
    "a number of 5,000 digits": '{"version": ' + "9" * 5000 + "}",
    "nested deeply": '{"target": ' + "[" * 100_000,
    "no bytes of text": b"\xff\xfe\x00",
    "a path for a trial": '{"format": "securitynet-assessment", "version": 1, "trials": ["../../../etc/passwd"]}',
}
READERS = {
    "verify": ("verify", "r"),
    "compare": ("compare", "r", "r"),
    "export": ("export", "r", "--as", "sarif", "--out", "x.json"),
    "against": (*ASSESS, "digits", "--limit", "40", "--weights", "absent.pth", "--against", "r"),
}


@pytest.mark.parametrize("kind", choose_rows(DOCUMENTS))
@pytest.mark.parametrize("reader", choose_rows(READERS, "verify"))
def test_assessments_of_others(run_refused, tmp_path, kind, reader):
    (tmp_path / "r").mkdir()
    text = DOCUMENTS[kind]
    (tmp_path / "r" / "result.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    run_refused(*READERS[reader])


# Recorded outputs


def save_recording(path, **arrays):
    np.savez(path, **arrays)


SCORES = np.full((8, 3), 1 / 3, np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
MEMBER = np.array([1, 1, 1, 1, 0, 0, 0, 0])
RECORDINGS = {
    "objects": {"posteriors": np.array([[print]] * 8, dtype=object), "labels": LABELS, "members": MEMBER},
    "scores that are not numbers": {"posteriors": SCORES * np.nan, "labels": LABELS, "members": MEMBER},
    "scores without bound": {"posteriors": SCORES * np.inf, "labels": LABELS, "members": MEMBER},
    "complex scores": {"posteriors": SCORES.astype(complex), "labels": LABELS, "members": MEMBER},
    "text for scores": {"posteriors": np.array([["a"] * 3] * 8), "labels": LABELS, "members": MEMBER},
    "no records": {"posteriors": SCORES[:0], "labels": LABELS[:0], "members": MEMBER[:0]},
    "fewer labels": {"posteriors": SCORES, "labels": LABELS[:3], "members": MEMBER},
    "labels beyond the classes": {"posteriors": SCORES, "labels": LABELS + 10**9, "members": MEMBER},
    "labels below zero": {"posteriors": SCORES, "labels": LABELS - 5, "members": MEMBER},
    "four axes": {"posteriors": np.ones((2, 2, 2, 2)), "labels": LABELS, "members": MEMBER},
    "nothing that it knows": {"x": SCORES},
}


@pytest.mark.parametrize("kind", choose_rows(RECORDINGS))
def test_recordings(run_refused, tmp_path, kind):
    save_recording(tmp_path / "f.npz", **RECORDINGS[kind])
    run_refused("assess", "outputs:f.npz")


# Keys and signatures


KEYS = {
    "nothing": b"",
    "noise": np.random.default_rng(2).bytes(200),
    "another algorithm": b"-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----\n",
    "a key cut short": b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----\n",
    "a locked key": b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGj\n-----END ENCRYPTED PRIVATE KEY-----\n",
}


@pytest.mark.parametrize("kind", choose_rows([*KEYS, "a device"]))
def test_keys(run_refused, tmp_path, kind):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "result.json").write_text("{}")
    if kind in KEYS:
        (tmp_path / "key.pem").write_bytes(KEYS[kind])
    run_refused("sign", "r", "--key", "key.pem" if kind in KEYS else "/dev/zero")
