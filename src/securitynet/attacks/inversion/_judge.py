"""The evaluation of reconstructions against the training data and with the evaluation classifier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.attacks.inversion._attacked_classes import AttackedClasses
from securitynet.attacks.inversion._evaluator import Evaluator
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffle
from securitynet.errors import AccessDenied, ModelError
from securitynet.methods.data import TrialData
from securitynet.metrics import inversion
from securitynet.models.targets import heads
from securitynet.models.targets.target import Target


@dataclass(frozen=True, eq=False)
class JudgedReconstructions:
    """The fields of `securitynet.attacks.inversion.base.Reconstructions` that the evaluation determines; see there."""

    images: NDArray[np.uint8]
    posterior: NDArray[np.float64]
    rank: NDArray[np.int64]
    mse: NDArray[np.float64]
    ssim: NDArray[np.float64]
    embedding_distance: NDArray[np.float64]
    feature_distance: NDArray[np.float64]
    nearest_distance: NDArray[np.float64]
    closer_to_member: NDArray[np.bool_]
    blank_mse: NDArray[np.float64]
    mean_colour_mse: NDArray[np.float64]
    other_class_mse: NDArray[np.float64]
    means: NDArray[np.uint8]
    nearest: NDArray[np.uint8]
    notes: tuple[str, ...]


def judge_reconstructions(
    attacked: AttackedClasses, data: TrialData, evaluator: Evaluator, images: torch.Tensor, references: int, seed: int
) -> JudgedReconstructions:
    """Compare reconstructions with the training data; the queries of this evaluation do not count as the adversary's.

    Reconstructions are evaluated as 8-bit images, as an adversary would store them.

    Args:
        attacked: The target and the requested classes.
        data: Data of the trial, with the true members.
        evaluator: The evaluation classifier.
        images: Reconstructions in [0, 1], N×C×H×W, in the order of ``attacked.classes``.
        references: Largest number of real images of each class to compare with.
        seed: Seed of the choice among more images than that.
    """
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    exact = pixels.numpy().astype(np.float32) / 255
    classes = attacked.classes.numpy()
    dataset, splits = data.dataset, data.splits
    scores = _answers(evaluator.target, pixels, embeddings=False)
    means = _class_means(attacked, data)
    own, features = _embedded(attacked.target, pixels), _answers(evaluator.target, pixels, embeddings=True)
    count = len(pixels)
    embedding, feature, near = (np.full(count, np.nan) for _ in range(3))
    to_member = np.zeros(count, dtype=bool)
    shown = np.zeros((len(attacked.labels), *attacked.shape), dtype=np.uint8)
    mean_of = np.repeat(means[: len(attacked.labels)], attacked.restarts, axis=0)
    for number, label in enumerate(attacked.labels):
        rows = classes == label
        members = _some(dataset, splits.members, label, references, seed)
        others = _some(dataset, np.union1d(splits.non_members, splits.shadow_test), label, references, seed)
        unseen = _some(dataset, evaluator.unseen, label, references, seed)
        known = dataset.batch(members)
        if own is not None:
            of_members = _embedded(attacked.target, known)
            assert of_members is not None  # the target has embeddings, or had none before
            embedding[rows] = inversion.compute_centroid_distance(own[rows], of_members)
        of_members = _answers(evaluator.target, known, embeddings=True)
        feature[rows] = inversion.compute_centroid_distance(features[rows], of_members)
        if len(unseen):
            usual, _ = inversion.find_nearest(
                _answers(evaluator.target, dataset.batch(unseen), embeddings=True), of_members
            )
            if usual.mean() > 0:
                near[rows] = inversion.find_nearest(features[rows], of_members)[0] / usual.mean()
        flat = exact[rows].reshape(int(rows.sum()), -1)
        shown[number] = known[int(inversion.find_nearest(flat[:1], _flat(known))[1][0])].numpy()
        to_member[rows] = _nearer_to_member(flat, dataset, members, others)
    labels = slice(0, len(attacked.labels))
    return JudgedReconstructions(
        images=pixels.numpy(),
        posterior=_posteriors(attacked, pixels),
        rank=inversion.rank_requested_class(scores, classes),
        mse=inversion.compute_mse(exact, mean_of),
        ssim=inversion.compute_ssim(exact, mean_of),
        embedding_distance=embedding,
        feature_distance=feature,
        nearest_distance=near,
        closer_to_member=to_member,
        blank_mse=inversion.compute_blank_mse(means)[labels],
        mean_colour_mse=inversion.compute_mean_colour_mse(means)[labels],
        other_class_mse=inversion.compute_other_class_mse(means)[labels],
        means=(means[labels] * 255).round().astype(np.uint8),
        nearest=shown,
        notes=() if own is not None else ("The target has no linear layer whose input could serve as an embedding.",),
    )


def _class_means(attacked: AttackedClasses, data: TrialData) -> NDArray[np.float64]:
    """Return the mean training image of each requested class (and of a second one if one is requested), in [0, 1]."""
    labels = list(attacked.labels)
    held = data.dataset.labels[data.splits.members]
    if len(labels) == 1:
        labels += [label for label in np.unique(held).tolist() if label != labels[0]][:1]
    means = np.zeros((len(labels), *attacked.shape))
    for number, label in enumerate(labels):
        records = data.splits.members[held == label]
        for _, images in data.dataset.batches(records, 1024):
            means[number] += images.numpy().sum(axis=0, dtype=np.float64)
        means[number] /= 255 * len(records)
    return means


def _some(dataset: ImageDataset, records: NDArray[np.int64], label: int, count: int, seed: int) -> NDArray[np.int64]:
    """Choose at most ``count`` records of one class at random."""
    own = records[dataset.labels[records] == label]
    return own if len(own) <= count else np.sort(own[shuffle(len(own), "references", seed)[:count]])


def _nearer_to_member(
    flat: NDArray[np.float32], dataset: ImageDataset, members: NDArray[np.int64], others: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether the nearest of equal numbers of members and others is a member, N.

    Without others, true and false alternate.
    """
    size = min(len(members), len(others))
    if size == 0:
        return np.asarray(np.arange(len(flat)) % 2 == 0)
    # Evenly spaced, because both are sorted samples and the first records could be of one kind.
    first, second = (pool[np.linspace(0, len(pool) - 1, size).astype(np.int64)] for pool in (members, others))
    to_members, _ = inversion.find_nearest(flat, _flat(dataset.batch(first)))
    to_others, _ = inversion.find_nearest(flat, _flat(dataset.batch(second)))
    return np.asarray(to_members < to_others)


def _flat(images: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(images.flatten(1).numpy().astype(np.float32) / 255)


def _posteriors(attacked: AttackedClasses, pixels: torch.Tensor) -> NDArray[np.float64]:
    """Return the target's posterior of the requested class, N; NaN if the target returns labels only."""
    if attacked.network is None:
        try:
            seen = torch.from_numpy(_answers(attacked.target, pixels, embeddings=False))
        except AccessDenied:
            return np.full(len(pixels), np.nan)
        return seen.double().softmax(dim=1)[torch.arange(len(pixels)), attacked.classes].numpy()
    with torch.inference_mode():
        logits = torch.cat(
            [attacked.module(part.to(attacked.device)).float().cpu() for part in torch.split(pixels, 256)]
        )
    rows = torch.arange(len(pixels))
    return logits.double().softmax(dim=1)[rows, attacked.classes].numpy()


def _embedded(target: Target, images: torch.Tensor) -> NDArray[np.float32] | None:
    try:
        return _answers(target, images, embeddings=True)
    except (AccessDenied, ModelError):  # outputs alone, or no layer that could serve
        return None


def _answers(target: Target, images: torch.Tensor, *, embeddings: bool) -> NDArray[np.float32]:
    """Compute logits or embeddings directly with the backend, so that the evaluation does not count as queries."""
    backend = target.backend
    rows = []
    for part in torch.split(images, backend.batch_size):
        inputs = target.preprocessing(part.to(backend.device))
        rows.append(backend.embeddings(inputs) if embeddings else heads.to_logits(backend.outputs(inputs), target.head))
    return np.asarray(torch.cat(rows).numpy())
