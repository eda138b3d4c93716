"""What holds for every command: help in groups, -v and -q, names that are nearly right, one WARNING."""

from __future__ import annotations

import logging
import sys

import pytest

from securitynet.assessments.config import OPTION_GROUPS, AssessConfig
from securitynet.cli import console
from securitynet.cli.assess import describe_interruption
from securitynet.cli.main import main
from securitynet.version import __version__


@pytest.fixture
def invoke(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["securitynet", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_names_that_are_nearly_right(invoke):
    code, _, err = invoke("asess")
    assert code == 2 and "Did you mean assess?" in err
    assert "Did you mean" not in invoke("quux")[2]


@pytest.mark.parametrize(
    "typed, meant, code",
    [
        ("list attaks", "attacks", 2),
        ("list Detectors", "detectors?", 2),
        ("list --jsn attacks", "--json", 2),
        ("study rn x", "run?", 2),
        ("study run --worker=2 x", "--workers", 2),
        ("train simple-cnn --split=fourway", "four-way?", 2),
        ("assess arch:simple-cnn --dataset digits --attacks losss", "loss", 1),
        ("export report --as sarff", "sarif?", 1),
    ],
)
def test_names_of_any_kind_that_are_nearly_right(invoke, typed, meant, code):
    exit_code, _, err = invoke(*typed.split())
    words = " ".join(err.replace("│", " ").split())
    assert exit_code == code and f"Did you mean {meant}" in words
    assert "Value error" not in words


def test_an_option_of_one_letter_is_like_no_other(invoke):
    assert "Did you mean" not in invoke("assess", "-k")[2]


def test_an_unknown_option_of_a_file_is_named_with_those_that_may_be_meant(invoke, tmp_path):
    (tmp_path / "own.toml").write_text('atacks = ["loss"]\n')
    assert "did you mean attacks" in invoke("assess", "arch:simple-cnn", "--config", tmp_path / "own.toml")[2]


def test_the_version_in_one_letter(invoke):
    assert invoke("-V")[1].strip() == f"securitynet {__version__}"


def test_every_option_of_assess_has_its_group(invoke):
    grouped = [name for names in OPTION_GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(AssessConfig.model_fields) - {"model"}
    code, out, _ = invoke("assess", "--help")
    assert code == 0 and all(title in out for title in OPTION_GROUPS)


@pytest.mark.parametrize("option, level", [("-v", logging.DEBUG), ("-q", logging.ERROR), (None, logging.INFO)])
def test_verbosity_reaches_the_log(invoke, option, level):
    assert invoke("list", "detectors", *([option] if option else []))[0] == 0
    assert logging.getLogger("securitynet").level == level
    assert console.is_verbose() == (option == "-v")
    invoke("list", "detectors")
    assert not console.is_verbose()


def test_a_warning_says_so_once():
    record = logging.LogRecord("securitynet", logging.WARNING, "f", 1, "WARNING: %s", ("dark",), None)
    assert console.remove_level(record) and record.getMessage() == "dark"
    harmless = logging.LogRecord("securitynet", logging.INFO, "f", 1, "WARNING: 100%% of %s", ("x",), None)
    assert console.remove_level(harmless) and harmless.getMessage() == "WARNING: 100% of x"


def test_an_interrupted_assessment_says_what_is_kept(tmp_path):
    assert "finished trials are kept" in describe_interruption(None)
    (tmp_path / "trials" / "ab").mkdir(parents=True)
    (tmp_path / "trials" / "ab" / "abc.json").write_text("{}")
    assert f"1 finished trial is kept in {tmp_path}" in describe_interruption(tmp_path)
