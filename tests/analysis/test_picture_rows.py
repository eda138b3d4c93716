"""Pictures of trials whose arrays anyone may have written."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.analysis.picture_rows import list_pictures, load_galleries
from securitynet.attacks import ATTACKS
from securitynet.methods.output import Gallery
from securitynet.records import TrialResult
from securitynet.results.store import TrialStore
from stored_results import write_result

IMAGES = np.zeros((2, 3, 1, 4, 4), np.uint8)
RECONSTRUCTIONS = {
    "images": np.zeros((2, 1, 4, 4), np.uint8),
    "classes": np.arange(2),
    "labels": np.arange(2),
    "names": np.array(["a", "b"]),
    "notes": np.array([], np.str_),
    "means": np.zeros((2, 1, 4, 4), np.uint8),
    "nearest": np.zeros((2, 1, 4, 4), np.uint8),
    "num_classes": np.array(2),
    "commonest": np.array(1),
    "recognised": np.array([1, 2]),
}
PICTURES = ("images", "means", "nearest")
WRONG = {
    "no array": lambda arrays: {"other": np.zeros(1)},
    "no labels": lambda arrays: {**arrays, "labels": arrays["labels"][:0]},
    "fractions": lambda arrays: {**arrays, **{name: arrays[name] / 1 for name in PICTURES}},
    "two channels": lambda arrays: {**arrays, **dict.fromkeys(PICTURES, np.zeros((2, 2, 4, 4), np.uint8))},
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"images": IMAGES.astype(float)}, "float64"),
        ({"images": IMAGES[0]}, "shape"),
        ({"images": np.zeros((2, 3, 2, 4, 4), np.uint8)}, "shape"),
        ({"images": IMAGES[..., :0]}, "shape"),
        ({"rows": ("one",)}, "1×3 labels holds 2×3"),
    ],
)
def test_what_is_no_gallery(change, told):
    gallery = {"images": IMAGES, "rows": ("a", "b"), "columns": ("c", "d", "e")}
    Gallery("Title", "Caption.", **gallery)
    with pytest.raises(ValueError, match=told):
        Gallery("Title", "Caption.", **{**gallery, **change})


@pytest.fixture
def store(tmp_path):
    return TrialStore(tmp_path)


def save_inversion(store, arrays) -> TrialResult:
    names = ATTACKS.get("inversion.fredrikson").output.__dataclass_fields__
    filled = {**dict.fromkeys(names, np.zeros(2)), **RECONSTRUCTIONS}
    write_result(store.files.folder, "c" * 64, np.zeros(400), np.ones(400, bool))
    (stored,) = store
    spec = stored.spec.model_copy(update={"method": "inversion.fredrikson"})
    return store.save(stored.model_copy(update={"spec": spec}), arrays(filled))


def test_rows_hold_the_first_pictures(store):
    result = save_inversion(store, lambda arrays: arrays)
    places = [row["at"] for row in list_pictures(result, store, {})]
    assert len(places) == 6 and places[0] == "picture=a/class mean"


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_arrays_that_make_no_pictures_are_left_out_and_logged(change, store, caplog):
    result = save_inversion(store, change)
    assert load_galleries(result, store) == () and list(list_pictures(result, store, {})) == []
    assert caplog.text.count("pictures of a trial of inversion.fredrikson are left out") == 2


def test_a_method_that_is_not_installed_has_no_pictures(store):
    result = save_inversion(store, lambda arrays: arrays)
    unknown = result.model_copy(update={"spec": result.spec.model_copy(update={"method": "inversion.other"})})
    assert load_galleries(unknown, store) == ()
