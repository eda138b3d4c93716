"""Check that a target is as accurate as expected: not at chance, near the stated accuracy, in the right class order.

A failed check means that the assessed model is not the one that its owner has in mind: other data, other preprocessing,
or another numbering of classes. It is reported wherever the preprocessing came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from securitynet.datasets.class_names import explain_difference, normalize_name
from securitynet.records import Check

Labels = NDArray[np.int64]

TOLERANCE = 0.05
"""How far an accuracy may be from a stated one, besides what the number of images explains."""

_FEW = 100
_LEVEL = 1e-3
_PER_CLASS = 8
_SHOWN = 3
_RENUMBER = (
    "To use the model's order, renumber the column of labels, or name the folders of classes so that they sort in it "
    "(00_NAME, 01_NAME, ...)."
)
_REVERSE = (
    "Scores that are distances, losses or energies must be given with the opposite sign, so that the highest "
    "stands for the predicted class: let the model return -scores, or write -values to the array `logits` or the "
    "columns logit_0, logit_1, ... of recorded outputs."
)


@dataclass(frozen=True)
class ClassOrder:
    """A class order that explains the predictions better than that of the dataset.

    Attributes:
        order: For each class of the dataset, the number under which the model predicts it.
        accuracy: Accuracy with this order, in [0, 1], on images that were not used to choose it.
        words: A description of the order.
    """

    order: Labels
    accuracy: float
    words: str


def check_accuracy(
    predicted: Labels,
    labels: Labels,
    class_names: Sequence[str],
    *,
    model_names: Sequence[str] = (),
    stated: float | None = None,
    lowest: Labels | None = None,
) -> list[Check]:
    """Check the accuracy on images. The check against chance is always returned, the others only if they fail.

    Args:
        predicted: Classes that the target predicts, N int64.
        labels: True classes, N int64.
        class_names: Names in the dataset, in the order of labels.
        model_names: Names of the model's classes in the order of its outputs, if its source states them.
        stated: Stated accuracy on such images, in [0, 1]; None if there is none.
        lowest: Class with the lowest score of each image, N int64; None if it is unknown.
    """
    if not len(labels):
        return []
    accuracy = float((predicted == labels).mean())
    checks = []
    order = find_class_order(predicted, labels, class_names, model_names)
    reverse = None if lowest is None else _measure_reverse(predicted, labels, lowest, len(class_names), order)
    if reverse is not None:
        checks.append(
            Check(
                what="sign",
                said="the highest score is that of the predicted class",
                found=f"the lowest is, in {reverse:.4f} of the images",
                agrees=False,
                note="the sign of the model's scores seems to be reversed: the class with the lowest score is right "
                f"for {reverse:.1%} of the images, that with the highest for {accuracy:.1%}. {_REVERSE}",
            )
        )
    elif order is not None:
        checks.append(
            Check(
                what="class order",
                said="the dataset's",
                found=order.words,
                agrees=False,
                note=f"the model numbers its classes in another order than the dataset: {order.words}. Accuracy is "
                f"{accuracy:.1%}, and {order.accuracy:.1%} in that order. {_RENUMBER}"
                + (
                    " With two classes, scores of which the lower one is meant look the same."
                    if _is_pair(order)
                    else ""
                ),
            )
        )
    agrees = stated is not None and not _is_far(accuracy, stated, len(labels))
    if stated is not None:
        note = f"accuracy is {accuracy:.1%} on {len(labels):,} images, where {stated:.1%} is stated."
        checks.append(
            Check(
                what="accuracy",
                said=f"{stated:.4f}",
                found=f"{accuracy:.4f}",
                agrees=agrees,
                note=None if agrees else note,
            )
        )
    chance = compute_chance(labels, len(class_names))
    at_chance = _is_chance(accuracy, chance, len(labels)) and not agrees
    reason = (
        "the model may belong to another dataset, number its classes otherwise, or need another --normalize or "
        "--input-size."
        if reverse is None
        else "the sign of its scores explains that."
    )
    named = (
        explain_difference(class_names, model_names, ("in the dataset", "in the model"))
        if reverse is None and order is None
        else None
    )
    if named is not None:
        reason += f" {named} {_RENUMBER}"
    checks.append(
        Check(
            what="chance",
            said=f"better than {chance:.4f}",
            found=f"{accuracy:.4f}",
            agrees=not at_chance,
            note=f"accuracy is {accuracy:.1%} on {len(labels):,} images, which is hardly better than chance "
            f"({chance:.1%}): {reason}"
            if at_chance
            else None,
        )
    )
    return checks


def compute_chance(labels: Labels, num_classes: int) -> float:
    """Accuracy of the better of two guesses: a random class, or always the most common class."""
    return max(1 / max(num_classes, 1), float(np.bincount(labels).max()) / len(labels))


def find_least_accuracy(chance: float) -> float:
    """Accuracy above which a model is assumed to have learned the classes.

    Untrained networks also do slightly better than chance, so "significantly better" would not be enough.
    """
    return chance + min(2 * chance, (1 - chance) / 6)


def _measure_reverse(
    predicted: Labels, labels: Labels, lowest: Labels, count: int, order: ClassOrder | None
) -> float | None:
    """Measure the accuracy of the lowest scores; None unless they explain the labels better than anything else does.

    Of two classes the lowest score is the other prediction, which is an order of the classes.
    """
    right, reverse = predicted == labels, lowest == labels
    accuracy = float(reverse.mean())
    least = find_least_accuracy(compute_chance(labels, count))
    # At a tie the sign is the likelier reason: in another order the lowest score is right by coincidence only.
    if count < 3 or accuracy <= least or (order is not None and accuracy < order.accuracy):
        return None
    better, worse = int((reverse & ~right).sum()), int((right & ~reverse).sum())
    significant = better > worse and scipy.stats.binomtest(better, better + worse).pvalue < _LEVEL
    return accuracy if significant else None


def _is_pair(order: ClassOrder) -> bool:
    return len(order.order) == 2


def _is_chance(accuracy: float, chance: float, count: int) -> bool:
    if count >= _FEW:
        return accuracy <= find_least_accuracy(chance)
    return bool(scipy.stats.binom.sf(round(accuracy * count) - 1, count, chance) > _LEVEL)


def _is_far(accuracy: float, stated: float, count: int) -> bool:
    """Whether an accuracy lies beyond the tolerance and beyond three standard errors for this number of images."""
    error = 3 * np.sqrt(max(stated * (1 - stated), 0.25 / count) / count)
    return bool(abs(accuracy - stated) > TOLERANCE + error)


def find_class_order(
    predicted: Labels, labels: Labels, class_names: Sequence[str], model_names: Sequence[str] = ()
) -> ClassOrder | None:
    """Find a class order under which predictions are significantly more accurate than in the dataset's order.

    Common orders are tried directly: that of the model's class names, rotations, the reverse, and numbers sorted as
        text.
    If there are enough images of each class, the permutation that the confusion matrix suggests is tried too. It is
    chosen on one half of the images and judged on the other, and vice versa.

    Args:
        predicted: Classes that the target predicts, N int64.
        labels: True classes, N int64.
        class_names: Names in the dataset, in the order of labels.
        model_names: Names of the model's classes in the order of its outputs; empty if unknown.
    """
    count = len(class_names)
    right = predicted == labels
    best: tuple[NDArray[np.bool_], ClassOrder] | None = None
    for order, words in _usual_orders(class_names, model_names):
        correct = predicted == order[labels]
        if best is None or correct.sum() > best[0].sum():
            best = correct, ClassOrder(order, float(correct.mean()), words)
    if len(labels) >= _PER_CLASS * count:
        half = np.arange(len(labels)) % 2 == 0
        correct = np.zeros(len(labels), dtype=bool)
        for part in (half, ~half):
            correct[~part] = predicted[~part] == _assigned(predicted[part], labels[part], count)[labels[~part]]
        if best is None or correct.sum() > best[0].sum():
            order = _assigned(predicted, labels, count)
            best = correct, ClassOrder(order, float(correct.mean()), _in_words(order, class_names))
    if best is None or np.array_equal(best[1].order, np.arange(count)):
        return None
    # The number of orders tried is the number of classes, plus a few.
    better, worse = int((best[0] & ~right).sum()), int((right & ~best[0]).sum())
    significant = better > worse and scipy.stats.binomtest(better, better + worse).pvalue < _LEVEL / (count + 4)
    enough = best[1].accuracy > find_least_accuracy(compute_chance(labels, count))
    return best[1] if significant and enough else None


def _usual_orders(class_names: Sequence[str], model_names: Sequence[str]) -> Iterator[tuple[Labels, str]]:
    count = len(class_names)
    numbers = np.arange(count, dtype=np.int64)
    named = _by_names(class_names, model_names)
    if named is not None:
        yield named, f"by the names of its classes, {_in_words(named, class_names)}"
    for shift in range(1, count):
        signed = shift if shift <= count // 2 else shift - count
        places = f"{abs(signed)} place{'' if abs(signed) == 1 else 's'}"
        yield (numbers + shift) % count, f"rotated by {places}, {_in_words((numbers + shift) % count, class_names)}"
    if count > 2:
        yield numbers[::-1].copy(), "reversed"
    as_text = np.array(sorted(range(count), key=str), dtype=np.int64)
    yield as_text, "numbers sorted as text (0, 1, 10, 11, ..., 2)"
    yield np.argsort(as_text).astype(np.int64), "numbers in order, where the dataset sorts them as text"


def _by_names(class_names: Sequence[str], model_names: Sequence[str]) -> Labels | None:
    """For each class of the dataset, the number of the model's class of that name; None if the names differ."""
    theirs = {_plain(name): number for number, name in enumerate(model_names)}
    ours = [_plain(name) for name in class_names]
    if len(theirs) != len(model_names) or set(ours) != set(theirs):
        return None
    return np.array([theirs[name] for name in ours], dtype=np.int64)


def _plain(name: str) -> str:
    # NFC first: an accent that is a character of its own is not alphanumeric, and must not be lost.
    return "".join(character for character in normalize_name(name).casefold() if character.isalnum())


def _assigned(predicted: Labels, labels: Labels, count: int) -> Labels:
    """The permutation that makes most predictions correct (Hungarian method); ties keep the dataset's order."""
    confusion = np.zeros((count, count))
    inside = predicted < count
    np.add.at(confusion, (labels[inside], predicted[inside]), 1.0)
    confusion[np.diag_indices(count)] += 0.5
    if (confusion.argmax(axis=1) == np.arange(count)).all():
        return np.arange(count, dtype=np.int64)  # no other order can be better, and SciPy is slow to import
    return np.asarray(scipy.optimize.linear_sum_assignment(confusion, maximize=True)[1], dtype=np.int64)


def _in_words(order: Labels, class_names: Sequence[str]) -> str:
    """Describe which classes are exchanged."""
    moved = np.flatnonzero(order != np.arange(len(order)))
    if len(moved) == 2:
        return f"{class_names[moved[0]]} and {class_names[moved[1]]} are swapped"
    shown = [f"{class_names[label]} is its class {order[label]}" for label in moved[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(moved) > _SHOWN else "")
