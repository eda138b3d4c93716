from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import securitynet.datasets.lazy
from dataset_files import noise, parquet_table, png, write_parquet
from securitynet.datasets import load
from securitynet.errors import DatasetError

REAL = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg"


def test_parquet(tmp_path: Path) -> None:
    arrays, labels = write_parquet(tmp_path, names=["cat", "dog"])
    dataset = load(f"parquet:{tmp_path}")
    assert np.array_equal(dataset.images.numpy(), arrays)
    assert np.array_equal(dataset.labels, labels)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.parts["test"].tolist() == list(range(6, 12))


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    assert load(f"parquet:{tmp_path}").class_names == ("0", "1")


def test_shards_in_the_layout_of_the_hub(tmp_path: Path) -> None:
    _, labels = write_parquet(tmp_path)
    whole = load(f"parquet:{tmp_path}")
    (tmp_path / "hub/data").mkdir(parents=True)
    for part in ("train", "test"):
        table = pq.read_table(tmp_path / f"{part}.parquet")
        for number in range(2):
            name = f"{part}-0000{number}-of-00002.parquet"
            pq.write_table(table.slice(3 * number, 3), tmp_path / "hub/data" / name)
    sharded = load(f"parquet:{tmp_path / 'hub'}")
    assert torch.equal(sharded.images, whole.images)
    assert np.array_equal(sharded.labels, labels)


def test_plain_binary_column_and_validation_for_test(tmp_path: Path) -> None:
    arrays, _ = write_parquet(tmp_path)
    for part in ("train", "test"):
        table = pq.read_table(tmp_path / f"{part}.parquet")
        plain = pa.table({"image": table["image"].combine_chunks().field("bytes"), "label": table["label"]})
        pq.write_table(plain, tmp_path / f"{part}.parquet")
    (tmp_path / "test.parquet").rename(tmp_path / "validation.parquet")
    assert np.array_equal(load(f"parquet:{tmp_path}").images.numpy(), arrays)


def test_images_may_be_written_to_without_touching_the_cache(tmp_path: Path) -> None:
    arrays, _ = write_parquet(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = load(f"parquet:{tmp_path}")
    dataset.images.fill_(7)
    assert np.array_equal(load(f"parquet:{tmp_path}").images.numpy(), arrays)


IMAGES = [png(array) for array in noise(4, 3, 4, 4)]

NULL_STRUCT = pa.array(
    [{"bytes": image} if number != 2 else None for number, image in enumerate(IMAGES)],
    type=pa.struct([("bytes", pa.binary())]),
)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (parquet_table([*IMAGES[:3], b"junk"], [0, 1, 0, 1]), "train.parquet, row 3 is not a readable image"),
        (parquet_table([*IMAGES[:2], None, IMAGES[3]], [0, 1, 0, 1]), "train.parquet, row 2 holds no image.*null"),
        (parquet_table(IMAGES, [0, 1, 0, 1]).set_column(0, "image", [NULL_STRUCT]), "row 2 holds no image.*null"),
        (parquet_table([*IMAGES[:2], b"", IMAGES[3]], [0, 1, 0, 1]), "train.parquet, row 2 holds no image.*empty"),
        (parquet_table(IMAGES, [0, 1, 0, 2], names=["a", "b"]), "record 3 has label 2, outside 0 to 1"),
        (parquet_table(IMAGES, [0, 1, 0, -1]), "record 3 has label -1"),
        (parquet_table(IMAGES, [0, 1, 0, 10**12]), "label 1000000000000, out of range"),
        (parquet_table(IMAGES, [0, 1, 0, 3]), "in its training part: 2"),
        (parquet_table(IMAGES, [0, 0, 0, 0], names=["a", "b"]), "in its training part: b"),
        (parquet_table(IMAGES, [0, 1, None, 1]), "label' is null in 1 of 4 rows: 2 "),
        (parquet_table(IMAGES, [None] * 4), "null in all 4 rows.*no labels"),
        (
            parquet_table(IMAGES, [0.0, 1.0, float("nan"), 1.0], kind=pa.float64()),
            "holds double; labels must be integers",
        ),
        (parquet_table(IMAGES, ["a", "b", "a", "b"], kind=pa.string()), "holds string; labels must be integers"),
        (
            parquet_table(IMAGES, [0, 1, 0, 2**63], kind=pa.uint64()),
            "holds 9223372036854775808, which is not a class number",
        ),
        (parquet_table([], []), "train part of .* has no rows"),
        (parquet_table(IMAGES, [0, 1, 0, 1]).drop_columns("label"), "no column 'label'; it has 'image'"),
        (parquet_table(IMAGES, [0, 1, 0, 1]).drop_columns("image"), "no column 'image'; it has 'label'"),
        (pa.table({"image": ["a.png"], "label": [0]}), "column 'image' holds string"),
        (pa.table({"image": [{"path": "a.png"}], "label": [0]}), "have no field 'bytes'"),
    ],
)
def test_content_that_makes_no_sense(table: pa.Table, message: str, tmp_path: Path) -> None:
    write_parquet(tmp_path)
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(DatasetError, match=message):
        load(f"parquet:{tmp_path}")


def test_files_that_are_missing_or_cut_off(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no train.parquet"):
        load(f"parquet:{tmp_path}")
    write_parquet(tmp_path)
    content = (tmp_path / "test.parquet").read_bytes()
    (tmp_path / "test.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match=r"test.parquet is not a readable Parquet file"):
        load(f"parquet:{tmp_path}")
    (tmp_path / "test.parquet").unlink()
    with pytest.raises(DatasetError, match=r"no test.parquet"):
        load(f"parquet:{tmp_path}")
    write_parquet(tmp_path)
    (tmp_path / "train.parquet").unlink()
    with pytest.raises(DatasetError, match=r"holds test and no train.parquet"):
        load(f"parquet:{tmp_path}")


def test_names_that_disagree_between_files(tmp_path: Path) -> None:
    write_parquet(tmp_path, names=["a", "b"])
    pq.write_table(parquet_table(IMAGES, [0, 1, 0, 1], names=["a", "c"]), tmp_path / "test.parquet")
    with pytest.raises(DatasetError, match="names other classes"):
        load(f"parquet:{tmp_path}")


def test_names_in_another_order_renumber_the_labels(tmp_path: Path) -> None:
    """The metadata of each file say what its numbers mean; the first file's numbers are kept."""
    write_parquet(tmp_path, names=["cat", "dog"])
    alike = load(f"parquet:{tmp_path}")
    assert not alike.notes
    table = pq.read_table(tmp_path / "test.parquet")
    swapped = [1 - label for label in table["label"].to_pylist()]
    images = [cell["bytes"] for cell in table["image"].to_pylist()]
    pq.write_table(parquet_table(images, swapped, names=["dog", "cat"]), tmp_path / "test.parquet")
    dataset = load(f"parquet:{tmp_path}")
    assert dataset.class_names == ("cat", "dog")
    assert np.array_equal(dataset.labels, alike.labels)
    assert any("test.parquet numbers its classes in another order" in note for note in dataset.notes)


def test_names_in_another_unicode_form_are_the_same(tmp_path: Path) -> None:
    _, labels = write_parquet(tmp_path, names=["caf\u00e9", "dog"])
    table = pq.read_table(tmp_path / "test.parquet")
    images = [cell["bytes"] for cell in table["image"].to_pylist()]
    other = parquet_table(images, table["label"].to_pylist(), names=["cafe\u0301", "dog"])
    pq.write_table(other, tmp_path / "test.parquet")
    dataset = load(f"parquet:{tmp_path}")
    assert dataset.class_names == ("caf\u00e9", "dog") and np.array_equal(dataset.labels, labels)
    assert not dataset.notes


def test_names_that_differ_by_case_are_named(tmp_path: Path) -> None:
    write_parquet(tmp_path, names=["hot dog", "cat"])
    pq.write_table(parquet_table(IMAGES, [0, 1, 0, 1], names=["Hot_Dog", "cat"]), tmp_path / "test.parquet")
    with pytest.raises(DatasetError, match="'Hot_Dog' here and 'hot dog' there"):
        load(f"parquet:{tmp_path}")


def test_rows_without_a_label_are_counted_and_the_remedy_works(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    table = parquet_table([*IMAGES, *IMAGES], [None, 1, None, 1, 0, 1, None, None])
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=3)
    with pytest.raises(DatasetError, match=r"null in 4 of 8 rows: 0, 2, 6, 7 \(counted from 0\)") as caught:
        load(f"parquet:{tmp_path}")
    assert "table.filter(table['label'].is_valid())" in caught.value.hint
    pq.write_table(table.filter(table["label"].is_valid()), tmp_path / "train.parquet")
    assert load(f"parquet:{tmp_path}").labels[:4].tolist() == [1, 1, 0, 1]


@pytest.mark.real_data
@pytest.mark.slow
def test_cifar10_as_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is absent")
    dataset = load(f"parquet:{REAL}", cache=tmp_path)
    assert dataset.image_shape == (3, 32, 32)
    assert {part: len(indices) for part, indices in dataset.parts.items()} == {"train": 50_000, "test": 10_000}
    assert np.bincount(dataset.labels).tolist() == [6000] * 10
    # Means of CIFAR-10's channels, as everybody's normalisation has them.
    means = [dataset.images[::7, channel].float().mean().item() / 255 for channel in range(3)]
    assert means == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.004)
    monkeypatch.delattr(securitynet.datasets.lazy, "render_image")  # nothing is decoded a second time
    again = load(f"parquet:{REAL}", cache=tmp_path)
    assert again.fingerprint == dataset.fingerprint
    assert torch.equal(again.images[::999], dataset.images[::999])


def renamed(root: Path, names: dict[str, str], *, metadata: bool = True) -> None:
    """Rename columns of the files, in their Hugging Face metadata too or without those."""
    for part in ("train", "test"):
        table = pq.read_table(root / f"{part}.parquet")
        raw = (table.schema.metadata or {}).get(b"huggingface")
        table = table.rename_columns([names.get(name, name) for name in table.column_names])
        if raw is not None and metadata:
            features = json.loads(raw)["info"]["features"]
            features = {names.get(name, name): feature for name, feature in features.items()}
            raw = json.dumps({"info": {"features": features}}).encode()
        kept = {b"huggingface": raw} if raw is not None and metadata else None
        pq.write_table(table.replace_schema_metadata(kept), root / f"{part}.parquet")


@pytest.mark.parametrize("metadata", [True, False])
def test_columns_of_other_names(metadata: bool, tmp_path: Path) -> None:
    arrays, labels = write_parquet(tmp_path, names=["cat", "dog"])
    plain = load(f"parquet:{tmp_path}")
    renamed(tmp_path, {"image": "img", "label": "fine_label"}, metadata=metadata)
    found = load(f"parquet:{tmp_path}")  # there is only one column of each kind
    stated = load(f"parquet:{tmp_path}", image_column="img", label_column="fine_label")
    assert found.fingerprint == stated.fingerprint
    assert np.array_equal(stated.images.numpy(), arrays) and np.array_equal(stated.labels, labels)
    assert stated.class_names == (plain.class_names if metadata else ("0", "1"))
    assert stated.get_record_name(7) == "test.parquet/1"


def test_the_second_of_two_label_columns(tmp_path: Path) -> None:
    _, labels = write_parquet(tmp_path)
    for part, rows in (("train", labels[:6]), ("test", labels[6:])):
        table = pq.read_table(tmp_path / f"{part}.parquet").rename_columns(["img", "coarse_label"])
        pq.write_table(table.append_column("fine_label", pa.array(1 - rows)), tmp_path / f"{part}.parquet")
    with pytest.raises(DatasetError, match=r"no column 'label'.*--label-column coarse_label or fine_label"):
        load(f"parquet:{tmp_path}")
    dataset = load(f"parquet:{tmp_path}", label_column="fine_label")
    assert np.array_equal(dataset.labels, 1 - labels)
    assert np.array_equal(dataset.attributes["coarse_label"].values, labels)
    with pytest.raises(DatasetError, match="has no column 'species'; it has 'img'"):
        load(f"parquet:{tmp_path}", label_column="species")


@pytest.mark.parametrize("classes", [2, 3])
def test_labels_from_one_are_told(classes: int, tmp_path: Path) -> None:
    for part in ("train", "test"):
        labels = [1 + number % classes for number in range(6)]
        pq.write_table(parquet_table([png(array) for array in noise(6, 3, 4, 4)], labels), tmp_path / f"{part}.parquet")
    with pytest.raises(DatasetError, match=f"labels from 1 to {classes} and none that is 0.*Subtract 1"):
        load(f"parquet:{tmp_path}")
