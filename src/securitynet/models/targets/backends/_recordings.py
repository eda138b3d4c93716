"""Files of recorded outputs: ``.npz``, CSV, Parquet. Nothing in them is ever unpickled."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import torch
from numpy.typing import NDArray

from securitynet.datasets.text import read_text_table
from securitynet.errors import TargetError, UnsafeFile
from securitynet.files import file_checksum
from securitynet.models.targets import heads
from securitynet.models.targets.heads import Head
from securitynet.untrusted import check_archive, check_growth, check_regular

ARRAYS: dict[str, Head] = {
    "posteriors": "probabilities",
    "probabilities": "probabilities",
    "logits": "logits",
    "log_probabilities": "log-probabilities",
}
"""Names of the N×K array in an ``.npz``, and what its values are."""

COLUMNS: dict[str, Head] = {
    "p": "probabilities",
    "posterior": "probabilities",
    "probability": "probabilities",
    "logit": "logits",
    "log_probability": "log-probabilities",
}
"""What stands before the class number in the columns of a table: ``p0``, ``p_0``, ``posterior_0``, ``logit_0``, ..."""

_LABELS = ("labels", "label")
_MEMBERS = ("members", "member", "membership")
_INDICES = ("indices", "index")
_COLUMN = re.compile(rf"({'|'.join(COLUMNS)})_?(\d+)")
_PLAIN_HEADER = re.compile(rb"[a-z0-9_]+(,[a-z0-9_]+)*\r?\n")
_SUM_TOLERANCE = 1e-2  # tables are often written with three or four decimals

_Raw = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Recording:
    """Validated content of a file of recorded outputs, sorted by ``indices`` if those are given.

    Attributes:
        outputs: Raw outputs, N×K float32, K at least 2.
        head: Kind of the outputs.
        labels: N int64 in [0, K).
        members: N booleans; None if membership was not recorded.
        indices: Number of each record in its dataset, N int64, ascending; None for the order of the file.
        class_names: K names.
        checksum: SHA-256 of the file.
    """

    outputs: NDArray[np.float32]
    head: Head
    labels: NDArray[np.int64]
    members: NDArray[np.bool_] | None
    indices: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    checksum: str


def read_recording(path: Path, reference: str) -> Recording:
    """Read and validate a file of recorded outputs. Its format is determined from its content.

    An ``.npz`` holds exactly one of the arrays `ARRAYS` (N×K) and ``labels`` (N), and may hold ``members`` or
    ``membership`` (N, 1 for records of the training set), ``indices`` (N, numbers of the records in a dataset) and
    ``class_names`` (K). A table has one column per class, named as in `COLUMNS`, a column ``label``, and may have
    ``member`` and ``index``.

    Raises:
        TargetError: If the file is absent, not recognised, incomplete, or contradicts itself.
        UnsafeFile: If an array could only be read by unpickling.
    """
    check_regular(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise TargetError(f"The file of recorded outputs {path} {what}.", hint="Give an .npz, CSV or Parquet file.")
    with path.open("rb") as stream:
        start = stream.read(4)
    if not start:
        raise TargetError(f"{reference} is an empty file.")
    if start[:2] == b"PK":
        head, raw = _read_npz(path, reference)
    else:
        head, raw = _read_table(path, reference, parquet=start == b"PAR1")
    return _checked(head, raw, reference, file_checksum(path))


def _read_npz(path: Path, reference: str) -> tuple[Head, _Raw]:
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            raw: _Raw = {name: archive[name] for name in archive.files}
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise TargetError(f"{reference} is damaged: {error}") from error
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise TargetError(f"{reference} is damaged: {error}") from error
        raise UnsafeFile(
            f"{reference} holds arrays of Python objects, which could only be read by executing what is in the file.",
            hint="Save plain numeric arrays (rows of equal length), and class names as an array of strings.",
        ) from error
    present = [name for name in ARRAYS if name in raw]
    if len(present) != 1:
        raise TargetError(
            f"{reference} holds {' and '.join(present) or 'none'} of the arrays {', '.join(ARRAYS)}; one is needed.",
            hint=f"It holds: {', '.join(sorted(raw)) or 'nothing'}. The scores of all classes are needed (N×K); "
            "losses or predicted classes alone are not enough.",
        )
    return ARRAYS[present[0]], {**raw, "outputs": raw[present[0]]}


def _read_table(path: Path, reference: str, *, parquet: bool) -> tuple[Head, _Raw]:
    try:
        if parquet:
            metadata = pyarrow.parquet.read_metadata(path)
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            cells = sum(group.num_rows * group.num_columns for group in groups)
            stated = sum(group.total_byte_size for group in groups)  # runs of one value take next to nothing
            check_growth(path.name, path.stat().st_size, max(8 * cells, stated))
            table = pyarrow.parquet.read_table(path)
        else:
            table = _read_csv(path)
    except (pyarrow.ArrowException, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise TargetError(
            f"{reference} cannot be read as {'Parquet' if parquet else 'CSV'}: {reason}",
            hint="Recorded outputs are an .npz, CSV or Parquet file; see docs/backends.md for the columns.",
        ) from error
    names: list[str] = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TargetError(f"{reference} has more than one column named {', '.join(map(repr, twice[:3]))}.")
    if table.num_rows == 0:
        raise TargetError(f"{reference} holds no records.")
    matches = {name: match for name in names if (match := _COLUMN.fullmatch(name))}
    prefixes = sorted({match[1] for match in matches.values()})
    if len(prefixes) != 1:
        raise TargetError(
            f"{reference} has {'columns of ' + ' and '.join(prefixes) if prefixes else 'no columns of outputs'}; "
            "one kind is needed.",
            hint="Name the columns p0, p1, ... for posteriors or logit_0, logit_1, ... for logits.",
        )
    numbered = {int(match[2]): name for name, match in matches.items()}
    if len(numbered) != len(matches) or sorted(numbered) != list(range(len(matches))):
        raise TargetError(
            f"{reference} has {len(matches)} columns of outputs that are not numbered 0 to {len(matches) - 1}."
        )
    raw: _Raw = {name: _column(table, name, reference) for name in names if name not in matches}
    outputs = [_column(table, numbered[k], reference) for k in sorted(numbered)]
    raw["outputs"] = np.stack(outputs, axis=1)
    return COLUMNS[prefixes[0]], raw


def _read_csv(path: Path) -> pyarrow.Table:
    data = path.read_bytes()
    if not _PLAIN_HEADER.match(data):  # tables that are plain already may be too large to be taken apart here
        data = read_text_table(data, errors="replace").to_csv().encode()
    # One thread: beside torch, a reader thread of pyarrow that still stands at exit aborts the process.
    options = pyarrow.csv.ReadOptions(use_threads=False)
    return pyarrow.csv.read_csv(io.BytesIO(data), read_options=options)


def _column(table: Any, name: str, reference: str) -> NDArray[Any]:
    column = table.column(name)
    if column.null_count and name in (*_LABELS, *_MEMBERS, *_INDICES):
        raise TargetError(f"{reference}: column {name!r} is empty in {column.null_count} of {len(column)} rows.")
    values: NDArray[Any] = column.to_numpy()  # nulls of numbers become NaN, which the check of the outputs names
    return values


def _checked(head: Head, raw: _Raw, reference: str, checksum: str) -> Recording:
    outputs = _outputs(raw["outputs"], head, reference)
    count, classes = outputs.shape
    labels = _integers(_one_of(raw, _LABELS, reference), "labels", count, reference)
    if labels is None:
        raise TargetError(
            f"{reference} holds no labels.", hint="Add an array 'labels' (.npz) or a column 'label': the true classes."
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise TargetError(
            f"{reference}: row {int(wrong[0])} has label {int(labels[wrong[0]])}, outside 0 to {classes - 1}.",
            hint="Labels are numbered from 0, in the order of the columns of outputs.",
        )
    members = _integers(_one_of(raw, _MEMBERS, reference), "members", count, reference)
    if members is not None:
        if not np.isin(members, (0, 1)).all():
            raise TargetError(f"{reference}: membership must be 1 or 0 (true or false).")
        if members.min() == members.max():
            raise TargetError(
                f"{reference} calls all {count} records {'members' if members[0] else 'non-members'}.",
                hint="Record outputs of both: records that the model was trained on, and records that it was not.",
            )
    indices = _integers(_one_of(raw, _INDICES, reference), "indices", count, reference)
    names = raw.get("class_names")
    if names is None:
        class_names = tuple(str(k) for k in range(classes))
    elif names.shape != (classes,):
        raise TargetError(f"{reference} names {names.size} classes and has {classes} columns of outputs.")
    else:
        class_names = tuple(str(name) for name in names)
    flags = None if members is None else members.astype(bool)
    if indices is not None:
        order = np.argsort(indices, kind="stable")
        outputs, labels, indices = outputs[order], labels[order], indices[order]
        flags = None if flags is None else flags[order]
        if indices[0] < 0 or (np.diff(indices) == 0).any():
            raise TargetError(f"{reference}: the numbers in 'indices' must be distinct and not negative.")
    return Recording(outputs, head, labels, flags, indices, class_names, checksum)


def _outputs(values: NDArray[Any], head: Head, reference: str) -> NDArray[np.float32]:
    if values.ndim != 2:
        raise TargetError(
            f"{reference} holds outputs of shape {values.shape}; one row of class scores per record is needed."
        )
    if values.dtype.kind not in "fiu":
        raise TargetError(f"{reference} holds outputs that are not numbers ({values.dtype}).")
    if len(values) == 0:
        raise TargetError(f"{reference} holds no records.")
    if values.shape[1] < 2:
        raise TargetError(
            f"{reference} holds outputs for {values.shape[1]} class; at least two are needed.",
            hint="For a binary classifier record both classes: p0 = 1 - p1.",
        )
    # What float32 can't hold becomes infinite here, and is reported as such.
    with np.errstate(over="ignore"):
        outputs = np.ascontiguousarray(values, dtype=np.float32)
    bad = np.isnan(outputs) | (outputs == np.inf) | ((outputs == -np.inf) & (head != "log-probabilities"))
    if bad.any():
        rows = np.flatnonzero(bad.any(axis=1))
        raise TargetError(
            f"{reference}: the outputs of {len(rows)} of {len(outputs)} records are missing or not finite (first: row "
            f"{int(rows[0])})."
        )
    _check_kind(outputs, head, reference)
    return outputs


def _check_kind(outputs: NDArray[np.float32], head: Head, reference: str) -> None:
    """Raise `TargetError` if the values cannot be what their name says."""
    if head == "logits":
        looks = heads.detect(torch.from_numpy(outputs))
        # Where logits are stated, rows with another sum than 1 contradict nothing: all may have one logit of 2.
        if looks == "log-probabilities" or (
            looks == "probabilities" and np.allclose(outputs.sum(axis=1), 1, atol=0.02)
        ):
            name = {"probabilities": "p0, p1, ... (posteriors)", "log-probabilities": "log_probability_0, ..."}[looks]
            raise TargetError(
                f"{reference} calls its values logits; they are {looks} in every row.", hint=f"Name them {name}."
            )
        return
    values = outputs.astype(np.float64) if head == "probabilities" else np.exp(outputs.astype(np.float64))
    off = np.abs(values.sum(axis=1) - 1)
    wrong = np.flatnonzero((off > _SUM_TOLERANCE) | (values < -1e-6).any(axis=1))
    if len(wrong):
        first = int(wrong[0])
        raise TargetError(
            f"{reference} calls its values {head}; in {len(wrong)} of {len(outputs)} rows they are not: row {first} "
            f"sums to {values[first].sum():.4g}{' and holds negative values' if (values[first] < 0).any() else ''}.",
            hint=f"They sum to {total:g} in every row: divide them by it."
            if (total := heads.find_row_total(torch.from_numpy(outputs))) is not None and head == "probabilities"
            else "If they are logits, name the array 'logits' (.npz) or the columns logit_0, logit_1, ...",
        )


def _one_of(raw: _Raw, names: tuple[str, ...], reference: str) -> NDArray[Any] | None:
    present = [name for name in names if name in raw]
    if len(present) > 1:
        raise TargetError(f"{reference} holds both {present[0]!r} and {present[1]!r}; one is needed.")
    return raw[present[0]] if present else None


def _integers(values: NDArray[Any] | None, what: str, count: int, reference: str) -> NDArray[np.int64] | None:
    if values is None:
        return None
    if values.shape != (count,):
        raise TargetError(f"{reference} holds {what} of shape {values.shape} for {count} records.")
    if values.dtype.kind in "biu":
        return values.astype(np.int64)
    if values.dtype.kind != "f" or not np.isfinite(values).all() or (values != np.round(values)).any():
        kind = "text" if values.dtype.kind in "OUS" else values.dtype
        raise TargetError(f"{reference}: the {what} must be whole numbers, not {kind}.")
    return values.astype(np.int64)
