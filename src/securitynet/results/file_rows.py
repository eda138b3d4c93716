"""Trial and target files as rows of the index: reading, checking and splitting them takes most of its time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from securitynet.records import TrialResult
from securitynet.results import store
from securitynet.results.root import Root
from securitynet.results.store import parse_identified_trial
from securitynet.results.study_targets import StudyTargetRecord, make_target_key, parse_study_target

_FPR = re.compile(r"^.*[@.]fpr=")

Row = tuple[Any, ...]
"""A row of a table, in the order of its columns; Python's plain types."""


class FileRows(NamedTuple):
    """The rows of some files.

    Attributes:
        read: The files that were read.
        trials: Rows of the table of trials.
        measurements: Rows of the table of measurements.
        targets: Rows of the table of targets.
        damaged: Path of an unreadable file -> reason.
    """

    read: list[str]
    trials: list[Row]
    measurements: list[Row]
    targets: list[Row]
    damaged: dict[str, str]


def read_rows(root: Root, name: str, paths: Iterable[str]) -> FileRows:
    """Read and check files; those that are gone are left out.

    Args:
        root: Where the files are.
        name: Name of the root in the rows.
        paths: Trial and target files below the root.
    """
    rows = FileRows([], [], [], [], {})
    for path in paths:
        try:
            text = root.read(path)
            if path.startswith(f"{store.FOLDER}/"):
                trial, result = parse_identified_trial(text)
                if path.rpartition("/")[2] != f"{trial}.json":
                    raise ValueError("its name is not its id")
                rows.trials.append(_trial_row(name, trial, result, text.decode("utf-8")))
                rows.measurements.extend(_measurement_rows(name, trial, result))
            else:
                record = parse_study_target(text)
                rows.targets.append(_target_row(name, record, text.decode("utf-8")))
        except FileNotFoundError:
            continue
        except (ValueError, OSError) as error:
            rows.damaged[path] = str(error)
            continue
        rows.read.append(path)
    return rows


def digest_text(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _trial_row(root: str, trial: str, result: TrialResult, text: str) -> Row:
    spec, given = result.spec, result.measurements
    return (
        root,
        trial,
        make_target_key(spec.target, spec.dataset, spec.split, spec.precision),
        result.status,
        result.reason,
        spec.kind,
        spec.method,
        spec.threat_model.access.value,
        spec.threat_model.auxiliary.value,
        spec.configuration,
        spec.seed,
        given[0].level if given else None,
        ",".join(sorted({_FPR.sub("", m.name) for m in given if "fpr=" in m.name and _FPR.match(m.name)})),
        result.queries.total,
        result.queries.unique,
        sum(result.seconds.values()) if result.seconds else None,
        result.environment.get("securitynet"),
        result.finished,
        text,
        digest_text(text),
    )


def _measurement_rows(root: str, trial: str, result: TrialResult) -> Iterator[Row]:
    for m in {m.name: m for m in result.measurements}.values():
        yield root, trial, m.name, m.value, m.low, m.high, m.level, m.n, m.direction.value, m.method, m.note


def _target_row(root: str, record: StudyTargetRecord, text: str) -> Row:
    subject = record.means.key if record.means else None
    return root, record.key, subject, record.label, record.status, record.reason, record.catalog, text
