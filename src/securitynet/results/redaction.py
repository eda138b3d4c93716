"""Removes paths, user names and host names from a result, so that it can be handed to strangers."""

from __future__ import annotations

import contextlib
import getpass
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from securitynet.results.document import ResultDocument

OMISSION = "…"
"""Stands for what is left out."""

_ABSOLUTE = re.compile(
    r"(?:(?<![\w.:/\\~-])(?:~?/|[A-Za-z]:[\\/]|\\\\)|(?<=[a-z]{2}:)/(?!/))"
    r"[^\s'\",;:<>|()]+(?:[\\/][^\s'\",;:<>|()]+)+"
)
"""An absolute path of two or more parts within a text, or within a reference such as parquet:PATH."""

_PATH_SETTINGS = ("weights", "members", "non_members", "policy", "against", "data_root", "cache", "db", "out")
_REFERENCE = re.compile(r"^(?P<scheme>[a-z]+):(?P<path>[^:]+)(?P<rest>(?::[^:/\\]+)?)$")
_REMOTE = re.compile(r"^https?://")


def redact_document(document: ResultDocument) -> ResultDocument:
    """The result with the last parts of paths alone, and without the names of the user and of this machine.

    Digests, numbers and the names of records relative to their dataset stay, so that the result can be checked.

    Args:
        document: The result.
    """
    content = document.to_json()
    settings: dict[str, Any] = dict(content["settings"])
    paths = {str(settings[name]) for name in _PATH_SETTINGS if isinstance(settings.get(name), str)}
    for reference in (settings.get("model"), settings.get("dataset"), settings.get("auxiliary_dataset")):
        match = _REFERENCE.match(reference) if isinstance(reference, str) and not _REMOTE.match(reference) else None
        if match and ("/" in match["path"] or "\\" in match["path"]):
            paths.add(match["path"])
    replacements = {path: name_last_part(path) for path in paths if name_last_part(path) != path}
    for known in (str(Path.home()), str(Path.cwd())):
        if known not in ("/", "."):
            replacements.setdefault(known, OMISSION)
    names = [name for name in _list_names() if len(name) > 2]
    cleaned = _walk(content, replacements, names)
    return ResultDocument.model_validate(cleaned)


def clean_values(values: Any) -> Any:
    """JSON types without absolute paths, and without the names of the user and of this machine.

    Args:
        values: Texts, and lists and tables of them.
    """
    home = {str(Path.home()): OMISSION} if str(Path.home()) != "/" else {}
    return _walk(values, home, [name for name in _list_names() if len(name) > 2])


def name_last_part(path: str) -> str:
    """The last part of a path of either kind of system."""
    kind = PureWindowsPath if "\\" in path else PurePath
    return kind(path).name or path


def clean_text(text: str, replacements: Mapping[str, str], names: list[str]) -> str:
    """A text without the given paths and names, and without other absolute paths.

    Args:
        text: The text.
        replacements: Path -> what stands for it.
        names: Of users and machines.
    """
    for path in sorted(replacements, key=len, reverse=True):
        text = text.replace(path, replacements[path])
    if not _REMOTE.match(text):
        text = _ABSOLUTE.sub(lambda match: name_last_part(match[0]), text)
    for name in names:
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", OMISSION, text)
    return text


def _walk(value: Any, replacements: Mapping[str, str], names: list[str]) -> Any:
    if isinstance(value, str):
        return clean_text(value, replacements, names)
    if isinstance(value, list):
        return [_walk(item, replacements, names) for item in value]
    if isinstance(value, dict):
        return {key: _walk(item, replacements, names) for key, item in value.items()}
    return value


def _list_names() -> Iterator[str]:
    with contextlib.suppress(KeyError, OSError):  # a user without an entry in the system's list
        yield getpass.getuser()
    host = socket.gethostname()
    yield host
    if "." in host:
        yield host.partition(".")[0]
