"""The registry: names from tables, files and plug-ins, imported when asked for."""

import subprocess
import sys

import pytest

from securitynet.errors import ConfigurationError, UnknownName
from securitynet.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    root = tmp_path / "plugs"
    (root / "family").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "base.py").write_text("class Thing: ...\n")
    (root / "family" / "__init__.py").write_text("")
    (root / "family" / "_shared.py").write_text("raise RuntimeError('never imported by listing')\n")
    (root / "family" / "first_one.py").write_text(
        '"""The first one.\n\nMore."""\nfrom plugs.base import Thing\nclass FirstOne(Thing): ...\n'
    )
    (root / "family" / "broken.py").write_text(
        '"""Two in one."""\nfrom plugs.base import Thing\nclass A(Thing): ...\nclass B(Thing): ...\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Registry("thing", package="plugs", base="Thing")
    for name in [name for name in sys.modules if name.startswith("plugs")]:
        del sys.modules[name]


def test_a_file_is_an_entry_named_after_it(package):
    assert package.names() == ["family.broken", "family.first-one"]
    assert package.entries["family.first-one"].summary == "The first one."
    assert package.get("first-one").__name__ == "FirstOne"
    assert package.families() == ["family"]


def test_listing_imports_nothing(package):
    _ = package.entries
    assert "plugs.family.first_one" not in sys.modules


def test_two_classes_in_one_file_are_refused(package):
    with pytest.raises(ConfigurationError, match="defines 2"):
        package.get("family.broken")


def test_unknown_name_suggests_close_ones():
    registry = Registry("colour", {"green": ("builtins:str", ""), "grey": ("builtins:str", "")})
    with pytest.raises(UnknownName, match="Did you mean gre"):
        registry.get("gren")


def test_ambiguous_short_name():
    registry = Registry("thing", {"a.x": ("builtins:int", ""), "b.x": ("builtins:str", "")})
    with pytest.raises(ConfigurationError, match="ambiguous"):
        registry.get("x")
    assert registry.get("b.x") is str


def test_the_real_registries_resolve_every_entry():
    from securitynet.attacks import ATTACKS
    from securitynet.attacks.base import Attack

    assert {"membership.correctness", "membership.modified-entropy"} <= set(ATTACKS)
    for name in ATTACKS:
        assert issubclass(ATTACKS.get(name), Attack) and ATTACKS.entries[name].summary


@pytest.mark.parametrize("command", [["-c", "import securitynet"], ["-m", "securitynet.cli.main", "--help"]])
def test_import_and_help_load_no_torch(command):
    probe = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {line.rpartition("|")[2].strip() for line in probe.stderr.splitlines()}
    assert "securitynet" in loaded or "securitynet.cli" in loaded
    assert not loaded & {"torch", "torchvision", "timm", "pandas", "altair", "sklearn", "scipy"}


def test_an_unknown_name_lists_each_entry_once():
    registry = Registry("thing", {"a.first": ("builtins:int", ""), "b.second": ("builtins:str", "")})
    with pytest.raises(UnknownName, match=r"Known: first, second\.$"):
        registry.get("zzz")
