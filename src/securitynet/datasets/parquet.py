"""``parquet:PATH``: images encoded in Parquet files, as the Hugging Face Hub serves them."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from securitynet.datasets.base import Attribute
from securitynet.datasets.checksums import Checksums
from securitynet.datasets.class_names import describe_order, explain_difference, find_name_order, normalize_name
from securitynet.datasets.columns import make_attribute
from securitynet.datasets.parquet_columns import ParquetColumns, choose_columns, explain_no_column, read_feature
from securitynet.datasets.references import describe_file, suggest_other_scheme
from securitynet.datasets.source import Indices, Item, Request, Source, digest_with
from securitynet.errors import DatasetError
from securitynet.files import make_printable
from securitynet.first_run import limit_growth
from securitynet.untrusted import check_growth

logger = logging.getLogger(__name__)

_MOST_COLUMNS = 1000
_BYTES_A_ROW = 32
"""Memory for the label, the part and the order of a record, however small it is in the file."""
_SHOWN = 5
_AGAIN = "Get the file again."
_SUBSTITUTES = ("validation", "val", "valid")
_LAYOUT = "It should hold train.parquet and test.parquet (or train-*.parquet, test-*.parquet), columns image and label."


def parquet(request: Request) -> Source:
    """Read labels and class names; images are left in their files.

    Column ``image`` is a struct with ``bytes`` (or plain binary), and column ``label`` holds integers; if they have
    other names, the request states them, or only one column is possible. Class names come from the schema's Hugging
    Face metadata if it has them; otherwise classes are named by their numbers. Further columns of integers, booleans or
    strings with few different values are attributes; null means that a record is not annotated.

    Raises:
        DatasetError: If files, columns or labels are missing or of the wrong type.
    """
    paths_of_part = _files(request.root)
    opened = {part: [_open(path) for path in paths] for part, paths in paths_of_part.items()}
    columns = choose_columns(request, opened["train"][0])
    labels: list[NDArray[np.int64]] = []
    notes: list[str] = []
    parts: dict[str, Indices] = {}
    names: tuple[str, ...] | None = None
    count = 0
    for part, files in opened.items():
        start = count
        for path, file in files:
            _check_image_column(path, file.schema_arrow, columns)
            stated = _names_in(file.schema_arrow, columns.label)
            names = names or stated
            read = _labels(path, file, columns.label)
            labels.append(read if stated is None or names is None else _renumber(read, stated, names, path, notes))
            count += len(labels[-1])
        if count == start:
            raise DatasetError(f"The {part} part of {request.reference} has no rows.")
        parts[part] = np.arange(start, count, dtype=np.int64)
    values = np.concatenate(labels)
    return Source(
        labels=values,
        class_names=names or _numbered(request.reference, values),
        parts=parts,
        pixels=ParquetPixels([entry for files in opened.values() for entry in files], columns.image),
        attributes=_attributes([entry for files in opened.values() for entry in files], columns),
        notes=tuple(notes),
    )


class ParquetPixels:
    """The images of several Parquet files, one after another.

    The row group that was read last stays in memory: reading in order decodes each once.

    Args:
        files: Path and opened file, in the order of the records.
        image: Column of the images.
    """

    def __init__(self, files: Sequence[tuple[Path, pq.ParquetFile]], image: str = "image") -> None:
        self._image = image
        self._files = list(files)
        self._groups = [
            (number, group) for number, (_, file) in enumerate(files) for group in range(file.metadata.num_row_groups)
        ]
        sizes = [files[number][1].metadata.row_group(group).num_rows for number, group in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        firsts = np.cumsum([0, *(file.metadata.num_rows for _, file in files)])
        self._file_starts = firsts.astype(np.int64)
        self._lock = threading.Lock()
        self._held: tuple[int, pa.ChunkedArray] | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, index: int) -> str:
        """File and row."""
        number = int(np.searchsorted(self._file_starts, index, side="right")) - 1
        return f"{self._files[number][0]}, row {index - int(self._file_starts[number])}"

    def record_name(self, index: int) -> str:
        """Name of the file, and row."""
        number = int(np.searchsorted(self._file_starts, index, side="right")) - 1
        return f"{self._files[number][0].name}/{index - int(self._file_starts[number])}"

    def fetch(self, indices: Indices) -> list[Item]:
        """Encoded images; each row group that contains one is read once."""
        items: list[Item] = [b""] * len(indices)
        groups = np.searchsorted(self._starts, indices, side="right") - 1
        for group in np.unique(groups):
            positions = np.flatnonzero(groups == group)
            rows = indices[positions] - self._starts[group]
            column = self._column(int(group))
            # One image is read for its shape; take() would import more than that needs.
            taken = [column[int(rows[0])].as_py()] if len(rows) == 1 else column.take(pa.array(rows)).to_pylist()
            for position, encoded in zip(positions, taken, strict=True):
                if not encoded:
                    raise DatasetError(
                        f"{self.name(int(indices[position]))} holds no image: its bytes are "
                        f"{'null' if encoded is None else 'empty'}.",
                        hint="The images must be inside the file; a path alone is not followed.",
                    )
                items[position] = encoded
        return items

    def digest(self, indices: Indices | None, checksums: Checksums | None) -> str:
        """Digest of the files and the indices."""
        paths = [path for path, _ in self._files]
        if checksums is None:
            marks = [f"{path.name} {path.stat().st_size}" for path in paths]
        else:
            marks = checksums.of(paths)
        digest = hashlib.sha256(("sizes\0" if checksums is None else "content\0").encode() + "\0".join(marks).encode())
        return digest_with(digest.hexdigest(), indices)

    def _column(self, group: int) -> pa.ChunkedArray:
        with self._lock:
            if self._held is None or self._held[0] != group:
                self._held = None  # the old one is released before the new one is read
                number, inside = self._groups[group]
                path, file = self._files[number]
                column = _read_column(path, file, self._image, inside)
                if pa.types.is_struct(column.type):
                    field = column.type.get_field_index("bytes")
                    # flatten, unlike field, makes the fields of a null struct null.
                    column = pa.chunked_array([chunk.flatten()[field] for chunk in column.chunks])
                self._held = (group, column)
            return self._held[1]


def _files(root: Path) -> dict[str, list[Path]]:
    if not root.is_dir():
        if root.exists():
            raise DatasetError(make_printable(f"{root} is a file, not a folder."), hint=describe_file(root))
        raise DatasetError(make_printable(f"There is no folder {root}."), hint=_LAYOUT)
    parts = {name: paths for name in ("train", "test", *_SUBSTITUTES) if (paths := sorted(_part_files(root, name)))}
    if not parts:
        raise DatasetError(
            f"{make_printable(str(root))} holds no train.parquet.",
            hint=suggest_other_scheme(root, "parquet") or _LAYOUT,
        )
    if "train" not in parts:
        raise DatasetError(f"{root} holds {', '.join(parts)} and no train.parquet.", hint=_LAYOUT)
    substitutes = [name for name in _SUBSTITUTES if name in parts]
    if "test" not in parts and substitutes:
        logger.warning("%s has no test part; %s is used as such.", root, substitutes[0])
        parts["test"] = parts.pop(substitutes[0])
    if "test" not in parts:
        raise DatasetError(f"{root} holds train.parquet and no test.parquet.", hint=_LAYOUT)
    extra = next((name for name in _SUBSTITUTES if name in parts), None)
    ordered = {"train": parts["train"], "test": parts["test"]}
    return ordered if extra is None else {**ordered, "validation": parts[extra]}


def _part_files(root: Path, part: str) -> Iterator[Path]:
    # Hub repositories store the shards in a folder called data.
    for folder in (root, root / "data"):
        if (folder / f"{part}.parquet").is_file():
            yield folder / f"{part}.parquet"
            return
        shards = list(folder.glob(f"{part}-*.parquet"))
        if shards:
            yield from shards
            return


def _open(path: Path) -> tuple[Path, pq.ParquetFile]:
    try:
        with _use_system_memory():
            file = pq.ParquetFile(path)
        names = file.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is not a readable Parquet file: {error}.", hint=_AGAIN) from error
    check_growth(str(path), path.stat().st_size, file.metadata.num_rows * _BYTES_A_ROW)
    if len(names) > _MOST_COLUMNS:
        raise DatasetError(
            f"{path} has {len(names):,} columns; at most {_MOST_COLUMNS:,} are read.",
            hint="Keep the images, the labels, and the columns that attribute inference should try.",
        )
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise DatasetError(f"{path} has several columns named {name!r}.", hint="Give each column a name of its own.")
    return path, file


@contextlib.contextmanager
def _use_system_memory() -> Iterator[None]:
    """Let a file that is opened allocate from the system: Arrow's own pools reserve memory that no limit would see."""
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


def _read_column(path: Path, file: pq.ParquetFile, name: str, group: int | None = None) -> pa.ChunkedArray:
    """A column of a file, or of one of its row groups.

    What is stored once may stand for a million values, so that sizes in the file do not tell how much memory it takes.
    """
    try:
        with limit_growth(path, f"its column {name!r}"):
            table = file.read(columns=[name]) if group is None else file.read_row_group(group, columns=[name])
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is damaged: {error}.", hint=_AGAIN) from error
    stated = file.metadata.num_rows if group is None else file.metadata.row_group(group).num_rows
    if len(table) != stated:
        raise DatasetError(f"{path} is damaged: it states {stated:,} rows and holds {len(table):,}.", hint=_AGAIN)
    return table.column(name)


def _check_image_column(path: Path, schema: pa.Schema, columns: ParquetColumns) -> None:
    for column in (columns.image, columns.label):
        if column not in schema.names:
            raise explain_no_column(path, schema, column)
    kind = schema.field(columns.image).type
    if pa.types.is_struct(kind):
        position = kind.get_field_index("bytes")
        if position < 0:
            raise DatasetError(f"{path}: the structs of column {columns.image!r} have no field 'bytes'.", hint=_LAYOUT)
        kind = kind.field(position).type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DatasetError(f"{path}: column {columns.image!r} holds {kind}, not encoded images (binary).", hint=_LAYOUT)


def _labels(path: Path, file: pq.ParquetFile, name: str) -> NDArray[np.int64]:
    kind = file.schema_arrow.field(name).type
    if not pa.types.is_integer(kind):
        raise DatasetError(
            f"{path}: column {name!r} holds {kind}; labels must be integers from 0.",
            hint="Number the classes, and put their names into the schema's metadata if they should be shown.",
        )
    column = _read_column(path, file, name)
    if column.null_count:
        rows = np.flatnonzero(column.is_null().to_numpy())
        shown = ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
        if len(rows) == len(column):
            raise DatasetError(
                f"{path}: column {name!r} is null in all {len(column):,} rows: the part has no labels.",
                hint="Use a part whose labels are published, or name another column with --label-column.",
            )
        raise DatasetError(
            f"{path}: column {name!r} is null in {len(rows):,} of {len(column):,} rows: {shown} (counted from 0).",
            hint="Leave out the rows without a label, for example with pyarrow: "
            f"table.filter(table[{name!r}].is_valid()). Or name another column with --label-column.",
        )
    # Not column.to_numpy(), which imports pandas; that import would take longer than everything else.
    values = np.concatenate([np.empty(0, kind.to_pandas_dtype()), *(np.from_dlpack(chunk) for chunk in column.chunks)])
    if values.size and values.max() > np.iinfo(np.int64).max:
        raise DatasetError(f"{path}: column {name!r} holds {values.max()}, which is not a class number.")
    return values.astype(np.int64)


def _attributes(files: Sequence[tuple[Path, pq.ParquetFile]], columns: ParquetColumns) -> dict[str, Attribute]:
    """Columns of the first file that hold attributes; records of files without such a column are not annotated."""
    schema: pa.Schema = files[0][1].schema_arrow
    names = [
        name
        for name in schema.names
        if name not in (columns.image, columns.label) and _may_be_attribute(schema.field(name))
    ]
    attributes: dict[str, Attribute] = {}
    for name in names:
        cells: list[Any] = []
        for path, file in files:
            if name in file.schema_arrow.names:
                cells += _read_column(path, file, name).to_pylist()
            else:
                cells += [None] * file.metadata.num_rows
        if len({type(cell) for cell in cells if cell is not None}) > 1:
            raise DatasetError(f"The column {name!r} has other types in some of the files than in {files[0][0]}.")
        made = make_attribute(
            name, cells, _names_in(schema, name) if pa.types.is_integer(schema.field(name).type) else None
        )
        if made is not None:
            attributes[name] = made
    return attributes


def _may_be_attribute(field: pa.Field) -> bool:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string)
    )


def _renumber(
    labels: NDArray[np.int64], stated: tuple[str, ...], names: tuple[str, ...], path: Path, notes: list[str]
) -> NDArray[np.int64]:
    """Bring a file's labels to the order of the first file's names, where both name the same classes.

    Args:
        labels: Its labels, N.
        stated: Its names of classes, in the order of its labels.
        names: Names in the first file that has some.
        path: The file, for messages.
        notes: Receives a note where labels are renumbered.

    Raises:
        DatasetError: If it names other classes.
    """
    if stated == names:
        return labels
    order = find_name_order(stated, names)
    if order is None:
        only = [name for name in stated if normalize_name(name) not in set(map(normalize_name, names))]
        absent = [name for name in names if normalize_name(name) not in set(map(normalize_name, stated))]
        difference = explain_difference(stated, names)
        raise DatasetError(
            f"{path} names other classes than the files before it: {_list_some(only)} only here, {_list_some(absent)} "
            f"only there.{f' {difference}' if difference else ''}",
            hint="Write the same names, in the same order, into the metadata of all files; number the labels by them.",
        )
    inside = (labels >= 0) & (labels < len(order))
    if not inside.all():
        return labels  # the check of labels names what is out of range
    if order != sorted(order):
        notes.append(
            f"{path.name} numbers its classes in another order than the first file "
            f"({describe_order(stated, names, order)}); its labels were renumbered by the names in its metadata."
        )
    return np.array(order, dtype=np.int64)[labels]


def _list_some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(make_printable(name)) for name in names[:_SHOWN])
    return (shown + (", ..." if len(names) > _SHOWN else "")) or "none"


def _names_in(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Names of a column's integers, from the schema's Hugging Face metadata; None if it has none."""
    names = read_feature(schema, column).get("names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def _numbered(reference: str, labels: NDArray[np.int64]) -> tuple[str, ...]:
    highest = int(labels.max(initial=-1))
    if highest >= len(labels):
        row = int(np.argmax(labels))
        raise DatasetError(
            f"{reference}: record {row} has label {highest}, out of range: there are only {len(labels)} records.",
            hint="Labels are numbered from 0, without gaps.",
        )
    return tuple(str(number) for number in range(highest + 1))
