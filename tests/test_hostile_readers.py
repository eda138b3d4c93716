"""Small inputs that take a reader minutes or gigabytes, one a row: see the fixture `run_refused` for what must hold."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import sqlite3
import subprocess
import time
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from hostile_rows import choose_rows
from installed import needs_keras
from securitynet.catalog.importers.markdown import read_markdown
from securitynet.datasets.rendering import open_image
from securitynet.errors import DatasetError, SecurityNetError
from securitynet.scan.read_history import read_training_history

ASSESS = ("assess", "arch:simple-cnn", "--limit", "40", "--dataset")


# Weights and graphs


def save_long_pickle(path):
    """Empty lists: a byte each, and torch takes a microsecond or two for each byte."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02" + b"]" * 400_000 + b"}.")
        archive.writestr("w/version", "3\n")
        archive.writestr("w/byteorder", "little")


def save_long_old_pickle(path):
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    begin = content.index(pickle.dumps({"little_endian": True}, 2)[:2], content.index(b"little_endian"))
    path.write_bytes(content[: begin + 2] + b"]" * 400_000 + content[begin + 2 :])


@pytest.mark.parametrize("save", [save_long_pickle, save_long_old_pickle])
def test_long_pickles(run_refused, tmp_path, save):
    save(tmp_path / "w.pth")
    assert "would take minutes to read" in run_refused(*ASSESS, "digits", "--weights", "w.pth")


def test_a_keras_model_whose_configuration_is_no_text(run_refused, tmp_path):
    h5py = pytest.importorskip("h5py")
    needs_keras()
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = file.create_group("g").ref
    assert "no text" in run_refused("assess", "keras:m.h5", "--dataset", "digits")


def test_onnxruntime_prints_nothing_itself(run_cli, tmp_path):
    """Its log would write the names in a file to the terminal as they are."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Tile", ["x", "r"], ["y"], name="\x1b[2J")]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([1, 1, 10**5, 10**5]), "r")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "f.onnx")
    done = run_cli("assess", f"onnx:{tmp_path}/f.onnx", "--dataset", "digits", "--limit", "40", timeout=60)
    assert done.returncode == 1 and done.stderr.count("error:") == 1 and "\x1b" not in done.stderr, done.stderr


# Images


def encode_image(**options):
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_a_photograph_of_thousands_of_passes():
    content = encode_image(progressive=True)
    open_image(content, "a.jpg").load()
    begin = content.rfind(b"\xff\xda")
    scan = content[begin:-2]
    with pytest.raises(DatasetError, match="so many passes"):
        open_image(content[:-2] + scan * 3000 + content[-2:], "a.jpg")
    open_image(encode_image() + b"\xff\xda" * 10_000, "plain.jpg")  # has one pass, whatever comes behind it


def test_programs_are_no_images():
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(touch executed) run\n"
    with pytest.raises(DatasetError, match="EPS files are programs"):
        open_image(content, "a.png")


# Tables


def encode_small_image():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tables(folder, *, images=None, labels=None, attribute=None):
    folder.mkdir()
    labels = pa.array([0, 1] * 300) if labels is None else labels
    images = pa.array([encode_small_image()] * len(labels)) if images is None else images
    columns = {"image": images, "label": labels} | ({} if attribute is None else {"attribute": attribute})
    for part in ("train", "test"):
        pa.parquet.write_table(pa.table(columns), folder / f"{part}.parquet", store_schema=False)


def repeat_value(value, count):
    """An array that holds a value once, and says that it comes many times."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))


def state_more_rows(folder):
    write_tables(folder, labels=pa.array([0, 1] * 4))
    content = bytearray((folder / "train.parquet").read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    place = content.find(b"\x16\x10", footer)  # the field of eight rows or values
    while place >= 0:
        content[place + 1] = 0x7E
        place = content.find(b"\x16\x10", place + 2)
    (folder / "train.parquet").write_bytes(content)


TABLES = {
    "a picture that comes a thousand times": lambda folder: write_tables(
        folder, images=repeat_value(encode_small_image() + bytes(3_000_000), 600)
    ),
    "a text that comes a thousand times": lambda folder: write_tables(
        folder, attribute=repeat_value("x" * 3_000_000, 600)
    ),
    "labels without end": lambda folder: write_tables(
        folder, images=pa.nulls(10**6, pa.binary()), labels=pa.array(np.zeros(10**6, np.int64))
    ),
    "rows that are not there": state_more_rows,
}


@pytest.mark.parametrize("kind", choose_rows(TABLES, "rows that are not there", "a text that comes a thousand times"))
def test_tables(run_refused, tmp_path, kind):
    TABLES[kind](tmp_path / "data")
    run_refused(*ASSESS, "parquet:data", "--weights", "absent.pth")


def test_members_in_one_line(run_refused, tmp_path):
    (tmp_path / "m.csv").write_bytes(b"x" * 20_000_000)
    words = run_refused(*ASSESS, "digits", "--weights", "absent.pth", "--members", "m.csv")
    assert "line 1 has more than" in words


@pytest.mark.parametrize("text", ["9" * 5000 + "\n", "record\n" + "9" * 5000 + "\n", "\u00b2\u00b3\n"])
def test_numbers_that_are_none(run_refused, tmp_path, text):
    (tmp_path / "m.csv").write_text(text)
    run_refused(*ASSESS, "digits", "--weights", "absent.pth", "--members", "m.csv")


# Files of known datasets


def write_cifar(folder, names=b"abcdefghij"):
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(bytes(30730))
    (folder / "batches.meta.txt").write_bytes(b"\n".join(bytes([name]) for name in names))


def write_holes(folder):
    write_cifar(folder)
    os.truncate(folder / "test_batch.bin", 3073 * 10**9)


def write_pipe(folder):
    write_cifar(folder)
    (folder / "batches.meta.txt").unlink()
    os.mkfifo(folder / "batches.meta.txt")


def write_matlab(folder):
    from scipy.io import savemat

    for part, count in (("train", 110_000), ("test", 10)):
        values = {"X": np.zeros((32, 32, 3, count), np.uint8), "y": np.ones((count, 1), np.uint8)}
        savemat(folder / f"{part}_32x32.mat", values, do_compression=True)


ROOTS = {
    "images of holes": ("cifar10", write_holes),
    "names in a pipe": ("cifar10", write_pipe),
    "names that are no text": ("cifar10", lambda folder: write_cifar(folder, b"abcdefghi\xff")),
    "a small file of many images": ("svhn", write_matlab),
}


@pytest.mark.parametrize("kind", choose_rows(ROOTS, "images of holes", "names in a pipe"))
def test_known_datasets(run_refused, tmp_path, kind):
    name, write = ROOTS[kind]
    (tmp_path / "root").mkdir()
    write(tmp_path / "root")
    run_refused(*ASSESS, name, "--weights", "absent.pth", "--data-root", "root")


# Texts that regular expressions would read again from each place in them


def time_seconds(function, *arguments):
    started = time.process_time()
    function(*arguments)
    return time.process_time() - started


HEADING = "Model Name|Test Accuracy|Model Type|Data Name|Data Category|Num Class|Training Size|Conference|" \
          "Conference Type|Year|Country|Num Authors|Purpose|Paper Link|Weights"  # fmt: skip
LINES = {
    "blanks": lambda n: "| a |\n" + " " * n + "x",
    "blanks behind dashes": lambda n: "| a |\n-" + " " * n + "x",
    "tags that stay open": lambda n: make_row("<" * n),
    "brackets that stay open": lambda n: make_row("[" * n),
    "links that stay open": lambda n: make_row("[](" * n),
    "anchors that stay open": lambda n: make_row("x", "<a " * n),
}


def make_row(name, link="x"):
    count = HEADING.count("|") + 1
    return f"|{HEADING}|\n|{'-|' * count}\n|{name}|{'x|' * (count - 3)}{link}|{link}|\n"


@pytest.mark.parametrize("kind", LINES)
def test_lines_of_markdown(kind):
    def read(text):
        with contextlib.suppress(SecurityNetError):  # there may be no table in it
            read_markdown(text, "import:a.md")

    assert time_seconds(read, LINES[kind](100_000)) < 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".git/config", "\n" * 131_072),
        ("LICENSE", "Redistribution and use " * 6000),
        ("LICENSE", "Apache License" + " " * 100_000),
    ],
    ids=["lines of a configuration", "beginnings of a licence", "blanks in a licence"],
)
def test_texts_of_repositories(tmp_path, name, text):
    (tmp_path / ".git").mkdir()
    (tmp_path / name).write_text(text)
    assert time_seconds(read_training_history, tmp_path) < 2


# Git repositories


def write_repository(folder):
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message", "x"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(folder), *identity, *command], check=True)


def pack_giant(folder):
    """A commit of two gigabytes in an object of two megabytes."""
    name = "ab" + "0" * 38
    packer = zlib.compressobj(1)
    head = packer.compress(b"commit %d\0tree " % 2_000_000_000 + b"0" * 40 + b"\n")
    object_ = folder / ".git" / "objects" / name[:2] / name[2:]
    object_.parent.mkdir(exist_ok=True)
    object_.write_bytes(head + packer.compress(bytes(1000)) + packer.flush())
    (folder / ".git" / "HEAD").write_text(name)


def put_pipe(folder):
    (folder / ".git" / "objects" / "pack").mkdir(exist_ok=True)
    os.mkfifo(folder / ".git" / "objects" / "pack" / "pack-1.idx")


def borrow(folder):
    (folder / ".git" / "objects" / "info").mkdir(exist_ok=True)
    (folder / ".git" / "objects" / "info" / "alternates").write_text("/somebody/else/.git/objects\n")


def link_objects(folder):
    (folder / ".git" / "objects").rename(folder / "elsewhere")
    (folder / ".git" / "objects").symlink_to(folder / "elsewhere")


@pytest.mark.parametrize("spoil", [pack_giant, put_pipe, borrow, link_objects])
def test_repositories(tmp_path, spoil):
    write_repository(tmp_path)
    assert read_training_history(tmp_path).authors == 1
    spoil(tmp_path)
    started = time.monotonic()
    assert read_training_history(tmp_path).authors is None
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", ["LICENSE", ".git/config", ".git/HEAD"])
def test_files_of_repositories_that_never_end(tmp_path, name):
    write_repository(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to("/dev/zero")
    read_training_history(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    read_training_history(tmp_path)


# Addresses


@pytest.mark.parametrize("host", ["127.0.0.1:1/\x1b[2J", "a" * 5000 + ".example", "127.0.0.1:99999"])
def test_addresses_that_are_none(run_refused, host):
    url = f"http://{host}/v2/models/toy"
    run_refused("assess", url, "--dataset", "digits", "--limit", "40", "--timeout", "2", "--retries", "0")
    run_refused("catalog", "import", f"http://{host}/a.csv", "--db", "c.sqlite")


# Figures


@pytest.mark.parametrize("text", ["\x1b[2J", "\\x1b", "\x00", "\ufffe", "<script>&"])
def test_names_in_figures(text):
    alt = pytest.importorskip("altair")
    from securitynet.analysis.figures.render import to_pdf, to_svg

    points = alt.Data(values=[{"x": text, "y": 1}])
    chart = alt.Chart(points, title=text).mark_point().encode(x=alt.X("x:N", title=text), y="y:Q")
    assert "<svg" in to_svg(chart) and to_pdf(chart)


# Settings


@pytest.mark.parametrize("arguments", [(*ASSESS, "digits", "--config", "f"), ("study", "plan", "f")])
def test_settings_that_nobody_knows(run_refused, tmp_path, arguments):
    (tmp_path / "f").write_text("".join(f"k{number} = 1\n" for number in range(20_000)))
    run_refused(*arguments)


def test_a_catalog_of_an_unknown_revision(run_refused, tmp_path):
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        connection.execute("CREATE TABLE entries (id TEXT)")
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('zzz')")
    connection.close()
    assert "revision 'zzz'" in run_refused("catalog", "stats", "--db", "c.sqlite")


def test_a_schema_that_is_no_text(run_refused, tmp_path):
    path = tmp_path / "c.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE entries (id TEXT)")
    connection.close()
    path.write_bytes(
        path.read_bytes().replace(b"entriesentries", b"\xff\xfetries\xff\xfetries").replace(b"CREATE", b"\xff\xfeEATE")
    )
    assert "malformed" in run_refused("catalog", "stats", "--db", "c.sqlite")
