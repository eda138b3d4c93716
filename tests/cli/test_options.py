"""Commands made from configurations: each field is one option; the command line is laid over a TOML file."""

import enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from pydantic import BaseModel, ConfigDict, Field
from typer.testing import CliRunner

from securitynet.assessments.config import AssessConfig, Commas
from securitynet.cli.options import add_config_options, parse
from securitynet.errors import ConfigurationError


class Level(str, enum.Enum):
    LOW = "low"
    HIGH = "high"


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    thing: str = Field(description="The thing.")
    count: int = Field(default=3, ge=1, description="How many.")
    level: Level | None = Field(default=None, description="How high.")
    mode: Literal["a", "b"] = Field(default="a", description="Which mode.")
    size: Literal[1, 3] | None = Field(default=None, description="Which size.")
    names: Annotated[tuple[str, ...], Commas] = Field(default=("x",), description="Names.")
    flag: bool = Field(default=False, description="A flag.")
    path: Path | None = Field(default=None, description="A path.")


@pytest.fixture
def run():
    app, seen = typer.Typer(), []

    @add_config_options(Config, positional=("thing",))
    def command(config: Config, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
        """Do it."""
        seen.append((config, loud))

    app.command()(command)
    app.command("other")(lambda: None)

    def invoke(*arguments):
        result = CliRunner().invoke(app, ["command", *arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result, (seen[-1] if seen else None)

    return invoke


def test_defaults_and_values(run):
    _, (config, loud) = run("apple")
    assert config == Config(thing="apple") and not loud
    options = "pear --count 5 --level high --mode b --size 3 --names p,q --flag --path f/g --loud"
    arguments = options.split()
    _, (config, loud) = run(*arguments)
    assert loud and config == Config(
        thing="pear", count=5, level="high", mode="b", size=3, names="p,q", flag=True, path="f/g"
    )


def test_a_list_may_be_given_in_pieces(run):
    _, (config, _) = run("pear", "--names", "p,q", "--names", "r")
    assert config.names == ("p", "q", "r")
    assert run("pear")[1][0].names == ("x",)


def test_help_has_every_field(run):
    result, _ = run("--help")
    for name, field in Config.model_fields.items():
        assert field.description.rstrip(".").split()[-1] in result.output
        assert f"--{name}" in result.output or name == "thing"
    assert "default: 3" in result.output


def test_command_line_is_laid_over_a_file(run, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('thing = "fig"\ncount = 7\nnames = ["r"]\n')
    _, (config, _) = run("--config", str(file), "--count", "9")
    assert config == Config(thing="fig", count=9, names=("r",))


def test_wrong_values_name_the_option(run, tmp_path):
    with pytest.raises(ConfigurationError, match="--count 0"):
        run("apple", "--count", "0")
    with pytest.raises(ConfigurationError, match="thing is missing"):
        run()
    file = tmp_path / "c.toml"
    file.write_text("coutn = 7\n")
    with pytest.raises(ConfigurationError, match="'coutn' is not an option"):
        run("apple", "--config", str(file))
    assert run("apple", "--mode", "z")[0].exit_code == 2


def test_assess_has_no_option_declared_twice_and_all_documented():
    for name, field in AssessConfig.model_fields.items():
        assert field.description, name
    config = parse(AssessConfig, {"model": "arch:x", "fprs": "0.1,0.05", "auxiliary": "partial,shadow"})
    assert config.fprs == (0.1, 0.05) and [a.value for a in config.auxiliary] == ["partial", "shadow"]


def test_the_home_folder_is_expanded_in_options_and_in_files_of_options(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "options.toml").write_text('model = "arch:simple-cnn"\nout = "~/report"\npolicy = "~/policy.toml"\n')
    config = parse(AssessConfig, {"cache": Path("~/cache")}, Path("~/options.toml"))
    assert (config.out, config.policy) == (tmp_path / "report", tmp_path / "policy.toml")
    assert config.cache == tmp_path / "cache" and config.weights is None


def test_a_rate_given_twice_counts_once():
    assert parse(AssessConfig, {"model": "arch:x", "fprs": "0.1,0.10,0.01"}).fprs == (0.1, 0.01)


def test_an_older_name_of_an_option_goes_on_working_and_is_not_shown():
    from securitynet.cli.main import app

    runner = CliRunner()
    shown = runner.invoke(app, ["train", "--help"]).output
    assert "--backdoor" in shown and "--implant" not in shown
    outcome = runner.invoke(app, ["train", "simple-cnn", "--dataset", "digits", "--implant", "no-such-backdoor"])
    assert "no-such-backdoor" in str(outcome.exception)
