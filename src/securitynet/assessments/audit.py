"""The audit of a training with canaries: lower bounds on its epsilon, beside the one that DP-SGD states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import securitynet.datasets
from securitynet.assessments.audit_config import AuditConfig
from securitynet.assessments.canary_scores import CanaryScores, score_canaries
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.options import load_options
from securitynet.defenses.base import make_defense
from securitynet.errors import ConfigurationError, ModelError
from securitynet.metrics import f_dp_audit, one_run_audit, sampling
from securitynet.metrics.defaults import DEFAULT_DELTA
from securitynet.models.sources.references import parse_reference
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.store.record_files import read_target_record
from securitynet.models.training.canaries import CanaryRecord, load_canary_images, place_canaries
from securitynet.models.training.dp_sgd import Privacy
from securitynet.models.training.privacy_profile import compute_privacy_profile, spends_more
from securitynet.models.training.trainable import find_architecture
from securitynet.models.training.training_defense import TrainingDefense
from securitynet.records import Measurement
from securitynet.results.audit import PrivacyAudit, PrivacyClaim

Scores = NDArray[np.float64]

BATCHES_SHARE = 0.02
"""Share of the error probability that all tests of the batches have: the p-values of other sampling are far below."""


def audit_weights(config: AuditConfig) -> PrivacyAudit:
    """Audit the model that a configuration names.

    Args:
        config: The configuration.

    Raises:
        SecurityNetError: If the model was trained without canaries or on another dataset, or cannot be read.
    """
    trained = read_target_record(config.weights)
    if trained is None:
        raise ModelError(
            f"{config.weights} is not a weights file with a model record beside it.",
            hint="Train it with `securitynet train … --canaries 1000`.",
        )
    _require_canaries(trained)
    dataset = securitynet.datasets.load(config.dataset or trained.dataset.reference, **load_options(config))
    return audit_model(
        config.weights,
        trained,
        dataset,
        architecture=config.architecture,
        canary_images=config.canary_images,
        delta=config.delta,
        level=config.level,
        device=config.device,
    )


def audit_model(
    weights: Path,
    trained: TargetRecord,
    dataset: ImageDataset,
    *,
    architecture: str | None = None,
    canary_images: str | None = None,
    delta: float | None = None,
    level: float = 0.95,
    device: str = "auto",
) -> PrivacyAudit:
    """Bound the epsilon of a training from below, from one model that was trained with canaries.

    Args:
        weights: The weights file.
        trained: The model record beside it.
        dataset: The dataset of the training.
        architecture: Reference of the architecture as the user states it; by default the one in the record.
        canary_images: Reference of the user's canaries; by default the one in the record.
        delta: Delta of the bounds, in (0, 1); by default that of the stated privacy.
        level: Confidence of the verdict, in (0, 1).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigurationError: If the model was trained without canaries, or the user's canaries are not those given.
        SplitError: If the dataset is not the one of the training.
    """
    canaries = _require_canaries(trained)
    restore_splits(trained, dataset)  # raises if the dataset is another one
    source = None if canaries.source is None else canary_images or canaries.source.reference
    placed = place_canaries(canaries, dataset, None if source is None else load_canary_images(source, dataset))
    built = find_architecture(architecture or read_architecture(trained))
    defense = _find_defense(trained)
    scores = score_canaries(trained, weights, placed, architecture=built, defense=defense, device=device)
    privacy = None if trained.defense is None else trained.defense.privacy
    return judge_scores(scores, np.asarray(canaries.included), canaries.kind, privacy, delta=delta, level=level)


def judge_scores(
    scores: CanaryScores,
    included: NDArray[np.bool_],
    kind: str,
    privacy: Privacy | None,
    *,
    delta: float | None = None,
    level: float = 0.95,
) -> PrivacyAudit:
    """Turn the scores of canaries into bounds on epsilon, and compare them with the privacy that is claimed.

    The error probability 1 − ``level`` is shared among what is combined: between the two scores for each kind of bound,
    of which the larger one is quoted, and among all tests of the claim.

    Args:
        scores: Scores of the canaries.
        included: The coins, N.
        kind: Kind of the canaries.
        privacy: The privacy that the model record states; None if it states none.
        delta: Delta of the bounds, in (0, 1); by default the stated one.
        level: Confidence of the verdict, in (0, 1).
    """
    delta = delta or (DEFAULT_DELTA if privacy is None else privacy.delta)
    by_name = {"white-box": scores.white_box, "black-box": scores.black_box}
    each = 1 - (1 - level) / len(by_name)
    measurements: list[Measurement] = []
    for name, values in by_name.items():
        for compute in (one_run_audit.measure_epsilon, f_dp_audit.measure_gaussian_epsilon):
            measurements.append(compute(values, included, delta=delta, level=each).renamed(f"audit.{name}"))
    tests: dict[str, bool] = {}
    claim, is_resolvable = None, True
    if privacy is not None:
        is_bound = privacy.accountant != "zcdp"
        claim = PrivacyClaim(
            epsilon=privacy.epsilon, delta=privacy.delta, accountant=privacy.accountant, is_bound=is_bound
        )
        tests, is_resolvable = _test_claim(by_name, included, privacy, claim, level)
    contradictions = tuple(name for name, is_contradicted in tests.items() if is_contradicted)
    audit = PrivacyAudit(
        kind=kind,
        canaries=len(included),
        included=int(included.sum()),
        delta=delta,
        level=level,
        measurements=tuple(measurements),
        claim=claim,
        tests=tuple(tests),
        contradictions=contradictions,
        verdict="no claim" if claim is None else "contradicted" if contradictions else "not contradicted",
        sentences=(),
    )
    return audit.model_copy(update={"sentences": tuple(_describe(audit, is_resolvable))})


def _test_claim(
    by_name: Mapping[str, Scores], included: NDArray[np.bool_], privacy: Privacy, claim: PrivacyClaim, level: float
) -> tuple[dict[str, bool], bool]:
    """Whether each test contradicts the claim, and whether the scores of so many canaries could do so at all.

    Each score may rule out the stated epsilon, and the whole trade-off curve of the stated noise and steps. Where the
    trainer recorded its batches, they are tested as well: whether they were drawn by Poisson sampling. That epsilon is
    not less than the stated noise, sampling rate and steps spend is arithmetic, without an error probability.
    """
    curve = f_dp_audit.make_profile_curve(compute_privacy_profile(privacy))
    pairs = {"epsilon and delta": (claim.epsilon, claim.delta)} if claim.is_bound else {}
    batches = _test_batches(privacy)
    left = (1 - level) * (1 - BATCHES_SHARE if batches else 1)
    each = 1 - left / (len(by_name) * (len(pairs) + 1))

    def test_scores(values: Scores) -> dict[str, bool]:
        attempts = one_run_audit.guess(values, included)
        tests = {
            what: any(
                one_run_audit.bound_p_value(attempt, epsilon, delta) <= error
                for attempt, error in one_run_audit.divide_error(attempts, each)
            )
            for what, (epsilon, delta) in pairs.items()
        }
        return tests | {"trade-off curve": f_dp_audit.contradicts_curve(values, included, curve, level=each)}

    tests = {f"{name}: {what}": said for name, values in by_name.items() for what, said in test_scores(values).items()}
    tests |= {
        f"batches: {name}": p_value <= (1 - level) * BATCHES_SHARE / len(batches) for name, p_value in batches.items()
    }
    tests |= {"epsilon of the stated noise, sampling and steps": spends_more(privacy)} if pairs else {}
    return tests, any(tests.values()) or any(test_scores(included.astype(np.float64)).values())


def _test_batches(privacy: Privacy) -> dict[str, float]:
    """P-values of the tests of Poisson sampling; none if the batches were not recorded."""
    log = privacy.sampling
    if log is None:
        return {}
    p_values = sampling.compute_poisson_p_values(
        log.total,
        log.size_spread,
        log.use_spread,
        records=privacy.records,
        steps=privacy.steps,
        rate=privacy.sample_rate,
    )
    return dict(zip(sampling.TESTS, p_values, strict=True))


def _describe(audit: PrivacyAudit, is_resolvable: bool) -> list[str]:
    """The outcome in words that claim no more than the bounds show."""

    def find_largest(kind: str) -> float | None:
        values = [m.value for m in audit.measurements if f".{kind}@" in m.name and m.value is not None]
        return max(values, default=None)

    sentences = [
        f"The model was trained with {audit.canaries:,} canaries ({audit.kind}), of which a fair coin each included "
        f"{audit.included:,}."
    ]
    bound, gaussian = find_largest("one-run-epsilon"), find_largest("gaussian-epsilon")
    if bound is None or gaussian is None:
        return [*sentences, "They are too few for a bound."]
    if bound > 0:
        sentences.append(
            f"With {audit.level:.0%} confidence, the training is not differentially private with an epsilon below "
            f"{bound:.3g} at delta {audit.delta:g}."
        )
    else:
        sentences.append("The coins could not be guessed well enough to rule out any epsilon, which proves nothing.")
    if gaussian > bound:
        sentences.append(
            f"If its trade-off curve is that of a Gaussian mechanism, epsilon is not below {gaussian:.3g}."
        )
    if audit.claim is None:
        return [*sentences, "The model record states no epsilon to compare with."]
    stated = f"epsilon = {audit.claim.epsilon:.3g} at delta {audit.claim.delta:g}"
    if not audit.claim.is_bound:
        sentences.append(f"The stated {stated} ({audit.claim.accountant}) is not a bound, so only the noise is tested.")
    if audit.verdict == "contradicted":
        sentences.append(
            f"This contradicts the model record, which states {stated}: the training was not DP-SGD with the stated "
            f"noise, clipping bound, sampling and steps ({'; '.join(audit.contradictions)})."
        )
    else:
        sentences.append(
            f"Nothing contradicts the model record, which states {stated}. That does not prove it: a stronger audit "
            "could show more."
        )
        if not is_resolvable:
            sentences.append(
                f"Even if the coins of all {audit.canaries:,} canaries had been guessed correctly, the guesses "
                "would not contradict it: that takes more canaries."
            )
    return sentences


def _require_canaries(trained: TargetRecord) -> CanaryRecord:
    if trained.canaries is None:
        raise ConfigurationError(
            "This model was trained without canaries, so its training cannot be audited.",
            hint="Train it with `securitynet train … --canaries 1000`.",
        )
    return trained.canaries


def read_architecture(trained: TargetRecord) -> str:
    """Read the reference of the architecture from a model record; code that a record names is never run.

    Args:
        trained: The model record.

    Raises:
        ConfigurationError: If it is a factory in a file whose location is not known.
    """
    name = trained.architecture
    if parse_reference(name if ":" in name else f"arch:{name}").path is not None:
        raise ConfigurationError(
            f"The model was trained as {name}, but the location of that file is unknown.",
            hint="State it with its folder: --architecture python:FOLDER/FILE:FACTORY.",
        )
    return name


def _find_defense(trained: TargetRecord) -> TrainingDefense | None:
    """The defense of the record, which determines the layers of the network."""
    if trained.defense is None:
        return None
    defense = make_defense(trained.defense.name, trained.defense.settings)
    if not isinstance(defense, TrainingDefense):
        raise ModelError(f"{trained.defense.name} in the model record is not a training defense.")
    return defense
