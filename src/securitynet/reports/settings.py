"""How to reproduce the numbers: the command line and the configuration file, with what differs from the defaults."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from securitynet.assessments.config import AssessConfig
from securitynet.results.document import ResultDocument

_POSITIONAL = "model"


def list_changed(document: ResultDocument) -> dict[str, Any]:
    """The settings that differ from their defaults, in the order in which options are declared."""
    settings = {}
    for name, field in AssessConfig.model_fields.items():
        if name not in document.settings:
            continue
        value = document.settings[name]
        default = None if field.is_required() else to_jsonable_python(field.default)
        if value is not None and value != default:
            settings[name] = value
    return settings


def command_line(document: ResultDocument) -> str:
    """``securitynet assess …``, quoted for a POSIX shell."""
    settings = list_changed(document)
    words = ["securitynet", "assess", str(settings.pop(_POSITIONAL, ""))]
    for name, value in settings.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", ",".join(map(_plain, value)) if isinstance(value, list) else _plain(value)]
    return shlex.join(words)


def toml(document: ResultDocument) -> str:
    """The same as a file for ``--config``."""
    return "\n".join(f"{name} = {_toml_value(value)}" for name, value in list_changed(document).items())


def lacks_weights(document: ResultDocument) -> bool:
    """Whether an architecture was assessed without a weights file: the model was then passed in from Python."""
    settings: Mapping[str, Any] = document.settings
    return str(settings.get(_POSITIONAL, "")).startswith(("arch:", "python:")) and settings.get("weights") is None


def _plain(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    # JSON's strings, numbers and booleans are TOML's, but for one character.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
