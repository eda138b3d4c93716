"""Data names code, files and addresses in vain, until the user does."""

from __future__ import annotations

import pytest

import securitynet.catalog
from securitynet.assessments.config import AssessConfig
from securitynet.catalog.schema import CatalogEntry
from securitynet.cli.options import parse
from securitynet.errors import ConfigurationError
from securitynet.models.loading.load import load_target
from securitynet.models.sources.references import list_code, refuse_untyped
from securitynet.studies.definition.plan import plan_study

ATTACK = '[[attacks]]\nname = "correctness"\n'
CODE = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n\ndef make():\n    raise SystemExit\n"


@pytest.fixture
def code(tmp_path):
    (tmp_path / "evil.py").write_text(CODE)
    yield f"python:{tmp_path}/evil.py:make"
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def catalog(tmp_path, code):
    """The user's catalog with one entry of each kind that only the user may open."""
    references = {"code": code, "file": f"onnx:{tmp_path}/net.onnx", "address": "https://example.org/v2/models/m"}
    references |= {"folder": "hf:./folder", "path": f"{tmp_path}/evil.py", "again": "catalog:mine:code"}
    with securitynet.catalog.open() as opened:
        for name, reference in {**references, "public": "timm:test_resnet"}.items():
            codes = {"head": "classifier", "task_type": "classification", "dataset": "digits"}
            opened.add(CatalogEntry(key=f"mine:{name}", source="mine", name=name, reference=reference, **codes).known())
    return references


def plan(tmp_path, text, **options):
    path = tmp_path / "study.toml"
    path.write_text(f'name = "a"\n[data]\ndataset = "digits"\n{text}\n{ATTACK}[datasets]\ndigits = "digits"\n')
    return plan_study(path, **options)


@pytest.mark.parametrize(
    ("text", "deed"),
    [
        ("python:a.py:f", "run code"),
        (" python:a.py:f", "run code"),
        ("onnx:/etc/passwd", "read a file"),
        ("keras:a.h5", "read a file"),
        ("torchscript:a.pt", "read a file"),
        ("outputs:a.npz", "read a file"),
        ("hf:../folder", "read a file"),
        ("/dev/zero", "read a file"),
        ("unknown:thing", "read a file"),
        ("http://169.254.169.254/latest", "send images"),
        ("https://example.org/v2/models/m", "send images"),
        ("catalog:other", "catalog again"),
    ],
)
def test_what_data_may_not_name(text, deed):
    with pytest.raises(ConfigurationError, match=deed):
        refuse_untyped(text, "The row", "type it")


@pytest.mark.parametrize(
    "text", ["timm:resnet18", "torchvision:resnet50@IMAGENET1K_V2", "hf:a/b@main", "arch:simple-cnn"]
)
def test_published_models_pass(text):
    refuse_untyped(text, "The row", "type it")


def test_code_within_settings_is_found():
    settings = {"a": ["x", {"b": "lira.shadows.architecture=python:a.py:f"}], "c": "python:b.py:g,timm:resnet18"}
    assert list(list_code(settings)) == ["python:a.py:f", "python:b.py:g"]
    assert not list(list_code({"description": "timm: python 3", "d": "onnx:python.onnx"}))


@pytest.mark.parametrize("name", ["code", "file", "address", "folder", "path", "again"])
def test_entries_of_the_catalog(catalog, name, tmp_path):
    with pytest.raises(ConfigurationError, match=r"only where you name it yourself.*--trust"):
        load_target(f"catalog:mine:{name}")
    for table in (f'catalog = "mine:{name}"', f'reference = "catalog:mine:{name}"', f'query = "{name}"'):
        with pytest.raises(ConfigurationError, match="only where you name it yourself"):
            plan(tmp_path, f"[[models]]\n{table}")


def test_a_trusted_entry_is_opened(catalog, tmp_path):
    with pytest.raises(Exception, match=r"The ONNX file .*net\.onnx does not exist"):
        load_target("catalog:mine:file", trust=True)
    planned = plan(tmp_path, '[[models]]\ncatalog = "mine:file"', trust=["mine:file"])
    assert planned.targets[0].options["model"] == catalog["file"]


def test_lists(catalog, tmp_path, code):
    def write(reference, entry):
        (tmp_path / "list.toml").write_text(f'[[models]]\nreference = "{reference}"\ncatalog = "{entry}"\n')

    table = '[[models]]\nlist = "list.toml"'
    write(code, "mine:public")  # the entry is harmless, what the list puts beside it is not
    for trust in ((), ["mine:public"]):
        with pytest.raises(ConfigurationError, match=r"The list list\.toml refers to python:.*run code"):
            plan(tmp_path, table, trust=trust)
    write(catalog["file"], "mine:file")
    assert plan(tmp_path, table, trust=["mine:file"]).targets
    write("timm:test_resnet", "mine:public")
    assert plan(tmp_path, table).targets


@pytest.mark.parametrize(
    "text",
    [
        '[[models]]\nreference = "{}"',
        '[[train]]\narchitecture = "{}"',
        '[[models]]\nreference = "arch:simple-cnn"\narchitecture = "{}"',
        '[[models]]\nreference = "arch:simple-cnn"\n[[attacks]]\nname = "lira"\nsettings.shadows.architecture = "{}"',
        '[[models]]\nreference = "arch:simple-cnn"\n[[attacks]]\nname = "lira"\ngrid."shadows.architecture" = ["{}"]',
    ],
)
def test_code_in_a_study(code, tmp_path, text):
    text = text.format(code)
    with pytest.raises(ConfigurationError, match=r"runs the Python code of python:.*--trust"):
        plan(tmp_path, text)


def test_code_in_a_file_of_options(code, tmp_path):
    file = tmp_path / "options.toml"
    for text in (
        f'model = "{code}"',
        f'model = "a"\narchitecture = "{code}"',
        f'model = "a"\nreference_models = ["{code}=w"]',
    ):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match="run only where you name it yourself"):
            parse(AssessConfig, {}, file)
    file.write_text('model = "torchscript:a.pt"\ntrust = true')
    with pytest.raises(ConfigurationError, match="only you can decide"):
        parse(AssessConfig, {}, file)
    file.write_text(f'model = "{code}"')
    assert parse(AssessConfig, {"model": code}, file).model == code
