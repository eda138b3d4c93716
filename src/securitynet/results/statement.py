"""A result as an in-toto statement: which model, by the digest of its weights, and what was measured on it.

The layout is that of in-toto's Statement v1: the subjects are the assessed weights, and the predicate is the result
with the digests of its trial files and, for each bound of the policy, the metric, the comparator, the threshold,
whether it holds, and the number of samples. `securitynet.results.signing` signs a statement.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from securitynet.errors import ConfigurationError
from securitynet.files import file_checksum
from securitynet.results.document import ResultDocument
from securitynet.results.redaction import OMISSION, redact_document
from securitynet.results.store import TrialStore

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
ASSESSMENT_TYPE = "urn:securitynet:assessment:1"
REPRODUCTION_TYPE = "urn:securitynet:reproduction:1"

TARGET_DIGEST = "securitynetTargetSha256"
"""Name of the digest over everything that decides a target's outputs, beside that of the file."""


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


def find_changes(statement: dict[str, Any], document: ResultDocument, store: TrialStore) -> list[str]:
    """What differs between a statement and the files that it is about, a sentence each; empty if nothing does.

    Args:
        statement: The statement.
        document: The result as it is now.
        store: Its trial files.
    """
    predicate = statement["predicate"]
    changes = []
    stated, now = predicate["result"], document.to_json()
    if stated != now and predicate.get("redacted"):
        now = redact_document(document).to_json()
    differing = {key for key in stated.keys() | now.keys() if not _agree(stated.get(key), now.get(key))}
    if differing:
        changes.append(f"result.json differs from what was signed, in {', '.join(sorted(differing))}.")
    for trial_id, digests in predicate["trials"].items():
        try:
            present = digest_trial(store, trial_id)
        except ConfigurationError:
            changes.append(f"The file of the trial {trial_id} is missing.")
            continue
        for part, digest in digests.items():
            if present.get(part) != digest:
                verb = "differs" if part == "record" else "differ"
                changes.append(f"The {part} of the trial {trial_id} {verb} from what was signed.")
    return changes


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
