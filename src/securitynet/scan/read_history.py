"""Licence, year, authors and address of a cloned repository, read from its files and its git objects.

A repository's own configuration can make git run programs. So git is started in an empty repository of ours, which
borrows only the objects of the other one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from securitynet.errors import RefusedFile
from securitynet.untrusted import open_regular

_LICENSES: tuple[tuple[str, ...], ...] = (
    ("apache-2.0", r"Apache License\s+Version 2\.0"),
    ("gpl-3.0", r"GNU GENERAL PUBLIC LICENSE\s+Version 3"),
    ("agpl-3.0", r"GNU AFFERO GENERAL PUBLIC LICENSE"),
    ("lgpl-3.0", r"GNU LESSER GENERAL PUBLIC LICENSE"),
    ("gpl-2.0", r"GNU GENERAL PUBLIC LICENSE\s+Version 2"),
    ("mpl-2.0", r"Mozilla Public License"),
    ("bsd-3-clause", r"Redistribution and use", r"Neither the name"),
    ("bsd-2-clause", r"Redistribution and use in source and binary forms"),
    ("mit", r"Permission is hereby granted, free of charge"),
    ("unlicense", r"This is free and unencumbered software"),
    ("cc0-1.0", r"CC0 1\.0 Universal"),
    ("cc-by-nc-4.0", r"Attribution-NonCommercial 4\.0"),
    ("cc-by-4.0", r"Attribution 4\.0 International"),
)
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REMOTE = re.compile(
    r"^[ \t]*url[ \t]*=[ \t]*"
    r"(?:https://(?:[^@/\s]*@)?|git@|ssh://git@)([\w.-]+)[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?[ \t\r]*$",
    re.MULTILINE,
)
_TIMEOUT = 20
_MEMORY = "256m"
_MAX_TEXT = 1 << 17


@dataclass(frozen=True)
class RepositoryHistory:
    """What a repository says about itself.

    Attributes:
        license: Licence, as an SPDX name in lower case.
        year: Year of the first commit.
        authors: How many people have commits, by e-mail address.
        commit: The commit that is checked out.
        address: Web address, without user names or tokens.
    """

    license: str | None = None
    year: int | None = None
    authors: int | None = None
    commit: str | None = None
    address: str | None = None


def read_training_history(folder: Path) -> RepositoryHistory:
    """Read what a repository says about itself; None for each that it does not say.

    Args:
        folder: Root of the repository, with or without a folder ``.git``.
    """
    git = folder / ".git"
    commit = _head(git) if git.is_dir() and not git.is_symlink() else None
    years, authors = _commits(git, commit) if commit else ([], set())
    return RepositoryHistory(
        license=_read_license(folder),
        year=min(years) if years else None,
        authors=len(authors) or None,
        commit=commit,
        address=_read_address(git),
    )


def _read_license(folder: Path) -> str | None:
    names = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "COPYING", "license", "License.txt")
    for name in names:
        text = _read_text(folder / name)
        for license_name, *patterns in _LICENSES if text else ():
            if _occur_in_order(patterns, text):
                return license_name
    return None


def _occur_in_order(patterns: list[str], text: str) -> bool:
    """Whether each pattern occurs behind the one before; as one pattern, it would be tried at each place again."""
    start = 0
    for pattern in patterns:
        match = re.compile(pattern, re.IGNORECASE).search(text, start)
        if match is None:
            return False
        start = match.end()
    return True


def _read_address(git: Path) -> str | None:
    match = _REMOTE.search(_read_text(git / "config"))
    return f"https://{match[1]}/{match[2]}/{match[3]}" if match else None


def _head(git: Path) -> str | None:
    """The commit that HEAD means, by reading files."""
    text = _read_text(git / "HEAD").strip()
    if _SHA.fullmatch(text):
        return text
    name = text.removeprefix("ref: ").strip()
    if not re.fullmatch(r"refs/[\w./-]+", name) or ".." in name:
        return None
    loose = _read_text(git / name).strip()
    if _SHA.fullmatch(loose):
        return loose
    packed = re.search(rf"^([0-9a-f]{{40,64}}) {re.escape(name)}$", _read_text(git / "packed-refs"), re.MULTILINE)
    return packed[1] if packed else None


def _commits(git: Path, commit: str) -> tuple[list[int], set[str]]:
    """Years and authors' addresses of all commits that lead to one."""
    program = shutil.which("git")
    if program is None or not _is_plain(git / "objects"):
        return [], set()
    with tempfile.TemporaryDirectory() as empty:
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": empty,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOC_LIMIT": _MEMORY,  # a small object may state that it is a commit of gigabytes
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((git / "objects").resolve()),
        }
        ours = Path(empty) / "ours.git"
        commands = (
            [program, "init", "--quiet", "--bare", str(ours)],
            [
                program,
                "--git-dir",
                str(ours),
                "log",
                "--no-show-signature",
                "--format=%ad%x09%ae",
                "--date=format:%Y",
                commit,
            ],
        )
        try:
            for command in commands:
                done = subprocess.run(
                    command, env=environment, cwd=empty, capture_output=True, timeout=_TIMEOUT, check=True
                )
        except (OSError, subprocess.SubprocessError):
            return [], set()
    rows = [line.split("\t", 1) for line in done.stdout.decode("utf-8", "replace").splitlines() if "\t" in line]
    return [int(year) for year, _ in rows if year.isdecimal() and len(year) < 9], {
        address.lower() for _, address in rows
    }


def _is_plain(objects: Path) -> bool:
    """Whether a folder of git objects holds nothing but files, and does not refer to other folders of objects.

    Git would wait for what comes out of a pipe, and read the objects of any repository on this machine.
    """
    if objects.is_symlink() or not objects.is_dir():
        return False
    if any((objects / "info" / name).exists() for name in ("alternates", "http-alternates")):
        return False
    for folder, folders, names in os.walk(objects):
        if any(Path(folder, name).is_symlink() for name in folders):
            return False
        if not all(Path(folder, name).is_file() for name in names):
            return False
    return True


def _read_text(path: Path) -> str:
    try:
        with open_regular(path) as stream:
            return stream.read(_MAX_TEXT).decode("utf-8", "replace")
    except (OSError, RefusedFile):
        return ""
