from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dataset_files import noise, write_png
from securitynet.datasets import load
from securitynet.datasets.splits import four_way, public
from securitynet.errors import DatasetError, SplitError

ATTRIBUTES = ["Bald", "Heavy_Makeup", "Male", "Mouth_Slightly_Open", "Smiling", "Young"]


def write_celeba(root: Path) -> np.ndarray:
    """24 images: every class in train, in validation and in test; attributes run through all combinations."""
    root.mkdir(parents=True, exist_ok=True)
    bits = np.array([[number >> place & 1 for place in range(3)] for number in range(8)] * 3)
    male, young = np.arange(24) % 2, np.arange(24) % 3 == 0
    lines, parts = ["24", " ".join(ATTRIBUTES)], []
    for number, (makeup, mouth, smile) in enumerate(bits):
        values = [0, makeup, male[number], mouth, smile, young[number]]
        lines.append(f"{number:06d}.jpg  " + " ".join(f"{2 * int(value) - 1:2d}" for value in values))
        parts.append(f"{number:06d}.jpg {number // 8}")
        write_png(root / f"img_align_celeba/{number:06d}.jpg", noise(1, 3, 5, 4, seed=number)[0])
    (root / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    (root / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return bits @ [4, 2, 1]


def test_celeba(tmp_path: Path) -> None:
    labels = write_celeba(tmp_path)
    dataset = load("celeba", root=tmp_path)
    assert np.array_equal(dataset.labels, labels)
    assert dataset.class_names[0] == "no heavy makeup, mouth closed, not smiling"
    assert dataset.class_names[5] == "heavy makeup, mouth closed, smiling"
    assert dataset.parts["validation"].tolist() == list(range(8, 16))
    assert dataset.attributes["Male"].values.tolist() == [0, 1] * 12
    assert dataset.attributes["Young"].values.tolist() == [1, 0, 0] * 8
    assert np.array_equal(dataset.images[7].numpy(), noise(1, 3, 5, 4, seed=7)[0])
    assert load("celeba", root=tmp_path, size=64).image_shape == (3, 64, 64)


def test_celeba_from_its_zip_archive(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    plain = load("celeba", root=tmp_path)
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w") as archive:
        for path in sorted((tmp_path / "img_align_celeba").iterdir()):
            archive.write(path, f"img_align_celeba/{path.name}")
        archive.writestr("../outside.jpg", b"never unpacked")
    (tmp_path / "img_align_celeba").rename(tmp_path / "away")
    zipped = load("celeba", root=tmp_path)
    assert np.array_equal(zipped.images.numpy(), plain.images.numpy())
    assert not (tmp_path.parent / "outside.jpg").exists()
    (tmp_path / "img_align_celeba.zip").write_bytes(b"junk")
    with pytest.raises(DatasetError, match="not a readable zip archive"):
        load("celeba", root=tmp_path)
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w") as archive:
        archive.writestr("img_align_celeba/000000.jpg", b"x")
    with pytest.raises(DatasetError, match=r"lacks 23 of the images listed, the first being .*000001.jpg"):
        load("celeba", root=tmp_path)


def test_celeba_says_which_files_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"list_attr_celeba.txt, list_eval_partition.txt, img_align_celeba.zip .*mmlab"
    ):
        load("celeba", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("list_attr_celeba.txt", "000003.jpg  -1", "000003.jpg  ", "line 6: expected an image and 6 values"),
        ("list_attr_celeba.txt", "Smiling", "Smirking", "has no attribute Smiling"),
        ("list_attr_celeba.txt", "24\n", "25\n", "lists 24 images and says 25"),
        ("list_attr_celeba.txt", "24\n", "", "does not start with a number"),
        ("list_eval_partition.txt", "000003.jpg 0", "000003.jpg 5", "gives the image 000003.jpg no part"),
        ("list_eval_partition.txt", "000003.jpg 0\n", "", "gives the image 000003.jpg no part"),
        ("list_eval_partition.txt", "000003.jpg 0", "000003.jpg", "line 4: expected an image and a part"),
    ],
)
def test_damaged_celeba_lists(name: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    write_celeba(tmp_path)
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1))
    with pytest.raises(DatasetError, match=message):
        load("celeba", root=tmp_path)


def test_a_missing_celeba_image(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    (tmp_path / "img_align_celeba/000009.jpg").unlink()
    with pytest.raises(DatasetError, match=r"000009.jpg cannot be read"):
        load("celeba", root=tmp_path)


def write_utkface(root: Path) -> None:
    for number in range(80):
        name = f"{number + 1}_{number % 2}_{number % 5}_2017010{number:012d}.jpg.chip.jpg"
        write_png(root / name, noise(1, 3, 4, 4, seed=number)[0])


def test_utkface(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_utkface(tmp_path / "UTKFace")
    write_png(tmp_path / "UTKFace/61_1_20170109142408075.jpg.chip.jpg", noise(1, 3, 4, 4)[0])
    copy = "1_0_0_2017010000000000000.jpg.chip.jpg"
    write_png(tmp_path / "UTKFace/z" / copy, noise(1, 3, 4, 4)[0])
    with caplog.at_level(logging.WARNING):
        dataset = load("utkface", root=tmp_path)
    assert "1 file names do not say age_gender_race_date, such as 61_1_20170109142408075" in caplog.text
    assert "1 images have the name of another one" in caplog.text
    assert dataset.class_names == ("White", "Black", "Asian", "Indian")
    assert np.bincount(dataset.labels).tolist() == [16, 16, 16, 16]
    names = [path.name for path in sorted((tmp_path / "UTKFace").glob("*.jpg"))]
    kept = [name.split("_") for name in names if len(name.split("_")) == 4 and name.split("_")[2] != "4"]
    assert dataset.labels.tolist() == [int(fields[2]) for fields in kept]
    assert dataset.attributes["gender"].values.tolist() == [int(fields[1]) for fields in kept]
    assert four_way(dataset).members.size == 16
    with pytest.raises(SplitError, match="no train and no test"):
        public(dataset)


def test_utkface_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="susanqq"):
        load("utkface", root=tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="holds no images called age_gender_race_date"):
        load("utkface", root=tmp_path)


def write_cub(root: Path) -> None:
    place = root / "CUB_200_2011"
    place.mkdir(parents=True)
    rows = [(1, "001.Albatross/a_1.jpg", 1, 1), (2, "001.Albatross/a_2.jpg", 1, 0)]
    rows += [(3, "002.Auklet/b_1.jpg", 2, 0), (4, "002.Auklet/b_2.jpg", 2, 1)]
    (place / "images.txt").write_text("".join(f"{row[0]} {row[1]}\n" for row in rows))
    (place / "image_class_labels.txt").write_text("".join(f"{row[0]} {row[2]}\n" for row in rows))
    (place / "train_test_split.txt").write_text("".join(f"{row[0]} {row[3]}\n" for row in rows))
    (place / "classes.txt").write_text("1 001.Albatross\n2 002.Auklet\n")
    for number, path, _, _ in rows:
        write_png(place / "images" / path, noise(1, 3, 6 + number, 5, seed=number)[0])


def test_cub200(tmp_path: Path) -> None:
    write_cub(tmp_path)
    dataset = load("cub200", root=tmp_path, size=8)
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert {part: indices.tolist() for part, indices in dataset.parts.items()} == {"train": [0, 3], "test": [1, 2]}
    assert dataset.class_names == ("001.Albatross", "002.Auklet")
    with pytest.raises(DatasetError, match="--image-size"):
        load("cub200", root=tmp_path)
    labels = tmp_path / "CUB_200_2011/image_class_labels.txt"
    labels.write_text(labels.read_text().replace("3 2", "3 7"))
    with pytest.raises(DatasetError, match=r"image 3 \(002.Auklet/b_1.jpg\) has class 7"):
        load("cub200", root=tmp_path, size=8)


WNIDS = ("n01440764", "n01443537", "n02099601")


def write_imagenet(root: Path, *, sorted_val: bool) -> list[int]:
    """Two images a class; the validation images' classes, in the order of their names, are returned."""
    order = [2, 0, 1, 1, 0, 2]
    for label, wnid in enumerate(WNIDS):
        for number in range(2):
            write_png(root / f"train/{wnid}/{wnid}_{number}.JPEG", noise(1, 3, 9, 12, seed=10 * label + number)[0])
    for number, label in enumerate(order):
        folder = root / "val" / WNIDS[label] if sorted_val else root / "val"
        write_png(folder / f"ILSVRC2012_val_{number + 1:08d}.JPEG", np.full((3, 9, 12), 40 * label + 10, np.uint8))
    return order


def check_imagenet(root: Path) -> None:
    dataset = load("imagenet", root=root, size=4)
    test = dataset.parts["test"]
    # Each validation image has one grey level, which says its class.
    levels = (dataset.batch(test)[:, 0, 0, 0].numpy().astype(int) - 10) // 40
    assert levels.tolist() == dataset.labels[test].tolist() == [0, 0, 1, 1, 2, 2]
    assert len(dataset.parts["train"]) == 6


def test_imagenet_in_folders_of_classes(tmp_path: Path) -> None:
    write_imagenet(tmp_path, sorted_val=True)
    check_imagenet(tmp_path)
    assert load("imagenet", root=tmp_path, size=4).class_names == WNIDS
    names = "".join(f"{wnid} bird {number}, a bird\n" for number, wnid in enumerate(WNIDS))
    (tmp_path / "LOC_synset_mapping.txt").write_text(names)
    assert load("imagenet", root=tmp_path, size=4).class_names[2] == "bird 2, a bird"


def test_imagenet_with_the_solution_of_kaggle(tmp_path: Path) -> None:
    order = write_imagenet(tmp_path / "ILSVRC/Data/CLS-LOC", sorted_val=False)
    rows = [f"ILSVRC2012_val_{n + 1:08d},{WNIDS[label]} 1 2 3 4 " for n, label in enumerate(order)]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(rows)]))
    check_imagenet(tmp_path)


@pytest.mark.parametrize("numbers", [True, False])
def test_imagenet_with_a_list(numbers: bool, tmp_path: Path) -> None:
    order = write_imagenet(tmp_path, sorted_val=False)
    rows = [
        f"ILSVRC2012_val_{number + 1:08d}.JPEG {label if numbers else WNIDS[label]}"
        for number, label in enumerate(order)
    ]
    (tmp_path / "val.txt").write_text("\n".join(rows))
    check_imagenet(tmp_path)


def test_imagenet_with_the_development_kit_whose_numbering_is_its_own(tmp_path: Path) -> None:
    order = write_imagenet(tmp_path, sorted_val=False)
    own = {0: 3, 1: 1, 2: 2}
    truth = "\n".join(str(own[label]) for label in order)
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    synsets = np.array(
        [(own[label], wnid) for label, wnid in enumerate(WNIDS)], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")]
    )
    savemat(tmp_path / "meta.mat", {"synsets": synsets})
    check_imagenet(tmp_path)


def test_imagenet_is_cropped_as_its_models_are_tested(tmp_path: Path) -> None:
    write_imagenet(tmp_path, sorted_val=True)
    wide = np.zeros((3, 160, 320), np.uint8)
    wide[:, :, 80:240] = 255
    write_png(tmp_path / f"train/{WNIDS[0]}/{WNIDS[0]}_0.JPEG", wide)
    got = load("imagenet", root=tmp_path, size=14).images[0].numpy()
    # The customary way, step by step: shorter side to 16, centre 14×14.
    image = Image.fromarray(wide.transpose(1, 2, 0)).resize((32, 16), Image.Resampling.BILINEAR)
    expected = np.asarray(image.crop((9, 1, 23, 15))).transpose(2, 0, 1)
    assert np.abs(got.astype(int) - expected).max() <= 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no labels lie beside them"),
        ({"val.txt": "ILSVRC2012_val_00000001.JPEG 2"}, "00000002.JPEG has no label"),
        ({"val.txt": "ILSVRC2012_val_00000001.JPEG 7"}, "has class 7, and 3 classes are known"),
        ({"LOC_val_solution.csv": "a,b\n1,2\n"}, "has no columns ImageId"),
        ({"ILSVRC2012_validation_ground_truth.txt": "1\n2", "meta.mat": ""}, "2 labels for 6 images"),
        (
            {"ILSVRC2012_validation_ground_truth.txt": "1\n" * 6, "meta.mat": "junk"},
            r"not the development kit's meta.mat",
        ),
    ],
)
def test_imagenet_labels_that_are_missing_or_wrong(files: dict[str, str], message: str, tmp_path: Path) -> None:
    write_imagenet(tmp_path, sorted_val=False)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(DatasetError, match=message):
        load("imagenet", root=tmp_path, size=4)


def test_imagenet_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"ImageNet is not in .*image-net.org"):
        load("imagenet", root=tmp_path)
