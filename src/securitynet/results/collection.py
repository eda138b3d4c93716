"""Reads a folder of results that anybody may have made: whose they are, whether they are intact, who reproduced them.

Nothing is followed that leads out of the folder, nothing is read before its size and kind are known, and what cannot be
read is counted with the reason. A signature counts only if it is by a key that the reader of the folder trusts; names
of signers come from the reader's own key files, never from a result.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from securitynet.errors import ConfigurationError, RefusedFile
from securitynet.files import DIGEST, check_digest, file_checksum
from securitynet.results import signing
from securitynet.results.document import LARGEST_RESULT, ResultDocument
from securitynet.results.statement import (
    REPRODUCTION_TYPE,
    TRIAL_ID,
    SignedResult,
    find_contradictions,
    find_document_changes,
    read_reproduction,
    read_signed_result,
)
from securitynet.results.store import TrialStore
from securitynet.untrusted import describe_size, parse_json, read_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

RESULT_FILE = "result.json"
STATEMENT_SUFFIX = ".intoto.json"
KEY_SUFFIXES = (".pub", ".pem")

LARGEST_TRIAL = 1 << 30
"""Largest size in bytes of a trial file whose digest is computed."""

MOST_FILES = 20_000
"""Files that are looked at; what lies beyond is counted."""

MOST_LEVELS = 6
"""Depth of folders below the given one."""

Evidence = Literal["reproduced", "signed", "unknown key", "unsigned", "changed"]
"""What stands behind a result, from most to least: signed by a trusted key and reproduced by another one; signed by a
trusted key; signed, by no trusted key; not signed; changed after it was signed or written."""

EVIDENCE: tuple[Evidence, ...] = get_args(Evidence)
"""All kinds of evidence, in this order."""


@dataclass(frozen=True)
class Reproducer:
    """A trusted key, not the signer's, that states to have reproduced a result.

    Attributes:
        name: Of the key, as its reader calls it.
        measurements: Names of the measurements that were reproduced.
    """

    name: str
    measurements: frozenset[str]


@dataclass(frozen=True)
class CollectedResult:
    """One result of a folder.

    Attributes:
        document: The result; of a signed one, what was signed.
        folder: Where it lies, relative to the given folder, with ``/`` between its parts.
        evidence: What stands behind it.
        signer: Name of the trusted key, or the beginning of the id that an unknown key states; None if unsigned.
        reproducers: Who reproduced which measurements.
        remarks: What a reader must know, a sentence each: what was changed, whose counter-signature does not count.
    """

    document: ResultDocument
    folder: str
    evidence: Evidence
    signer: str | None = None
    reproducers: tuple[Reproducer, ...] = ()
    remarks: tuple[str, ...] = ()

    def list_reproducers(self, measurement: str) -> list[str]:
        """Names of those who reproduced a measurement."""
        return [one.name for one in self.reproducers if measurement in one.measurements]


@dataclass(frozen=True)
class Collection:
    """The results of a folder.

    Attributes:
        results: In the order of their folders.
        skipped: Why files were not read -> how many.
        keys: Number of trusted keys.
    """

    results: tuple[CollectedResult, ...]
    skipped: Mapping[str, int]
    keys: int


@dataclass
class _Reading:
    """What was read so far; ``documents`` are results by folder, and whether they are as they were written."""

    documents: dict[Path, tuple[ResultDocument, bool]] = field(default_factory=dict)
    statements: list[tuple[Path, dict[str, Any], bytes, dict[str, Any]]] = field(default_factory=list)
    reproductions: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def read_keys(folder: Path) -> dict[str, Ed25519PublicKey]:
    """The trusted public keys in a folder, by the names of their files without suffix.

    Args:
        folder: Holds PEM files with the suffix ``.pub`` or ``.pem``.

    Raises:
        ConfigurationError: If there is no folder, no key in it, or a file that is no public Ed25519 key.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {folder}.", hint="Name a folder with public keys (NAME.pub).")
    keys = {
        path.stem: signing.read_public_key(path) for path in sorted(folder.iterdir()) if path.suffix in KEY_SUFFIXES
    }
    if not keys:
        raise ConfigurationError(f"{folder} holds no public key.", hint="Put a file NAME.pub for each signer there.")
    return keys


def collect_results(folder: Path, keys: Mapping[str, Ed25519PublicKey]) -> Collection:
    """Read all results in a folder and in the folders below it.

    Args:
        folder: Holds folders of assessments, or signed statements alone (``….intoto.json``).
        keys: The trusted keys by name.
    """
    reading = _Reading()
    for path in _list_files(folder, reading.skipped):
        try:
            _read(path, reading)
        except (ValueError, AttributeError, OSError, RefusedFile, signing.SignatureError) as error:
            reading.skipped[_explain(path, error)] += 1
    signed_results: dict[str, CollectedResult] = {}
    for path, envelope, payload, statement in reading.statements:
        try:
            signed = read_signed_result(statement)
        except signing.SignatureError:
            reading.skipped["a statement that holds no result"] += 1
            continue
        digest = hashlib.sha256(payload).hexdigest()
        beside = reading.documents.pop(path.parent, None)
        counter = [pair for pair in reading.reproductions if read_reproduction(pair[1])[0] == digest]
        judged = _judge(folder, path.parent, envelope, signed, beside and beside[0], counter, keys)
        other = signed_results.get(digest)
        reading.skipped["another copy of a signed result"] += other is not None
        # A copy without the signature, or beside a changed file, does not take the place of a good one.
        if other is None or EVIDENCE.index(judged.evidence) < EVIDENCE.index(other.evidence):
            signed_results[digest] = judged
    results = list(signed_results.values())
    results += [_judge_unsigned(folder, place, *beside) for place, beside in reading.documents.items()]
    skipped = {reason: count for reason, count in reading.skipped.items() if count}
    return Collection(tuple(sorted(results, key=lambda one: one.folder)), skipped, len(keys))


def fingerprint_folder(folder: Path) -> str:
    """A text that changes when a file of the folder that `collect_results` reads does."""
    content = hashlib.sha256()
    for path in _list_files(folder, Counter(), every=True):
        try:
            status = path.lstat()
        except OSError:  # gone meanwhile
            continue
        content.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\n".encode())
    return content.hexdigest()


def _list_files(folder: Path, skipped: Counter[str], *, every: bool = False) -> Iterator[Path]:
    """Results and statements below a folder, or every regular file; links and what is no file are counted."""
    pending, count = [(folder, 0)], 0
    while pending:
        place, level = pending.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            skipped["a folder that cannot be read"] += 1
            continue
        for entry in entries:
            count += 1
            if count > MOST_FILES:
                skipped[f"beyond the first {MOST_FILES:,} files"] += 1
                continue
            path = Path(entry.path)
            if entry.is_symlink():
                skipped["a symbolic link"] += 1
            elif entry.is_dir(follow_symlinks=False):
                if level >= MOST_LEVELS:
                    skipped[f"a folder more than {MOST_LEVELS} levels deep"] += 1
                elif every or entry.name != "trials":
                    pending.append((path, level + 1))
            elif not entry.is_file(follow_symlinks=False):
                skipped["a pipe, a socket or a device"] += 1
            elif every or entry.name == RESULT_FILE or entry.name.endswith(STATEMENT_SUFFIX):
                yield path


def _read(path: Path, reading: _Reading) -> None:
    value = parse_json(read_bytes(path, LARGEST_RESULT))
    if path.name == RESULT_FILE:
        content = {name: part for name, part in value.items() if name != DIGEST}
        document = ResultDocument.model_validate_json(json.dumps(content))
        try:
            check_digest(value)
        except ValueError:
            reading.documents[path.parent] = (document, False)
        else:
            reading.documents[path.parent] = (document, True)
        return
    statement, payload = signing.open_envelope(value)
    if statement["predicateType"] == REPRODUCTION_TYPE:
        read_reproduction(statement)
        reading.reproductions.append((value, statement))
    else:
        reading.statements.append((path, value, payload, statement))


def _explain(path: Path, error: Exception) -> str:
    """Why a file was skipped, in words that name no file, so that reasons can be counted."""
    if isinstance(error, RefusedFile):
        return f"larger than {describe_size(LARGEST_RESULT)}"
    if isinstance(error, OSError):
        return "cannot be read"
    return "not a result" if path.name == RESULT_FILE else "not a signed statement"


def _judge(
    root: Path,
    place: Path,
    envelope: dict[str, Any],
    signed: SignedResult,
    document: ResultDocument | None,
    counter: list[tuple[dict[str, Any], dict[str, Any]]],
    keys: Mapping[str, Ed25519PublicKey],
) -> CollectedResult:
    signer = signing.find_signer(envelope, keys)
    remarks = find_document_changes(signed, document) if document is not None else []
    remarks += _find_trial_changes(place, signed.trials)
    reproducers: list[Reproducer] = []
    notes: list[str] = []
    for other, statement in counter:
        name = signing.find_signer(other, keys)
        if name is None:
            notes.append("An unknown key states that it reproduced this result.")
        elif name == signer:
            notes.append("The counter-signature is by the signer's own key, and does not count.")
        else:
            reproducers.append(Reproducer(name, frozenset(read_reproduction(statement)[1])))
    evidence: Evidence = "changed" if remarks else "unknown key"
    if signer is not None and not remarks:
        evidence = "reproduced" if reproducers else "signed"
    return CollectedResult(
        document=signed.document,
        folder=_name(root, place),
        evidence=evidence,
        signer=signer or _read_key_id(envelope),
        reproducers=tuple(reproducers) if signer is not None else (),
        remarks=tuple(dict.fromkeys((*remarks, *notes))),
    )


def _judge_unsigned(root: Path, place: Path, document: ResultDocument, intact: bool) -> CollectedResult:
    remarks = [] if intact else ["result.json was changed after it was written."]
    folder = place / "trials"
    if intact and folder.is_dir() and not folder.is_symlink():
        remarks = _find_trial_changes(place, {trial.id: {} for trial in document.trials})
        remarks = remarks or find_contradictions(document, TrialStore(place))
    return CollectedResult(document, _name(root, place), "changed" if remarks else "unsigned", remarks=tuple(remarks))


def _find_trial_changes(place: Path, trials: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Where trial files beside a result are not those that were signed, or cannot be read; none if there are none.

    Args:
        place: Folder of the result.
        trials: Id of a trial -> part -> digest; parts of unsigned results have none.
    """
    folder = place / "trials"
    if not folder.is_dir() or folder.is_symlink():
        return []
    if not all(map(TRIAL_ID.fullmatch, trials)):  # they become the names of files
        return ["It names trials by something else than their ids."]
    changes = []
    for trial, digests in trials.items():
        for part, suffix in (("record", ".json"), ("arrays", ".npz")):
            path = folder / trial[:2] / f"{trial}{suffix}"
            if not _is_safe(path):
                changes.append(f"The {part} of the trial {trial} cannot be read.")
            elif digests and (file_checksum(path) if path.exists() else None) != digests.get(part):
                verb = "differs" if part == "record" else "differ"
                changes.append(f"The {part} of the trial {trial} {verb} from what was signed.")
    return changes


def _read_key_id(envelope: dict[str, Any]) -> str | None:
    """The beginning of the key's id that an envelope states, which nothing confirms."""
    stated = envelope["signatures"][0].get("keyid") if envelope["signatures"] else None
    return stated[:16] if isinstance(stated, str) else None


def _is_safe(path: Path) -> bool:
    """Whether a file is not there, or is a regular one of a reasonable size that no link leads to."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return not path.parent.is_symlink()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST_TRIAL and not path.parent.is_symlink()


def _name(root: Path, place: Path) -> str:
    return place.relative_to(root).as_posix()
