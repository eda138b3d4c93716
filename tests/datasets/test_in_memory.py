"""Objects as datasets: torch datasets with torchvision's transforms, arrays, Hugging Face's library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from dataset_files import noise, write_folder
from securitynet.datasets import dataset_from_objects, load
from securitynet.errors import ConfigurationError, DatasetError, SplitError
from securitynet.torchvision_cure import import_torchvision

transforms: Any = import_torchvision("torchvision.transforms")
v2: Any = import_torchvision("torchvision.transforms.v2")
torchvision_datasets: Any = import_torchvision("torchvision.datasets")

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
LABELS = np.array([0, 1] * 6)


class Photos(Dataset):
    """A tutorial's dataset: Pillow images and a transform."""

    def __init__(self, arrays: np.ndarray, transform: Any = None) -> None:
        self.images = [Image.fromarray(array.transpose(1, 2, 0)) for array in arrays]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.images[index]
        if self.transform is not None:
            image = self.transform(image)
        return image, index % 2


def test_layouts_and_types_of_arrays_give_one_fingerprint() -> None:
    images = noise(12, 3, 6, 5)
    whole = dataset_from_objects((images, LABELS)).dataset
    assert np.array_equal(whole.images, images)
    assert whole.parts["all"].tolist() == list(range(12))
    others = [
        (images.transpose(0, 2, 3, 1), LABELS),
        (torch.from_numpy(images), torch.from_numpy(LABELS)),
        (torch.from_numpy(images).float() / 255, np.eye(2)[LABELS]),
        (images.astype(np.float64), LABELS[:, None]),
        (list(images), LABELS.tolist()),
    ]
    for other in others:
        assert dataset_from_objects(other).dataset.fingerprint == whole.fingerprint
    assert dataset_from_objects(TensorDataset(*map(torch.from_numpy, (images, LABELS)))).dataset.fingerprint == (
        whole.fingerprint
    )
    images = images.copy()
    images[3, 0, 0, 0] ^= 1
    assert dataset_from_objects((images, LABELS)).dataset.fingerprint != whole.fingerprint


def test_train_and_test_join_as_parts() -> None:
    images = noise(12, 1, 6, 5)
    data = dataset_from_objects((images[:8, 0], LABELS[:8]), (images[8:, 0], LABELS[8:]), name="mine")
    assert {part: len(indices) for part, indices in data.dataset.parts.items()} == {"train": 8, "test": 4}
    assert data.dataset.image_shape == (1, 6, 5)
    assert data.dataset.reference == "object:mine"
    assert data.dataset.get_record_name(9) == "test/1"
    assert data.transform is None


def test_normalize_is_read_and_left_to_the_target() -> None:
    images = noise(12, 3, 8, 8)
    compose = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    dataset = Photos(images, compose)
    data = dataset_from_objects(dataset)
    assert data.transform is not None
    assert (data.transform.mean, data.transform.std, data.transform.input_size) == (MEAN, STD, None)
    assert np.array_equal(data.dataset.images, images)
    # What the target will see is what the user's own pipeline gives.
    seen = (data.dataset.images[3].float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(seen, dataset[3][0])
    assert dataset.transform is compose  # nothing that the user holds has changed


def test_random_augmentation_is_left_out_and_said() -> None:
    images = noise(12, 3, 8, 8)
    normal = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    augmented = Photos(
        images[:8],
        transforms.Compose([transforms.RandomCrop(8, padding=4), transforms.RandomHorizontalFlip(), *normal]),
    )
    data = dataset_from_objects(augmented, Photos(images[8:], transforms.Compose(normal)))
    assert np.array_equal(data.dataset.images, images)
    assert any("RandomCrop, RandomHorizontalFlip" in note for note in data.dataset.notes)
    assert dataset_from_objects(augmented).dataset.fingerprint == dataset_from_objects(augmented).dataset.fingerprint


def test_a_random_crop_that_alone_decides_the_size_is_refused() -> None:
    crop = transforms.Compose([transforms.RandomResizedCrop(6), transforms.ToTensor()])
    with pytest.raises(DatasetError, match="how the model is tested is not known"):
        dataset_from_objects(Photos(noise(4, 3, 8, 8), crop))


@pytest.mark.parametrize("library", [transforms, v2])
def test_images_of_different_shapes_are_shaped_as_the_pipeline_does(library: Any) -> None:
    arrays = [noise(1, 3, 30 + k, 45 - k, seed=k)[0] for k in range(6)]
    shaping = [library.Resize(20), library.CenterCrop(16)]
    photos = Photos(np.empty((0, 3, 1, 1), np.uint8), library.Compose([*shaping, transforms.ToTensor()]))
    photos.images = [Image.fromarray(array.transpose(1, 2, 0)) for array in arrays]
    data = dataset_from_objects(photos)
    for k in range(6):
        torch.testing.assert_close(data.dataset.images[k].float() / 255, photos[k][0], atol=1e-6, rtol=0)
    assert data.transform is not None and data.transform.input_size is None


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_enlarging_goes_into_the_target(interpolation: str) -> None:
    waves = np.sin(np.arange(6 * 3 * 16 * 16).reshape(6, 3, 16, 16) / 5)
    images = np.round(127 + 90 * waves).astype(np.uint8)  # Pillow clips noise between its two passes
    compose = transforms.Compose(
        [
            transforms.Resize(32, interpolation=transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(28),
            transforms.ToTensor(),
        ]
    )
    data = dataset_from_objects(Photos(images, compose))
    assert data.dataset.image_shape == (3, 16, 16)
    assert data.transform is not None
    assert (data.transform.input_size, data.transform.crop_share) == ((28, 28), 0.875)
    from securitynet.models.sources.preprocessing import Preprocessing

    seen = Preprocessing(**data.transform.model_dump())(data.dataset.images[:])
    assert (seen[2] - Photos(images, compose)[2][0]).abs().max() < 2 / 255  # Pillow rounds to bytes, in two passes


def test_a_weights_preset_is_read() -> None:
    preset = import_torchvision("torchvision.transforms._presets").ImageClassification(crop_size=8, resize_size=10)
    data = dataset_from_objects(Photos(noise(4, 3, 20, 24), preset))
    assert data.dataset.image_shape == (3, 8, 8)
    assert data.transform is not None and data.transform.mean == (0.485, 0.456, 0.406)


def test_normalised_items_are_refused_with_two_ways_out_and_undone_when_stated() -> None:
    images = noise(12, 3, 6, 6)
    values = (images / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    with pytest.raises(
        DatasetError, match=r"normalised already: values from -.*Either give .*mean=\.\.\., std="
    ) as refused:
        dataset_from_objects((values.astype(np.float32), LABELS))
    assert "train" in str(refused.value)
    data = dataset_from_objects((values.astype(np.float32), LABELS), mean=MEAN, std=STD)
    assert np.array_equal(data.dataset.images, images)
    assert data.transform is not None and data.transform.mean == MEAN
    with pytest.raises(DatasetError, match="do not undo"):
        dataset_from_objects((values, LABELS), mean=0.1, std=3.0)
    with pytest.raises(ConfigurationError, match="both"):
        dataset_from_objects((values, LABELS), mean=MEAN)


def normalise_by_hand(image: Image.Image) -> torch.Tensor:
    return transforms.functional.to_tensor(image) * 4 - 2


def halve(image: Image.Image) -> torch.Tensor:
    return transforms.functional.to_tensor(image) / 2


def test_a_transform_of_the_users_own_is_run() -> None:
    images = noise(6, 3, 6, 6)
    with pytest.raises(DatasetError, match="normalised already"):
        dataset_from_objects(Photos(images, normalise_by_hand))
    data = dataset_from_objects(Photos(images, halve))
    assert any("halve can't be read" in note for note in data.dataset.notes)
    assert np.abs(data.dataset.images.numpy() - images / 2).max() <= 0.5
    flipped = transforms.Compose([transforms.RandomHorizontalFlip(), halve])
    with pytest.raises(DatasetError, match="RandomHorizontalFlip, which gives another image"):
        dataset_from_objects(Photos(images, flipped))
    with pytest.raises(DatasetError, match="RandomHorizontalFlip"):
        plain = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToTensor()])
        dataset_from_objects(Photos(images, plain), Photos(images, halve))


def test_different_normalisation_of_train_and_test_is_an_error() -> None:
    images = noise(6, 3, 6, 6)
    normal = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    with pytest.raises(DatasetError, match="normalised differently"):
        dataset_from_objects(Photos(images, normal), Photos(images, transforms.ToTensor()))


def test_an_image_folder_keeps_files_and_classes(tmp_path: Path) -> None:
    written = write_folder(tmp_path, per_class=3)
    compose = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    train, test = (torchvision_datasets.ImageFolder(tmp_path / part, transform=compose) for part in ("train", "test"))
    data = dataset_from_objects(train, test)
    assert data.dataset.class_names == ("cat", "dog")
    assert [data.dataset.get_record_name(k) for k in (0, 11)] == ["train/cat/0.png", "test/dog/2.png"]
    assert np.array_equal(data.dataset.images, np.stack(list(written.values())))
    from_files = load(f"folder:{tmp_path}")
    assert np.array_equal(from_files.labels, data.dataset.labels)
    some = dataset_from_objects(Subset(train, [5, 0, 3]), DataLoader(test, batch_size=2)).dataset
    assert some.get_record_name(0) == "train/dog/2.png"
    assert torch.equal(some.images[0], data.dataset.images[5])
    joined = dataset_from_objects(ConcatDataset([train, test]))
    assert len(joined.dataset) == 12 and joined.transform is not None and joined.transform.mean == MEAN


def test_fake_data_of_torchvision() -> None:
    fake = torchvision_datasets.FakeData(20, (3, 8, 8), 2, transform=transforms.ToTensor())
    data = dataset_from_objects(fake)
    assert torch.equal(data.dataset.images[4].float() / 255, fake[4][0])
    assert data.transform is not None and data.transform.mean == ()


def test_hugging_face_datasets() -> None:
    library = pytest.importorskip("datasets")
    images = noise(12, 3, 6, 5)
    features = library.Features({"img": library.Image(), "fine_label": library.ClassLabel(names=["cat", "dog"])})
    pictures = [Image.fromarray(image.transpose(1, 2, 0)) for image in images]
    whole = library.Dataset.from_dict({"img": pictures, "fine_label": LABELS.tolist()}, features=features)
    whole.set_transform(lambda batch: {"pixel_values": batch["img"]})
    halves = library.DatasetDict({"train": whole.select(range(8)), "test": whole.select(range(8, 12))})
    data = dataset_from_objects(halves)
    assert data.dataset.class_names == ("cat", "dog")
    assert np.array_equal(data.dataset.images, images)
    assert {part: len(indices) for part, indices in data.dataset.parts.items()} == {"train": 8, "test": 4}
    coarse = whole.add_column("coarse_label", LABELS.tolist())
    assert dataset_from_objects(coarse).dataset.class_names == ("cat", "dog")


def test_classes_in_another_order_are_said_and_the_remedy_works() -> None:
    datasets = pytest.importorskip("datasets")

    def make(names: list[str], labels: list[int | None]) -> Any:
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        images = [Image.fromarray(array.transpose(1, 2, 0)) for array in noise(len(labels), 3, 4, 4)]
        return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)

    train, test = make(["cat", "dog"], [0, 1, 0, 1]), make(["dog", "cat"], [0, 0, 1, 1])
    with pytest.raises(DatasetError, match="dog is 0 in test and 1 in train") as caught:
        dataset_from_objects(train, test)
    assert "align_labels_with_mapping" in caught.value.hint
    numbers = {name: number for number, name in enumerate(train.features["label"].names)}
    data = dataset_from_objects(train, test.align_labels_with_mapping(numbers, "label")).dataset
    assert data.labels.tolist() == [0, 1, 0, 1, 1, 1, 0, 0]
    with pytest.raises(DatasetError, match=r"2 of 8 items have no label \(None\): Item 1 of test, Item 3 of test"):
        dataset_from_objects(train, make(["cat", "dog"], [0, None, 1, None]))


def test_members_by_mask_and_number() -> None:
    images = noise(12, 3, 6, 5)
    mask = np.zeros(12, dtype=bool)
    mask[[1, 2, 7]] = True
    by_mask = dataset_from_objects((images, LABELS), members=mask).dataset
    assert by_mask.parts["train"].tolist() == [1, 2, 7] and len(by_mask.parts["test"]) == 9
    by_number = dataset_from_objects((images, LABELS), members=torch.tensor([7, 1, 2]), non_members=[0, 3]).dataset
    assert by_number.parts["test"].tolist() == [0, 3]
    with pytest.raises(DatasetError, match="mask of members has 11 values for 12 records"):
        dataset_from_objects((images, LABELS), members=mask[:11])
    with pytest.raises(SplitError, match="members and non-members"):
        dataset_from_objects((images, LABELS), members=[1], non_members=[1])


def test_text_labels_become_classes() -> None:
    data = dataset_from_objects((noise(4, 3, 4, 4), ["dog", "cat", "dog", "cat"]))
    assert data.dataset.class_names == ("cat", "dog") and data.dataset.labels.tolist() == [1, 0, 1, 0]


class Broken(Photos):
    def __getitem__(self, index: int) -> tuple[Any, int]:
        raise KeyError("no such picture")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((noise(4, 3, 4, 4), [1, 2, 1, 2]), "labels from 1 to 2"),
        ((noise(4, 3, 4, 4), [0, 1]), "4 images and 2 labels"),
        ((noise(4, 3, 4, 4), [0.5, 1, 0, 1]), "has the label '0.5'"),
        ((np.zeros((4, 12)), [0, 1, 0, 1]), r"the shape \(4, 12\)"),
        ((np.zeros((2, 4, 4, 4), np.uint8), [0, 1]), "1 or 3 channels"),
        ((np.full((2, 3, 4, 4), np.nan), [0, 1]), "not finite"),
        (([], []), "empty"),
        (Broken(noise(4, 3, 4, 4)), "Item 0 of train can't be read: KeyError"),
        ("cifar10", "str, which is not a dataset"),
        (iter([1]), "stream without a length"),
        ([1, 2, 3], "int and no pair"),
    ],
)
def test_what_is_no_dataset_is_one_clear_error(value: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        dataset_from_objects(value)


def test_images_too_large_for_memory_stay_in_their_object(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(12, 3, 6, 6)
    whole = dataset_from_objects(Photos(images)).dataset
    monkeypatch.setattr("securitynet.datasets.in_memory.IN_MEMORY_BYTES", 10)
    lazy = dataset_from_objects(Photos(images)).dataset
    assert not isinstance(lazy.images, torch.Tensor)
    assert np.array_equal(lazy.batch(np.array([7, 2])), images[[7, 2]])
    assert lazy.fingerprint == whole.fingerprint
