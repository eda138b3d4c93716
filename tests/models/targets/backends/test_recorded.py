"""Recorded outputs: three formats, alignment with a dataset, and what can be wrong with a file."""

import os
import pickle

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.splits import public
from securitynet.errors import AccessDenied, TargetError, UnsafeFile
from securitynet.models.targets import signals
from securitynet.models.targets.backends.recorded import RecordedBackend
from securitynet.models.targets.target import Target

N, K = 12, 3
LOGITS = torch.randn(N, K, generator=torch.Generator().manual_seed(0)).double()
POSTERIORS = LOGITS.softmax(1).numpy()
LABELS = np.arange(N) % K
MEMBERS = np.arange(N) < 6


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def write_csv(path, columns):
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def table(prefix="p", values=POSTERIORS, **more):
    return {**{f"{prefix}{k}": values[:, k] for k in range(values.shape[1])}, "label": LABELS, **more}


def backend_of(path):
    return RecordedBackend(path, reference=f"outputs:{path.name}")


def image_dataset(labels=LABELS, names=("a", "b", "c")):
    return ImageDataset("toy", torch.zeros((len(labels), 3, 2, 2), dtype=torch.uint8), labels, names, {})


# What is understood


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
def test_formats_give_the_same(tmp_path, kind):
    path = tmp_path / f"r.{kind}"
    if kind == "npz":
        save(path, posteriors=POSTERIORS, labels=LABELS, members=MEMBERS)
    elif kind == "csv":
        write_csv(path, table(member=MEMBERS.astype(int)))
    else:
        pyarrow.parquet.write_table(pyarrow.table(table(member=MEMBERS)), path)
    backend = backend_of(path)
    assert backend.head == "probabilities"
    assert (backend.num_classes, len(backend)) == (K, N)
    dataset = backend.dataset()
    rows = backend.rows(np.array([3, 0, 3]), dataset)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, POSTERIORS[[3, 0, 3]], atol=1e-6)
    np.testing.assert_array_equal(dataset.parts["train"], np.arange(6))
    np.testing.assert_array_equal(dataset.parts["test"], np.arange(6, 12))
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert dataset.images is None
    splits = public(dataset, seed=0)
    assert set(splits.members) == set(range(6))


def test_signals_of_a_recording_need_no_target_and_no_cache(tmp_path):
    backend = backend_of(save(tmp_path / "r.npz", logits=LOGITS.numpy(), labels=LABELS, membership=MEMBERS))
    collected = signals.collect_signals(Target(backend, head=backend.head), backend.dataset(), cache=tmp_path / "cache")
    np.testing.assert_allclose(collected.posteriors, POSTERIORS, atol=1e-6)
    assert collected.queries.total == N
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("posteriors", "probabilities"),
        ("probabilities", "probabilities"),
        ("logits", "logits"),
        ("log_probabilities", "log-probabilities"),
    ],
)
def test_arrays_tell_the_head(tmp_path, name, head):
    values = {"probabilities": POSTERIORS, "logits": LOGITS.numpy(), "log-probabilities": np.log(POSTERIORS)}[head]
    backend = backend_of(save(tmp_path / "r.npz", **{name: values}, labels=LABELS))
    assert backend.head == head
    collected = signals.collect_signals(Target(backend, head=backend.head), backend.dataset())
    np.testing.assert_allclose(collected.posteriors, POSTERIORS, atol=1e-5)


@pytest.mark.parametrize(
    ("prefix", "values", "head"),
    [
        ("p", POSTERIORS, "probabilities"),
        ("p_", POSTERIORS, "probabilities"),
        ("posterior_", POSTERIORS, "probabilities"),
        ("probability_", POSTERIORS, "probabilities"),
        ("logit_", LOGITS.numpy(), "logits"),
        ("log_probability_", np.log(POSTERIORS), "log-probabilities"),
    ],
)
def test_columns_tell_the_head(tmp_path, prefix, values, head):
    backend = backend_of(write_csv(tmp_path / "r.csv", table(prefix, values)))
    assert backend.head == head
    np.testing.assert_allclose(backend.rows(np.arange(N), backend.dataset()), values, rtol=1e-5)


def test_columns_are_ordered_by_number_and_member_words_are_read(tmp_path):
    columns = {f"p{k}": np.full(22, 1.0 if k == 10 else 0.0) for k in reversed(range(11))}
    members = np.arange(22) < 11
    words = ["true" if m else "false" for m in members]
    backend = backend_of(write_csv(tmp_path / "r.csv", {**columns, "label": np.arange(22) % 11, "member": words}))
    np.testing.assert_array_equal(backend.rows(np.arange(22), backend.dataset()).argmax(axis=1), np.full(22, 10))
    np.testing.assert_array_equal(backend.members, members)


def test_class_names_and_certain_rows(tmp_path):
    certain = np.eye(K)[LABELS]
    with np.errstate(divide="ignore"):
        path = save(tmp_path / "r.npz", log_probabilities=np.log(certain), labels=LABELS, class_names=["x", "y", "z"])
    backend = backend_of(path)
    assert backend.dataset().class_names == ("x", "y", "z")
    collected = signals.collect_signals(Target(backend, head=backend.head), backend.dataset())
    assert np.isfinite(collected.logits).all()
    np.testing.assert_allclose(collected.posteriors, certain)


def test_checksum_and_fingerprint_follow_the_content(tmp_path):
    one = backend_of(save(tmp_path / "a.npz", posteriors=POSTERIORS, labels=LABELS))
    copy = tmp_path / "b.npz"
    copy.write_bytes((tmp_path / "a.npz").read_bytes())
    other = backend_of(save(tmp_path / "c.npz", posteriors=POSTERIORS[::-1], labels=LABELS))
    assert one.checksum == backend_of(copy).checksum != other.checksum
    assert one.dataset().fingerprint == backend_of(copy).dataset().fingerprint != other.dataset().fingerprint


# Beside a dataset with images


def test_rows_align_with_a_dataset(tmp_path):
    backend = backend_of(save(tmp_path / "r.npz", posteriors=POSTERIORS, labels=LABELS))
    np.testing.assert_allclose(backend.rows(np.array([4]), image_dataset()), POSTERIORS[[4]], atol=1e-6)
    with pytest.raises(TargetError, match="holds 12 records; toy has 15"):
        backend.rows(np.array([4]), image_dataset(np.arange(15) % K))
    with pytest.raises(TargetError, match=r"disagree on the labels of 12 of 12 records \(row 0: 0 here, 1 there\)"):
        backend.rows(np.array([4]), image_dataset((LABELS + 1) % K))


def test_indices_place_rows_in_a_larger_dataset(tmp_path):
    labels = np.arange(30) % K
    indices = np.random.default_rng(0).permutation(30)[:N]
    path = save(tmp_path / "r.npz", posteriors=POSTERIORS, labels=labels[indices], indices=indices, members=MEMBERS)
    backend = backend_of(path)
    dataset = image_dataset(labels)
    np.testing.assert_allclose(backend.rows(indices, dataset), POSTERIORS, atol=1e-6)
    absent = np.setdiff1d(np.arange(30), indices)[0]
    with pytest.raises(TargetError, match=f"no outputs for 1 of the 2 records .* record {absent}"):
        backend.rows(np.array([indices[0], absent]), dataset)
    with pytest.raises(TargetError, match="names record"):
        backend.rows(indices, image_dataset(labels[:10]))
    own = backend.dataset()
    order = np.argsort(indices)
    np.testing.assert_allclose(backend.rows(np.arange(N), own), POSTERIORS[order], atol=1e-6)
    np.testing.assert_array_equal(own.parts["train"], np.flatnonzero(MEMBERS[order]))


def test_nothing_new_can_be_asked(tmp_path):
    backend = backend_of(save(tmp_path / "r.npz", posteriors=POSTERIORS, labels=LABELS))
    with pytest.raises(AccessDenied, match="recording"):
        Target(backend).posteriors(torch.zeros(1, 3, 2, 2))


def test_membership_that_was_not_recorded(tmp_path):
    backend = backend_of(save(tmp_path / "r.npz", posteriors=POSTERIORS, labels=LABELS))
    assert backend.dataset().parts == {}
    with pytest.raises(TargetError, match=r"column .* named 'member'"):
        _ = backend.members


# What can be wrong


def with_nan():
    values = POSTERIORS.copy()
    values[5, 1] = np.nan
    return values


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"labels": LABELS}, "holds none of the arrays"),
        ({"posteriors": 100 * POSTERIORS, "labels": LABELS}, "sum to 100 in every row: divide them by it"),
        ({"posteriors": POSTERIORS, "logits": LOGITS.numpy(), "labels": LABELS}, "posteriors and logits"),
        ({"posteriors": POSTERIORS}, "holds no labels.*column 'label'"),
        ({"posteriors": LOGITS.numpy(), "labels": LABELS}, "row 0 sums to .*name the array 'logits'"),
        ({"logits": POSTERIORS, "labels": LABELS}, "calls its values logits; they are probabilities"),
        ({"log_probabilities": LOGITS.numpy(), "labels": LABELS}, "log-probabilities; in .* rows they are not"),
        ({"posteriors": with_nan(), "labels": LABELS}, r"1 of 12 records .*not finite \(first: row 5\)"),
        ({"logits": LOGITS.numpy() * 1e300, "labels": LABELS}, "not finite"),
        ({"posteriors": POSTERIORS, "labels": LABELS + 1}, "row 2 has label 3, outside 0 to 2"),
        ({"posteriors": POSTERIORS, "labels": LABELS - 1}, "row 0 has label -1"),
        ({"posteriors": POSTERIORS, "labels": LABELS + 0.5}, "whole numbers"),
        ({"posteriors": POSTERIORS, "labels": LABELS.astype(str)}, "whole numbers, not text"),
        ({"posteriors": POSTERIORS, "labels": LABELS[:5]}, r"labels of shape \(5,\) for 12"),
        ({"posteriors": POSTERIORS[:0], "labels": LABELS[:0]}, "no records"),
        ({"posteriors": np.ones((N, 1)), "labels": LABELS * 0}, "at least two"),
        ({"posteriors": POSTERIORS[0], "labels": LABELS}, "one row of class scores"),
        ({"posteriors": POSTERIORS.astype(str), "labels": LABELS}, "not numbers"),
        ({"posteriors": POSTERIORS, "labels": LABELS, "members": np.arange(N)}, "must be 1 or 0"),
        ({"posteriors": POSTERIORS, "labels": LABELS, "members": np.ones(N)}, "calls all 12 records members"),
        ({"posteriors": POSTERIORS, "labels": LABELS, "members": MEMBERS, "membership": MEMBERS}, "both"),
        ({"posteriors": POSTERIORS, "labels": LABELS, "indices": np.zeros(N, int)}, "distinct"),
        ({"posteriors": POSTERIORS, "labels": LABELS, "class_names": ["a"]}, "names 1 classes"),
    ],
)
def test_arrays_that_contradict_themselves(tmp_path, arrays, words):
    with pytest.raises(TargetError, match=words):
        backend_of(save(tmp_path / "r.npz", **arrays))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty file"),
        ("a,b\n1,2\n", "no columns of outputs"),
        ("p0,p1\n0.5,0.5\n", "holds no labels"),
        ("p0,p2,label\n0.5,0.5,0\n", "not numbered 0 to 1"),
        ("p0,logit_1,label\n0.5,0.5,0\n", "columns of logit and p"),
        ("p0,p1,label\n0.5,0.5,0\n0.5,0.5\n", "cannot be read as CSV"),
        ("p0,p1,label\n0.5,,0\n0.5,0.5,1\n", "missing or not finite"),
        ("p0,p1,label\n0.5,0.5,\n0.5,0.5,1\n", "'label' is empty in 1 of 2 rows"),
        ("p0,p1,label\n0.5,zero,0\n", "not numbers"),
        ("p0,p1,label\n0.5,0.5,cat\n", "whole numbers"),
        ("p0,p1,label\n3.1,-1.5,0\n", "name .* columns logit_0"),
        ("p0,p1,label\n", "no records"),
        ("p0,p0,label\n0.5,0.5,0\n", "more than one column named 'p0'"),
        ("p0,p1,label,label\n0.5,0.5,0,1\n", "more than one column named 'label'"),
    ],
)
def test_tables_that_contradict_themselves(tmp_path, text, words):
    path = tmp_path / "r.csv"
    path.write_text(text)
    with pytest.raises(TargetError, match=words):
        backend_of(path)


def test_files_that_are_absent_damaged_or_something_else(tmp_path):
    with pytest.raises(TargetError, match="does not exist"):
        backend_of(tmp_path / "none.npz")
    with pytest.raises(TargetError, match="is a folder"):
        backend_of(tmp_path)
    whole = save(tmp_path / "r.npz", posteriors=POSTERIORS, labels=LABELS).read_bytes()
    for number, content in enumerate(
        (whole[: len(whole) // 2], whole[:100], b"\x00\xff\xfe" * 50, b"PAR1" + b"x" * 50)
    ):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(content)
        with pytest.raises(TargetError, match=r"damaged|cannot be read|no columns"):
            backend_of(path)
    flipped = bytearray(whole)
    flipped[200] ^= 0xFF  # inside the first array: the archive's own checksum notices
    (tmp_path / "flipped.npz").write_bytes(flipped)
    with pytest.raises(TargetError, match="damaged"):
        backend_of(tmp_path / "flipped.npz")


def test_nothing_is_unpickled(tmp_path):
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    ragged = np.array([[0.5, 0.5], [1.0]], dtype=object)
    for values in (np.array([Evil()], dtype=object), ragged):
        path = tmp_path / "r.npz"
        np.savez(path, posteriors=values, labels=np.zeros(len(values)))
        with pytest.raises(UnsafeFile, match="Python objects"):
            backend_of(path)
    (tmp_path / "r.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(TargetError):
        backend_of(tmp_path / "r.pkl")
    assert not marker.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.replace(",", ", ").encode(),
        lambda text: text.replace("label", " Label ").replace("member", "MEMBER ").encode(),
        lambda text: text.replace(",", ";").replace(".", ",").encode(),
        lambda text: ("sep=\t\r\n" + text.replace(",", "\t")).encode("utf-16"),
        lambda text: text.replace("\n", ",\xe9\n").replace("member,\xe9", "member,caf\xe9").encode("latin-1"),
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path, change):
    plain = backend_of(write_csv(tmp_path / "plain.csv", table(member=MEMBERS.astype(int))))
    path = tmp_path / "o.csv"
    path.write_bytes(change((tmp_path / "plain.csv").read_text()))
    backend = backend_of(path)
    indices = np.arange(N)
    np.testing.assert_allclose(backend.rows(indices, backend.dataset()), plain.rows(indices, plain.dataset()))
    np.testing.assert_array_equal(backend.members, MEMBERS)


@pytest.mark.parametrize(
    "data", [b"p0,\0p1\n0.5,0.5\n", "p0,p1\n0.5,0.5\n".encode("utf-16")[:-1], b"\x89PNG\r\n\x1a\n\0"]
)
def test_what_is_no_table_is_one_clear_error(tmp_path, data):
    path = tmp_path / "o.csv"
    path.write_bytes(data)
    with pytest.raises(TargetError, match="cannot be read as CSV"):
        backend_of(path)
