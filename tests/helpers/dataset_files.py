"""Small files in the formats of the datasets."""

from __future__ import annotations

import gzip
import io
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def noise(count: int, channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8, N×C×H×W."""
    return np.random.default_rng(seed).integers(0, 256, (count, channels, height, width), dtype=np.uint8)


def png(array: np.ndarray) -> bytes:
    """A C×H×W array as a lossless file."""
    image = Image.fromarray(array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(array))


def write_folder(root: Path, per_class: int = 3, shape: tuple[int, int, int] = (3, 6, 5)) -> dict[str, np.ndarray]:
    """train/{cat,dog} and test/{cat,dog}; returns relative path -> array, in the order that a loader should give."""
    written = {}
    for part in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            arrays = noise(per_class, *shape, seed=number + 10 * (part == "test"))
            for position, array in enumerate(arrays):
                relative = f"{part}/{name}/{position}.png"
                write_png(root / relative, array)
                written[relative] = array
    return written


def parquet_table(
    images: list[bytes | None], labels: list, *, names: list[str] | None = None, kind: pa.DataType | None = None
) -> pa.Table:
    struct = pa.array(
        [{"bytes": image, "path": f"{number}.png"} for number, image in enumerate(images)],
        type=pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({"image": struct, "label": pa.array(labels, type=kind or pa.int64())})
    if names is None:
        return table
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(root: Path, per_part: int = 6, names: list[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """train and test, two classes; returns images and labels."""
    root.mkdir(parents=True, exist_ok=True)
    arrays = noise(2 * per_part, 3, 4, 4)
    labels = np.arange(2 * per_part) % 2
    for part, start in (("train", 0), ("test", per_part)):
        chosen = range(start, start + per_part)
        table = parquet_table([png(arrays[i]) for i in chosen], [int(labels[i]) for i in chosen], names=names)
        pq.write_table(table, root / f"{part}.parquet", row_group_size=4)
    return arrays, labels


def idx(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes())
