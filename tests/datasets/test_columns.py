"""Attributes from columns of Parquet files and from ``attributes.csv`` beside a folder's classes."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_files import noise, parquet_table, png, write_folder
from securitynet.datasets import load
from securitynet.errors import DatasetError


def write(root: Path, columns: dict[str, list], *, test_lacks: tuple[str, ...] = (), names: dict | None = None) -> None:
    """Six records each of train and test, with these columns: values of train, then of test."""
    root.mkdir(parents=True, exist_ok=True)
    images = [png(array) for array in noise(12, 3, 4, 4)]
    for part, start in (("train", 0), ("test", 6)):
        table = parquet_table(images[start : start + 6], [0, 1] * 3)
        for name, values in columns.items():
            if not (part == "test" and name in test_lacks):
                table = table.append_column(name, pa.array(values[start : start + 6]))
        if names:
            features = {name: {"names": meaning} for name, meaning in names.items()}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, root / f"{part}.parquet")


def test_columns_of_parquet_files_are_attributes(tmp_path: Path) -> None:
    columns = {
        "gender": ["f", "m", None, "m", "f", "f"] * 2,
        "age": [30, 4, 30, 4, 11, None] * 2,
        "smiles": [True, False] * 6,
        "race": [0, 2, -1, 1, 0, 2] * 2,
        "id": [f"person {number}" for number in range(12)],
        "weight": [0.5] * 12,
        "empty": pa.array([None] * 12, pa.string()).to_pylist(),
    }
    write(tmp_path, columns, names={"race": ["a", "b", "c"]})
    found = load(f"parquet:{tmp_path}").attributes
    assert set(found) == {"gender", "age", "smiles", "race"}  # who it is, measurements and nothing are none
    assert found["gender"].names == ("f", "m")
    np.testing.assert_array_equal(found["gender"].values, [0, 1, -1, 1, 0, 0] * 2)
    assert found["age"].names == ("4", "11", "30")
    np.testing.assert_array_equal(found["age"].values, [2, 0, 2, 0, 1, -1] * 2)
    assert found["smiles"].names == ("False", "True")
    assert found["race"].names == ("a", "b", "c")
    np.testing.assert_array_equal(found["race"].values, [0, 2, -1, 1, 0, 2] * 2)


def test_records_of_a_file_without_the_column_are_not_annotated(tmp_path: Path) -> None:
    write(tmp_path, {"gender": ["f", "m"] * 6}, test_lacks=("gender",))
    values = load(f"parquet:{tmp_path}").attributes["gender"].values
    np.testing.assert_array_equal(values, [0, 1] * 3 + [-1] * 6)


def test_a_column_of_two_types_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, {"gender": ["f", "m"] * 6})
    table = parquet_table([png(array) for array in noise(6, 3, 4, 4)], [0, 1] * 3)
    pq.write_table(table.append_column("gender", pa.array([1, 0] * 3)), tmp_path / "test.parquet")
    with pytest.raises(DatasetError, match="'gender' has other types"):
        load(f"parquet:{tmp_path}")


def test_a_limit_keeps_attributes_with_their_records(tmp_path: Path) -> None:
    write(tmp_path, {"twin": [number // 2 for number in range(12)], "parity": ["even", "odd"] * 6})
    whole, part = load(f"parquet:{tmp_path}"), load(f"parquet:{tmp_path}", limit=4)
    for position in range(len(part)):
        same = [i for i in range(len(whole)) if (whole.batch(np.array([i])) == part.batch(np.array([position]))).all()]
        assert whole.attributes["twin"].values[same[0]] == part.attributes["twin"].values[position]


def folder_with(tmp_path: Path, text: str) -> tuple[str, list[str]]:
    files = sorted(write_folder(tmp_path))
    (tmp_path / "attributes.csv").write_text(text.replace("FIRST", files[0]).replace("SECOND", files[1]))
    return f"folder:{tmp_path}", files


def test_a_table_beside_a_folder_names_attributes(tmp_path: Path) -> None:
    reference, files = folder_with(tmp_path, "file,hair,age\n./FIRST,dark,10\nSECOND, fair ,9\n\n")
    found = load(reference)
    hair, age = found.attributes["hair"], found.attributes["age"]
    assert hair.names == ("dark", "fair") and age.names == ("9", "10")
    annotated = np.flatnonzero(hair.values >= 0)
    assert len(annotated) == 2 and len(found) == len(files) > 2
    np.testing.assert_array_equal(np.sort(hair.values), [-1] * (len(files) - 2) + [0, 1])
    assert load(reference).fingerprint == found.fingerprint
    table = tmp_path / "attributes.csv"
    table.write_text(table.read_text().replace("dark", "red"))
    assert load(reference).fingerprint != found.fingerprint


@pytest.mark.parametrize(
    "text, message",
    [
        ("image,hair\nFIRST,dark\n", "has the columns 'image', 'hair'"),
        ("file\nFIRST\n", "has the columns 'file'"),
        ("file,hair,hair\nFIRST,a,b\n", "has the columns"),
        ("", "has the columns none"),
        ("file,hair\nFIRST,dark,10\n", "line 2: 3 cells, and 2 columns"),
        ("file,hair\nFIRST,dark\nnowhere.png,fair\n", "line 3: there is no image 'nowhere.png'"),
        ("file,hair\nFIRST,dark\nFIRST,fair\n", "line 3: '.*' occurs twice"),
    ],
)
def test_a_table_that_makes_no_sense_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    reference, _ = folder_with(tmp_path, text)
    with pytest.raises(DatasetError, match=message):
        load(reference)
