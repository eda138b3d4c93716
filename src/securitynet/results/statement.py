"""A result as an in-toto statement: which model, by the digest of its weights, and what was measured on it.

The layout is that of in-toto's Statement v1: the subjects are the assessed weights, and the predicate is the result
with the digests of its trial files and, for each bound of the policy, the metric, the comparator, the threshold,
whether it holds, and the number of samples. `securitynet.results.signing` signs a statement.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securitynet.errors import ConfigurationError
from securitynet.files import file_checksum
from securitynet.results.document import ResultDocument
from securitynet.results.redaction import OMISSION, redact_document
from securitynet.results.signing import SignatureError
from securitynet.results.store import TrialStore

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
ASSESSMENT_TYPE = "urn:securitynet:assessment:1"
REPRODUCTION_TYPE = "urn:securitynet:reproduction:1"

TARGET_DIGEST = "securitynetTargetSha256"
"""Name of the digest over everything that decides a target's outputs, beside that of the file."""

TRIAL_ID = re.compile(r"[0-9a-f]{32}")
"""How ids of trials look; others, which would become names of files, are refused."""


@dataclass(frozen=True)
class SignedResult:
    """What a statement says.

    Attributes:
        document: The result.
        trials: Id of a trial -> part (``record``, ``arrays``) -> SHA-256 of its file.
        redacted: Whether folders and names were left out of the result.
    """

    document: ResultDocument
    trials: Mapping[str, Mapping[str, str]]
    redacted: bool


def make_statement(
    document: ResultDocument, store: TrialStore, weights: Path | None = None, *, redacted: bool = False
) -> dict[str, Any]:
    """The statement of a result.

    Args:
        document: The result.
        store: Its trial files, whose digests are stated.
        weights: The file of the assessed weights, if it is at hand; its SHA-256 is the first subject.
        redacted: Whether folders and names are left out of the result.

    Raises:
        ConfigurationError: If a trial file of the result is missing.
    """
    subjects = []
    if weights is not None:
        subjects.append({"name": weights.name, "digest": {"sha256": file_checksum(weights)}})
    subjects.append({"name": document.target.reference, "digest": {TARGET_DIGEST: document.target.checksum}})
    return {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": ASSESSMENT_TYPE,
        "predicate": {
            "checks": [check.model_dump(mode="json") for check in document.policy.checks] if document.policy else [],
            "redacted": redacted,
            "result": (redact_document(document) if redacted else document).to_json(),
            "trials": {trial.id: digest_trial(store, trial.id) for trial in document.trials},
        },
    }


def digest_trial(store: TrialStore, trial_id: str) -> dict[str, str]:
    """SHA-256 of a trial's files: the record, and its arrays if it has any.

    Raises:
        ConfigurationError: If there is no record.
    """
    try:
        digests = {"record": hashlib.sha256(store.files.read(store.name(trial_id))).hexdigest()}
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"The file of the trial {trial_id} is missing.", hint="A result is signed together with its trial files."
        ) from error
    with contextlib.suppress(FileNotFoundError):
        digests["arrays"] = hashlib.sha256(store.files.read(store.name(trial_id, ".npz"))).hexdigest()
    return digests


def read_signed_result(statement: dict[str, Any]) -> SignedResult:
    """What a statement says about a result.

    Args:
        statement: From `securitynet.results.signing.open_envelope`; its content may come from anybody.

    Raises:
        SignatureError: If it is a statement about something else, or not complete.
    """
    predicate = statement["predicate"]
    if statement["predicateType"] != ASSESSMENT_TYPE:
        raise SignatureError("The statement is not about a result.")
    try:
        document = ResultDocument.model_validate_json(json.dumps(predicate["result"]))
        trials = {
            str(trial): {str(part): str(d) for part, d in own.items()} for trial, own in predicate["trials"].items()
        }
    except (KeyError, AttributeError, ValueError, RecursionError) as error:
        raise SignatureError("The statement holds no result that this version can read.") from error
    if not all(map(TRIAL_ID.fullmatch, trials)):  # they become the names of files
        raise SignatureError("The statement names trials by something else than their ids.")
    unsigned = sorted({trial.id for trial in document.trials} - trials.keys())
    if unsigned:
        raise SignatureError(f"The statement has no digest of the trial {unsigned[0]}.")
    return SignedResult(document, trials, bool(predicate.get("redacted")))


def find_document_changes(signed: SignedResult, document: ResultDocument) -> list[str]:
    """What differs between a result and what was signed, in a sentence; empty if nothing does.

    Args:
        signed: What was signed.
        document: The result as it is now.
    """
    stated, now = signed.document.to_json(), document.to_json()
    if stated != now and signed.redacted:
        now = redact_document(document).to_json()
    differing = {key for key in stated.keys() | now.keys() if not _agree(stated.get(key), now.get(key))}
    return [f"result.json differs from what was signed, in {', '.join(sorted(differing))}."] if differing else []


def find_changes(statement: dict[str, Any], document: ResultDocument, store: TrialStore) -> list[str]:
    """What differs between a statement and the files that it is about, a sentence each; empty if nothing does.

    Args:
        statement: The statement.
        document: The result as it is now.
        store: Its trial files.

    Raises:
        SignatureError: If it is not the statement of a result.
    """
    signed = read_signed_result(statement)
    changes = find_document_changes(signed, document)
    for trial_id, digests in signed.trials.items():
        try:
            present = digest_trial(store, trial_id)
        except ConfigurationError:
            changes.append(f"The file of the trial {trial_id} is missing.")
            continue
        for part in ("record", "arrays"):
            if present.get(part) != digests.get(part):
                verb = "differs" if part == "record" else "differ"
                changes.append(f"The {part} of the trial {trial_id} {verb} from what was signed.")
    return changes


def find_contradictions(document: ResultDocument, store: TrialStore) -> list[str]:
    """Where a result contradicts its own trial files, a sentence each: other numbers, another model or other data.

    Args:
        document: The result.
        store: Its trial files.
    """
    identity = document.target.checksum, document.dataset.fingerprint, document.dataset.split_fingerprint
    stated = {measurement.name: measurement for measurement in document.measurements}
    contradictions = []
    for trial in document.trials:
        if trial.status != "ok":
            continue
        stored = store.load(trial.id)
        if stored is None:
            contradictions.append(f"The file of {trial.name} is missing or damaged.")
            continue
        spec = stored.spec
        if (spec.target.checksum, spec.dataset.fingerprint, spec.split.fingerprint) != identity:
            contradictions.append(f"The file of {trial.name} is about another model or other data than result.json.")
        own = {m.name: m for m in stored.measurements}
        in_result = {name for name in stated if name.startswith(f"{trial.name}.")}
        differing = sorted(name for name in own if stated.get(name) != own[name])
        if differing or in_result - own.keys():
            names = ", ".join((*differing, *sorted(in_result - own.keys())))
            contradictions.append(f"result.json and the file of {trial.name} differ in {names}.")
    return contradictions


def _agree(stated: Any, now: Any) -> bool:
    """Whether two parts of a result are the same, but for names of a user or a machine that were left out."""
    if isinstance(stated, dict) and isinstance(now, dict):
        return stated.keys() == now.keys() and all(_agree(stated[key], now[key]) for key in stated)
    if isinstance(stated, list) and isinstance(now, list):
        return len(stated) == len(now) and all(map(_agree, stated, now))
    return bool(stated == now or (isinstance(stated, str) and isinstance(now, str) and OMISSION in stated))


def make_reproduction(signed: bytes, reproduced: Sequence[str], differing: Sequence[str]) -> dict[str, Any]:
    """A statement that measurements of a signed result were reproduced; its subject is the signed payload.

    Args:
        signed: Payload of the signed statement.
        reproduced: Names of the measurements that were reproduced.
        differing: Names of those that were not.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "result.intoto.json", "digest": {"sha256": hashlib.sha256(signed).hexdigest()}}],
        "predicateType": REPRODUCTION_TYPE,
        "predicate": {"reproduced": list(reproduced), "differing": list(differing)},
    }


def read_reproduction(statement: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The SHA-256 of the signed payload that a counter-signature is about, and the reproduced measurements.

    Args:
        statement: From `securitynet.results.signing.open_envelope`; its content may come from anybody.

    Raises:
        SignatureError: If it is no such statement.
    """
    try:
        digest = statement["subject"][0]["digest"]["sha256"]
        reproduced = statement["predicate"]["reproduced"]
    except (KeyError, TypeError, IndexError) as error:
        raise SignatureError("The file is not a counter-signature.") from error
    strings = isinstance(reproduced, list) and all(isinstance(name, str) for name in (digest, *reproduced))
    if statement["predicateType"] != REPRODUCTION_TYPE or not strings:
        raise SignatureError("The file is not a counter-signature.")
    return digest, tuple(reproduced)
