"""Pages that are generated from the code while the docs are built: the command line, the registries, the changes."""

import re
import subprocess
import sys
from pathlib import Path

import mkdocs_gen_files

from securitynet.cli.listing import REGISTRIES
from securitynet.registry import Registry

ROOT = Path(__file__).parents[1]


def load_registry(location: str) -> Registry:
    """The registry at a place like ``package.module:NAME``."""
    module, _, attribute = location.partition(":")
    return getattr(__import__(module, fromlist=[attribute]), attribute)


def describe_command_line() -> str:
    """The help of all commands, as Markdown."""
    arguments = [sys.executable, "-m", "typer", "securitynet.cli.main", "utils", "docs", "--name", "securitynet"]
    text = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    return re.sub(r"^# `securitynet`", "# Command line", text)


def list_registered() -> str:
    """The names that each registry knows, with what they stand for, as Markdown."""
    lines = ["# What is registered", "", "The same lists as `securitynet list` prints."]
    for kind, location in REGISTRIES.items():
        lines += ["", f"## {kind.capitalize()}", ""]
        entries = load_registry(location).entries.values()
        lines += [f"- **`{entry.name}`**: {entry.summary}" for entry in entries] or ["This version has none."]
    return "\n".join(lines) + "\n"


for path, text in {
    "reference/cli.md": describe_command_line(),
    "reference/registry.md": list_registered(),
    "changes.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
}.items():
    with mkdocs_gen_files.open(path, "w") as stream:
        stream.write(text)
