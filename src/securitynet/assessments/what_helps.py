"""What would help: each defense on the owner's model and data, against the membership attacks of the assessment.

Nothing here comes from the literature. Defenses of the answers are tried on signals that are there already. Defenses
that train are tried by training the model again, as its record says that it was trained.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from securitynet.assessments.assessed_target import make_trial_data
from securitynet.assessments.assessment import Assessment
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.method_settings import make_method
from securitynet.assessments.run_trial import ReportProgress, is_full_disk
from securitynet.defenses import DEFENSES
from securitynet.defenses.base import OutputDefense, make_defense
from securitynet.errors import AccessDenied, ConfigurationError, SecurityNetError
from securitynet.files import cache_folder, stable_hash
from securitynet.methods.base import Method
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import rates
from securitynet.models.store.model_record import read_target_record, trained_splits
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.signals import collect
from securitynet.models.targets.target import Target
from securitynet.models.training.training_defense import TrainingDefense
from securitynet.records import Access, Direction, Measurement, ThreatModel
from securitynet.results.document import Remedies, Tried

logger = logging.getLogger(__name__)

STRONGEST = 3
"""Attacks that defenses have to stand, besides those that are cheap."""

Rival = tuple[str, Method, ThreatModel]
"""An attack with its trial's name and the threat model that is played out."""


def check_remedies(config: AssessConfig) -> None:
    """Check what can be checked of the defenses to try before anything is loaded.

    Raises:
        UnknownName: If a defense does not exist.
        ConfigurationError: If the target is to be defended already.
    """
    if not config.try_defenses:
        return
    choose_defenses(config)
    if config.defense is not None:
        raise ConfigurationError(
            f"--try-defenses starts from a model as it is, and --defense {config.defense} changes it.",
            hint="Leave one of them out.",
        )


def choose_defenses(config: AssessConfig) -> list[str]:
    """Names of the defenses to try.

    Raises:
        UnknownName: If one does not exist.
    """
    names: list[str] = []
    for name in config.defenses:
        if name in ("all", "output", "training"):
            names += [full for full in DEFENSES if name in ("all", DEFENSES.get(full).stage)]
        else:
            names.append(DEFENSES.resolve(name).name)
    return list(dict.fromkeys(names))


def try_defenses(assessment: Assessment, report_progress: ReportProgress | None = None) -> Remedies:
    """Attack the target behind each defense, and models trained with each.

    The attacks are the strongest membership attacks of the assessment and all that cost no more than a pass. Behind a
    defense of the answers, those that need the model itself do not count: it holds up nobody who has the weights.
    """
    rivals, notes = _rank_attacks(assessment), []
    if not rivals:
        notes.append("No membership attack was run, so there is nothing that defenses could be tried against.")
    names = choose_defenses(assessment.config)
    tasks = [(name, settings) for name in names for settings in DEFENSES.get(name).sweep]
    training = [task for task in tasks if DEFENSES.get(task[0]).stage == "training"]
    obstacle = _find_obstacle_to_training(assessment)
    if training and obstacle:
        notes.append(f"Defenses that train were not tried: {obstacle}.")
        tasks = [task for task in tasks if task not in training]
    elif training:
        trained = assessment.assessed_target.trained
        assert trained is not None  # `_find_obstacle_to_training` has said so
        words = (
            f"{len(training)} trainings of {trained.recipe.epochs} epochs, each about {trained.history.seconds:.0f} "
            "seconds as the model itself took"
        )
        if longer := sorted({name for name, _ in training} & {"dp-sgd", "distillation", "adversarial-regularisation"}):
            words += f"; {' and '.join(longer)} several times as long"
        logger.warning("Trying defenses takes %s.", words)
        notes.append(f"Defenses that train took {words}.")
    if any(task not in training for task in tasks):
        notes.append("Defenses of the answers hold up nobody who has the weights.")
    undefended = _attack_target("none", "none", {}, *_get_target(assessment), rivals, assessment)
    asking = [rival for rival in rivals if rival[2].access is not Access.WHITE_BOX]
    if any(task not in training for task in tasks) and len(asking) < len(rivals):
        notes.append(
            "Behind a defense of the answers, attacks that need the model itself do not count, with it or without: the "
            "AUC is compared with that of the strongest other attack on the model as it is."
        )
        answering = _attack_target("none", "output", {}, *_get_target(assessment), rivals, assessment).auc
    else:
        answering = undefended.auc
    tried = []
    for number, (name, settings) in enumerate(tasks if rivals else []):
        if report_progress:
            report_progress("trying defenses", number, len(tasks))
        outcome = _try_defense(name, settings, rivals, undefended, assessment)
        tried.append(outcome.model_copy(update={"against": answering if outcome.stage == "output" else undefended.auc}))
    if report_progress and tasks:
        report_progress("trying defenses", len(tasks), len(tasks))
    return Remedies(
        undefended=undefended, tried=tuple(tried), attacks=tuple(name for name, _, _ in rivals), notes=tuple(notes)
    )


def _get_target(assessment: Assessment) -> tuple[Target, TrialData]:
    assessed = assessment.assessed_target
    return assessed.target, make_trial_data(assessed)


def _rank_attacks(assessment: Assessment) -> list[Rival]:
    """The attacks that defenses have to stand, the strongest first."""
    ranked: list[tuple[float, bool, Rival]] = []
    for trial in assessment.trials:
        if trial.result.status != "ok" or not trial.result.spec.method.startswith("membership."):
            continue
        auc = next((m.value for m in trial.result.measurements if m.name == f"{trial.name}.auc"), None)
        if auc is None:
            continue
        spec = trial.result.spec
        method = make_method("attack", spec.method, spec.configuration)
        ranked.append((auc, method.costs is None, (trial.name, method, spec.threat_model)))
    ranked.sort(key=lambda item: -abs(item[0] - 0.5))  # who knows better turns scores that point the wrong way
    return [rival for place, (_, cheap, rival) in enumerate(ranked) if cheap or place < STRONGEST]


def _find_obstacle_to_training(assessment: Assessment) -> str | None:
    assessed = assessment.assessed_target
    if assessed.trained is None:
        return "nothing beside the weights says how this model was trained (securitynet train writes it)"
    if assessed.trained.defense is not None:
        return f"the model was trained with {assessed.trained.defense.name} already"
    if assessed.dataset.images is None:
        return "there are no images"
    return None


def _try_defense(
    name: str, settings: dict[str, Any], rivals: list[Rival], undefended: Tried, assessment: Assessment
) -> Tried:
    started = time.perf_counter()
    defense = make_defense(name, settings)
    stage = defense.stage
    try:
        if isinstance(defense, OutputDefense):
            target, data = _get_target(assessment)
            target = target.through(defense.interface(target, data, _make_context(assessment)))
            outcome = _attack_target(name, stage, settings, target, data, rivals, assessment, undefended.attack)
        else:
            target, data = _train_again(defense, assessment)
            outcome = _attack_target(name, stage, settings, target, data, rivals, assessment, undefended.attack)
            spent = data.trained.defense if data.trained else None
            if spent is not None and spent.privacy is not None:
                outcome = outcome.model_copy(update={"epsilon": spent.privacy.epsilon})
    except Exception as error:  # what can't be done here must not cost the others
        if is_full_disk(error):
            raise
        if not isinstance(error, SecurityNetError):
            logger.error("%s could not be tried.", name, exc_info=error)
        reason = error.message if isinstance(error, SecurityNetError) else f"{type(error).__name__}: {error}"
        return Tried(name=name, stage=stage, settings=settings, reason=reason)
    return outcome.model_copy(update={"seconds": round(time.perf_counter() - started, 3)})


def _train_again(defense: TrainingDefense, assessment: Assessment) -> tuple[Target, TrialData]:
    """The model trained with a defense, from the cache where it is complete; and who is a member of it."""
    assessed, config = assessment.assessed_target, assessment.config
    trained = assessed.trained
    assert trained is not None  # there was no obstacle
    stated = trained.split
    recipe = trained.recipe.model_copy(update=defense.advised({}))  # a poor recipe would speak against the defense
    facts = {
        "version": 1,
        "defense": defense.make_record().model_dump(mode="json"),
        "architecture": trained.architecture,
        "recipe": recipe.model_dump(mode="json"),
        "dataset": assessed.dataset.fingerprint,
        "split": [stated.protocol, stated.seed, stated.known],
    }
    out = (config.cache or cache_folder()) / "defended" / stable_hash(facts) / "model.safetensors"
    target = train_target(
        trained.architecture,
        assessed.dataset,
        recipe=recipe,
        split=stated.protocol,
        split_seed=stated.seed,
        known=stated.known,
        out=out,
        device=config.device,
        defense=defense,
        note=logger.info,
    )
    again = read_target_record(out)
    assert again is not None  # just written
    splits = trained_splits(again, assessed.dataset, known=config.known)
    return target.under(assessed.target.access), TrialData(
        assessed.dataset, splits, again, assessed.auxiliary, defense=defense
    )


def _attack_target(
    name: str,
    stage: Any,
    settings: dict[str, Any],
    target: Target,
    data: TrialData,
    rivals: list[Rival],
    assessment: Assessment,
    strongest: str | None = None,
) -> Tried:
    """The attacks on a target."""
    config, aucs, denied = assessment.config, {}, []
    for label, method, threat_model in rivals:
        if stage == "output" and threat_model.access is Access.WHITE_BOX:
            continue
        try:
            output = method(target, data, _make_context(assessment), threat_model)
        except AccessDenied:
            denied.append(label)
            continue
        output = assessment.controls.restrict(output)
        measured = output.measurements(level=config.level, fprs=config.fprs, seed=config.seed)
        auc = next((m for m in measured if m.name == "auc"), None)
        if auc is not None and auc.value is not None:
            aucs[label] = auc
    # Scores that point the wrong way round say as much: who knows of the defense turns them.
    best = max(aucs, key=lambda label: abs((aucs[label].value or 0.0) - 0.5), default=None)
    return Tried(
        name=name,
        stage=stage,
        settings=settings,
        accuracy=_measure_accuracy(target, data, config),
        attack=best,
        auc=aucs[best] if best else None,
        same_attack_auc=aucs.get(strongest or best or ""),
        worked=len(aucs),
        denied=tuple(denied),
    )


def _measure_accuracy(target: Target, data: TrialData, config: AssessConfig) -> Measurement:
    cache = config.cache or cache_folder()
    signals = collect(target, data.dataset, data.splits.non_members, cache=cache)
    correct = int(np.count_nonzero(signals.correct))
    return rates.rate("test_accuracy", correct, len(signals), direction=Direction.HIGHER, level=config.level)


def _make_context(assessment: Assessment) -> Context:
    config = assessment.config
    return Context(seed=config.seed, cache=config.cache or cache_folder(), device=config.device)
