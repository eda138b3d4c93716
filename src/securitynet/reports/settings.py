"""How to reproduce the numbers: the command line and the configuration file, with what differs from the defaults."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from securitynet.assessments.config import AssessConfig
from securitynet.results.document import ResultDocument


def list_changed(document: ResultDocument) -> dict[str, Any]:
    """The settings that differ from their defaults, in the order in which options are declared."""
    return _select_changed(AssessConfig, document.settings)


def write_assess_command(document: ResultDocument) -> str:
    """``securitynet assess …``, quoted for a POSIX shell."""
    return write_command_line("assess", str(document.settings.get("model", "")), AssessConfig, document.settings)


def write_command_line(
    name: str, argument: str, config: type[BaseModel], settings: Mapping[str, Any], omit: Collection[str] = ()
) -> str:
    """A command with the settings that it has options for, unless they are its defaults; quoted for a POSIX shell.

    Args:
        name: The command.
        argument: Its only argument without an option.
        config: Its configuration.
        settings: Values by field, as in JSON, of this configuration or of that of another command.
        omit: Fields that get no option.
    """
    words = ["securitynet", name, argument]
    for field, value in _select_changed(config, settings).items():
        option = field.replace("_", "-")
        if field == "model" or field in omit:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", ",".join(map(_plain, value)) if isinstance(value, list) else _plain(value)]
    return shlex.join(words)


def write_toml(document: ResultDocument) -> str:
    """The same as a file for ``--config``."""
    return "\n".join(f"{name} = {_toml_value(value)}" for name, value in list_changed(document).items())


def lacks_weights(document: ResultDocument) -> bool:
    """Whether an architecture was assessed without a weights file: the model was then passed in from Python."""
    settings: Mapping[str, Any] = document.settings
    return str(settings.get("model", "")).startswith(("arch:", "python:")) and settings.get("weights") is None


def _select_changed(config: type[BaseModel], settings: Mapping[str, Any]) -> dict[str, Any]:
    changed = {}
    for name, field in config.model_fields.items():
        value = settings.get(name)
        default = None if field.is_required() else to_jsonable_python(field.default)
        if value is not None and value != default:
            changed[name] = value
    return changed


def _plain(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    # JSON's strings, numbers and booleans are TOML's, but for one character.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
