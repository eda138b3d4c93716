"""Measures what would help: each defense on the owner's model and data, against the assessment's membership attacks.

All numbers are measured, not taken from the literature. Output defenses are tried on the signals that were collected
already. Training defenses are tried by retraining the model according to its model record. A defense is judged on the
records that are most at risk (`securitynet.assessments.worst_records`), not on the average over all of them.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from securitynet.assessments.assessed_target import make_trial_data
from securitynet.assessments.assessment import Assessment
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.defense_trainings import DefenseTrainings
from securitynet.assessments.method_settings import make_method
from securitynet.assessments.private_baseline import CANDIDATES, NoiseCandidate
from securitynet.assessments.run_trial import ReportProgress, is_full_disk
from securitynet.assessments.worst_records import FEWEST_TRAININGS
from securitynet.defenses import DEFENSES
from securitynet.defenses.base import OutputDefense, make_defense
from securitynet.errors import AccessDenied, ConfigurationError, SecurityNetError
from securitynet.files import find_cache_folder, hash_stably
from securitynet.methods.base import Method
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import rates
from securitynet.models.shadows import find_own_architecture
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.signals import collect_signals
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import TrainingDefense
from securitynet.records import Access, Direction, Measurement, ThreatModel
from securitynet.results.document import DefenseEffect, DefenseEffects

logger = logging.getLogger(__name__)

STRONGEST = 3
"""Number of strongest attacks that defenses are tried against, besides the cheap ones."""

LONG_TRAININGS = frozenset({"distillation", "adversarial-regularisation"})
"""Training defenses that train a second network: `standard` leaves them out. DP-SGD takes long too, and is included."""

Rival = tuple[str, Method, ThreatModel]
"""An attack with the name of its trial and its threat model."""


def check_remedies(config: AssessConfig) -> None:
    """Check everything about the defenses to try that can be checked before anything is loaded.

    Raises:
        UnknownName: If a defense does not exist.
        ConfigurationError: If the configuration already puts the target behind a defense.
    """
    if not config.try_defenses:
        return
    choose_defenses(config)
    if 0 < config.defense_trainings < FEWEST_TRAININGS:
        raise ConfigurationError(
            f"{config.defense_trainings} trainings with each defense are too few to attack one with the others.",
            hint=f"Set --defense-trainings to {FEWEST_TRAININGS} or more, or to 0 to measure averages only.",
        )
    if config.defense is not None:
        raise ConfigurationError(
            f"--try-defenses starts from the undefended model, but --defense {config.defense} changes it.",
            hint="Leave one of them out.",
        )


def choose_defenses(config: AssessConfig) -> list[tuple[str, dict[str, Any]]]:
    """Return the defenses to try, each with its settings.

    ``standard`` is every output defense, and each training defense but `LONG_TRAININGS` in the first of its settings;
    ``all``, ``output``, ``training`` and names take every setting.

    Raises:
        UnknownName: If one does not exist.
        ConfigurationError: If one repairs trained models, which is not tried here.
    """
    chosen: list[tuple[str, dict[str, Any]]] = []
    for name in config.defenses:
        if name in ("all", "standard", "output", "training"):
            for full in DEFENSES:
                sweep, stage = DEFENSES.get(full).sweep, DEFENSES.get(full).stage
                if name == "standard" and stage == "training":
                    sweep = () if full in LONG_TRAININGS else sweep[:1]
                if name in ("all", "standard", stage):
                    chosen += [(full, settings) for settings in sweep]
            continue
        full = DEFENSES.resolve(name).name
        if DEFENSES.get(full).stage == "repair":
            raise ConfigurationError(
                f"{full} removes a backdoor from a trained model; --try-defenses measures other attacks.",
                hint=f"securitynet repair MODEL --dataset D --defense {full}",
            )
        chosen += [(full, settings) for settings in DEFENSES.get(full).sweep]
    return [task for number, task in enumerate(chosen) if task not in chosen[:number]]


def try_defenses(assessment: Assessment, report_progress: ReportProgress | None = None) -> DefenseEffects:
    """Attack the target behind each output defense, and models trained with each training defense.

    The attacks are the strongest membership attacks of the assessment and all that need no more than one pass. For
    output defenses, attacks that need the model itself do not count: they do not stop anyone who has the weights.
    """
    rivals, notes = _rank_attacks(assessment), []
    if not rivals:
        notes.append("No membership attack was run that defenses could be tried against.")
    tasks = choose_defenses(assessment.config) if rivals else []
    training = [task for task in tasks if DEFENSES.get(task[0]).stage == "training"]
    obstacle = _find_obstacle_to_training(assessment)
    if training and obstacle:
        notes.append(f"Training defenses were not tried: {obstacle}.")
        tasks = [task for task in tasks if task not in training]
        training = []
    worst = _plan_worst_case(assessment, rivals, obstacle, notes, report_progress) if tasks else None
    _state_cost(assessment, training, worst, notes)
    if any(task not in training for task in tasks):
        notes.append("Output defenses do not stop anyone who has the weights.")
    undefended = _attack_target("none", "none", {}, *_get_target(assessment), rivals, assessment)
    if worst is not None:
        undefended = _add_worst_case(undefended, worst, None, notes)
        worst = worst if undefended.worst is not None else None
    asking = [rival for rival in rivals if rival[2].access is not Access.WHITE_BOX]
    if any(task not in training for task in tasks) and len(asking) < len(rivals):
        notes.append(
            "For output defenses, attacks that need the model itself do not count, with the defense or without it: the "
            "AUC is compared with that of the strongest other attack on the undefended model."
        )
        answering = _attack_target("none", "output", {}, *_get_target(assessment), rivals, assessment).auc
    else:
        answering = undefended.auc
    tried = []
    total = len(tasks) + (worst is not None)
    if worst is not None:
        tried.append(_try_private_baseline(worst, rivals, undefended, assessment, notes))
    for number, (name, settings) in enumerate(tasks, start=len(tried)):
        if report_progress:
            report_progress("trying defenses", number, total)
        outcome = _try_defense(name, settings, rivals, undefended, assessment, worst, notes)
        tried.append(outcome.model_copy(update={"against": answering if outcome.stage == "output" else undefended.auc}))
    if report_progress and tasks:
        report_progress("trying defenses", total, total)
    return DefenseEffects(
        undefended=undefended, tried=tuple(tried), attacks=tuple(name for name, _, _ in rivals), notes=tuple(notes)
    )


def _plan_worst_case(
    assessment: Assessment,
    rivals: list[Rival],
    obstacle: str | None,
    notes: list[str],
    report_progress: ReportProgress | None,
) -> DefenseTrainings | None:
    """Prepare the trainings for the worst records; None, with a note, if they are impossible or not wanted."""
    wanted = assessment.config.defense_trainings
    reason = f"{obstacle}, so the model cannot be trained again" if obstacle else None
    if wanted == 0:
        reason = "--defense-trainings is 0"
    if reason is None:
        try:
            return DefenseTrainings.plan(assessment, rivals[0][0], report_progress)
        except SecurityNetError as error:
            reason = error.message.rstrip(".")
    notes.append(
        f"The records that are most at risk were not measured: {reason}. An average over all records does not show "
        "whether a defense helps them."
    )
    return None


def _state_cost(assessment: Assessment, training: list[Any], worst: DefenseTrainings | None, notes: list[str]) -> None:
    """State before any training how many there are and how long they take."""
    trained = assessment.assessed_target.trained
    repeats = assessment.config.defense_trainings if worst is not None else 0
    plain = repeats + len(training) * (1 + repeats)
    private = CANDIDATES + 1 + repeats if worst is not None else 0
    if plain + private == 0 or trained is None:
        return
    words = (
        f"{plain + private} trainings of up to {trained.recipe.epochs} epochs, each about "
        f"{trained.history.seconds:.0f} seconds as the model itself took"
    )
    slow = {name for name, _ in training} & {"dp-sgd", *LONG_TRAININGS}
    if longer := sorted(slow | ({"dp-sgd"} if private else set())):
        words += f"; {' and '.join(longer)} several times as long"
    logger.warning(
        "Trying defenses takes %s. Finished trainings are kept if it is interrupted; --defense-trainings and "
        "--defenses reduce their number.",
        words,
    )
    notes.append(f"Trying defenses took {words}.")


def _add_worst_case(
    effect: DefenseEffect,
    worst: DefenseTrainings,
    defense: OutputDefense | TrainingDefense | None,
    notes: list[str],
    recipe: Recipe | None = None,
) -> DefenseEffect:
    """Add the risk of the worst records to an effect; a failure is noted and affects nothing else."""
    try:
        return effect.model_copy(update={"worst": worst.measure(defense, recipe)})
    except Exception as error:  # what the average shows must not be lost
        if is_full_disk(error):
            raise
        what = "the model without a defense" if defense is None else effect.name
        notes.append(f"The records that are most at risk were not measured for {what}: {_explain(error)}")
        return effect


def _try_private_baseline(
    worst: DefenseTrainings, rivals: list[Rival], undefended: DefenseEffect, assessment: Assessment, notes: list[str]
) -> DefenseEffect:
    """Try DP-SGD tuned for utility, which every other defense is compared with."""
    try:
        chosen = worst.tune_private_baseline()
    except SecurityNetError as error:
        notes.append("There is no comparison with DP-SGD tuned for utility, which a defense has to beat.")
        return DefenseEffect(name="dp-sgd", stage="training", baseline=True, reason=error.message)
    settings = {"noise_multiplier": chosen.defense.noise_multiplier}
    notes.append(
        f"DP-SGD was tuned for utility on members that it was not trained on: of {CANDIDATES} settings, noise "
        f"multiplier {chosen.defense.noise_multiplier:g} with learning rate {chosen.recipe.learning_rate:g} was chosen."
    )
    outcome = _try_defense("dp-sgd", settings, rivals, undefended, assessment, worst, notes, chosen)
    return outcome.model_copy(update={"baseline": True, "against": undefended.auc})


def _get_target(assessment: Assessment) -> tuple[Target, TrialData]:
    assessed = assessment.assessed_target
    return assessed.target, make_trial_data(assessed)


def _rank_attacks(assessment: Assessment) -> list[Rival]:
    """Return the attacks that defenses are tried against, the strongest first."""
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
    ranked.sort(key=lambda item: -abs(item[0] - 0.5))  # an adversary who knows that scores are inverted reverses them
    return [rival for place, (_, cheap, rival) in enumerate(ranked) if cheap or place < STRONGEST]


def _find_obstacle_to_training(assessment: Assessment) -> str | None:
    assessed = assessment.assessed_target
    if assessed.trained is None:
        return "there is no model record beside the weights (securitynet train writes one)"
    if assessed.trained.defense is not None:
        return f"the model was trained with {assessed.trained.defense.name} already"
    if assessed.dataset.images is None:
        return "there are no images"
    return None


def _try_defense(
    name: str,
    settings: dict[str, Any],
    rivals: list[Rival],
    undefended: DefenseEffect,
    assessment: Assessment,
    worst: DefenseTrainings | None,
    notes: list[str],
    tuned: NoiseCandidate | None = None,
) -> DefenseEffect:
    started = time.perf_counter()
    defense = make_defense(name, settings)
    stage = defense.stage
    try:
        if isinstance(defense, OutputDefense):
            target, data = _get_target(assessment)
            target = target.through(defense.interface(target, data, _make_context(assessment)))
            outcome = _attack_target(name, stage, settings, target, data, rivals, assessment, undefended.attack)
        else:
            assert isinstance(defense, TrainingDefense)  # `choose_defenses` refuses repairs
            target, data = _train_again(defense, assessment, tuned.recipe if tuned else None)
            outcome = _attack_target(name, stage, settings, target, data, rivals, assessment, undefended.attack)
            spent = data.trained.defense if data.trained else None
            if spent is not None and spent.privacy is not None:
                outcome = outcome.model_copy(update={"epsilon": spent.privacy.epsilon})
        if worst is not None:
            outcome = _add_worst_case(outcome, worst, defense, notes, tuned.recipe if tuned else None)
    except Exception as error:  # a defense that fails must not affect the others
        if is_full_disk(error):
            raise
        return DefenseEffect(name=name, stage=stage, settings=settings, reason=_explain(error))
    return outcome.model_copy(update={"seconds": round(time.perf_counter() - started, 3)})


def _explain(error: Exception) -> str:
    """Why something could not be tried, for the reader; a fault of this package is logged as well."""
    if isinstance(error, SecurityNetError):
        return error.message
    logger.error("A defense could not be tried.", exc_info=error)
    return f"{type(error).__name__}: {error}"


def _train_again(
    defense: TrainingDefense, assessment: Assessment, recipe: Recipe | None = None
) -> tuple[Target, TrialData]:
    """Train the model with a defense, or load it from the cache; return it with the data that names its members."""
    assessed, config = assessment.assessed_target, assessment.config
    trained = assessed.trained
    assert trained is not None  # there was no obstacle
    architecture = find_own_architecture(assessed.target, trained)
    assert architecture is not None  # the record names one
    stated = trained.split
    # A poor recipe would understate the defense.
    recipe = recipe or trained.recipe.model_copy(update=defense.advised({}))
    identity = {
        "version": 1,
        "defense": defense.make_record().model_dump(mode="json"),
        "architecture": architecture.name,
        **({"architecture_version": architecture.version} if architecture.version else {}),
        "recipe": recipe.model_dump(mode="json"),
        "dataset": assessed.dataset.fingerprint,
        "split": [stated.protocol, stated.seed, stated.known],
    }
    out = (config.cache or find_cache_folder()) / "defended" / hash_stably(identity) / "model.safetensors"
    target = train_target(
        architecture.reference,
        assessed.dataset,
        recipe=recipe,
        split=stated.protocol,
        split_seed=stated.seed,
        known=stated.known,
        out=out,
        device=config.device,
        defense=defense,
        note=logger.debug,  # a resumed assessment would say of each training that it is complete
    )
    again = read_target_record(out)
    assert again is not None  # just written
    splits = restore_splits(again, assessed.dataset, known=config.known)
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
) -> DefenseEffect:
    """Run the attacks on a target behind or trained with a defense."""
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
    # Inverted scores reveal as much: an adversary who knows the defense reverses them.
    best = max(aucs, key=lambda label: abs((aucs[label].value or 0.0) - 0.5), default=None)
    return DefenseEffect(
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
    cache = config.cache or find_cache_folder()
    signals = collect_signals(target, data.dataset, data.splits.non_members, cache=cache)
    correct = int(np.count_nonzero(signals.correct))
    return rates.rate("test_accuracy", correct, len(signals), direction=Direction.HIGHER, level=config.level)


def _make_context(assessment: Assessment) -> Context:
    config = assessment.config
    return Context(seed=config.seed, cache=config.cache or find_cache_folder(), device=config.device)
