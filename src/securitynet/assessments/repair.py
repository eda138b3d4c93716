"""`repair_model`: remove a backdoor from a trained model, measure what it cost, and search the result again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import securitynet.datasets
from securitynet.assessments.backdoor import make_backdoor_of
from securitynet.assessments.repair_config import RepairConfig
from securitynet.assessments.repaired_model import is_unfinished, save_repaired_model
from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.options import load_options
from securitynet.datasets.ordering import shuffle
from securitynet.datasets.splits import Splits
from securitynet.defenses._repair import ReconstructedTrigger, RepairTask
from securitynet.defenses.base import RepairDefense, make_repair, parse_defense_settings
from securitynet.detectors import DETECTORS
from securitynet.detectors.base import Detector
from securitynet.devices import resolve_device
from securitynet.errors import ConfigurationError, SplitError
from securitynet.files import find_cache_folder
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.loading.examination import require_constant
from securitynet.models.loading.load import load_target
from securitynet.models.loading.open import build_trainable_network
from securitynet.models.sources.references import parse_reference
from securitynet.models.sources.weights import state_checksum
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.store.record_files import check_path, locate_model_record, read_target_record
from securitynet.models.store.repair_record import RepairOutcome, RepairRecord, RepairScan
from securitynet.models.targets.backends.base import LoadOptions
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.models.training.poisoned_dataset import TrainingBackdoor
from securitynet.records import Access

SCAN = "neural-cleanse"
"""Detector that reconstructs triggers."""

MOST_IMAGES = 5000
"""Most images that a repair uses by default."""

FEWEST_JUDGED = 20
"""Smallest number of held-out images from which accuracy and attack success are measured."""

ReportProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class RepairResult:
    """A repaired model.

    Attributes:
        weights: The weights file.
        record: What was done and measured.
    """

    weights: Path
    record: RepairRecord


@dataclass(frozen=True, eq=False)
class _Judge:
    """Measures a model before and after the repair, on images that the repair does not use."""

    dataset: ImageDataset
    parts: Splits
    backdoor: TrainingBackdoor | None
    detector: Detector | None
    config: RepairConfig
    report_progress: ReportProgress

    def measure(self, target: Target, scanned: Any, trigger: ReconstructedTrigger | None) -> RepairOutcome:
        """Measure accuracy and attack success on held-out images, and add the result of the scan."""
        rows = self.parts.scored_non_members
        labels = self.dataset.labels[rows]
        accuracy = float((self._predict(target, self.dataset.batch(rows)) == labels).mean())
        success, tried = None, 0
        if self.backdoor is not None:
            shown = self.backdoor.triggered(self.dataset, rows)
            if tried := len(shown.indices):
                predicted = self._predict(target, shown.images[torch.from_numpy(shown.indices)])
                success = float((predicted == shown.goals).mean())
        reconstructed = None
        others = np.zeros(0, np.int64) if trigger is None else rows[labels != trigger.label]
        if trigger is not None and len(others):
            images = trigger.apply(self.dataset.batch(others).float() / 255)
            reconstructed = float((self._predict(target, images) == trigger.label).mean())
        return RepairOutcome(
            accuracy=accuracy,
            records=len(rows),
            success=success,
            tried=tried,
            reconstructed=reconstructed,
            scan=None if scanned is None else _describe_scan(scanned),
        )

    def scan(self, target: Target, what: str) -> Any:
        """Search a model for triggers; None if the scan is left out."""
        if self.detector is None:
            return None
        context = Context(
            seed=self.config.seed,
            cache=self.config.cache or find_cache_folder(),
            device=self.config.device,
            progress=lambda done, total: self.report_progress(what, done, total),
        )
        data = TrialData(self.dataset, self.parts)
        return self.detector(target, data, context, self.detector.threat_models[0])

    def _predict(self, target: Target, images: torch.Tensor) -> NDArray[np.int64]:
        parts = [target.labels(part) for part in torch.split(images, target.batch_size)]
        return np.asarray(torch.cat(parts).numpy())


def repair_model(config: RepairConfig, report_progress: ReportProgress | None = None) -> RepairResult:
    """Apply defenses to a trained model and write the repaired weights.

    Half of the records on which the model was not trained repair it; accuracy and attack success are measured on the
    others. Training records are not used, because they may be poisoned.

    Args:
        config: The configuration.
        report_progress: Called with (what, done, total).

    Returns:
        The weights file and the measurements.

    Raises:
        SecurityNetError: If something in the configuration is wrong, before any long work; if a defense does not apply
            to the network, or diverges.
    """
    report_progress = report_progress or (lambda what, done, total: None)
    defenses, detector = make_defenses(config)
    reference = parse_reference(config.model)
    if not reference.is_network:
        raise ConfigurationError(
            f"{config.model} gives outputs only: it has no weights that could be changed.",
            hint="Name the network, such as arch:simple-cnn with --weights FILE.",
        )
    if config.dataset is None:
        raise ConfigurationError("Clean images are needed for the repair.", hint="Give --dataset.")
    out = choose_out(config)
    device = resolve_device(config.device)
    trained = read_target_record(config.weights) if config.weights else None
    dataset = securitynet.datasets.load(
        config.dataset, **load_options(config), cache=config.cache or find_cache_folder()
    )
    parts, foreign = choose_repair_records(config, dataset, trained)
    target, network = _load_twice(config, dataset)
    judge = _Judge(dataset, parts, make_backdoor_of(trained), detector, config, report_progress)
    scanned = judge.scan(target, "searching for triggers")
    triggers = read_triggers(scanned)
    smallest = triggers[0] if triggers else None
    before = judge.measure(target, scanned, smallest)
    rows = parts.known_non_members
    task = RepairTask(
        network,
        dataset.batch(rows),
        torch.from_numpy(dataset.labels[rows]),
        triggers,
        target.preprocessing,
        target.head,
        config.seed,
    )
    notes = [*target.notes, *_apply_defenses(defenses, task, report_progress)]
    repaired = make_repaired_target(network, target, dataset, device)
    after = judge.measure(repaired, judge.scan(repaired, "searching again"), smallest)
    used = int(np.isin(rows, foreign).sum())
    if used:
        notes.append(f"The repair used {used} non-members of the split; later attacks must not count them as such.")
    record = RepairRecord(
        defenses=tuple(defense.name for defense in defenses),
        settings=tuple(defense.model_dump(mode="json") for defense in defenses),
        source=target.backend.checksum,
        images=len(rows),
        non_members=used,
        seed=config.seed,
        before=before,
        after=after,
        notes=tuple(notes),
    )
    save_repaired_model(out, network, record, target, trained)
    return RepairResult(out, record)


def _load_twice(config: RepairConfig, dataset: ImageDataset) -> tuple[Target, nn.Module]:
    """Load the model as the target that is measured, and as the network that is changed."""
    target = load_target(
        config.model,
        weights=config.weights,
        dataset=dataset,
        normalize=config.normalize,
        input_size=config.input_size,
        num_classes=config.num_classes,
        weight_set=config.weight_set,
        access=Access.WHITE_BOX,
        device=config.device,
        cache=config.cache,
    )
    require_constant(target, allow_random=False)
    options = LoadOptions(
        device=resolve_device(config.device),
        weights=config.weights,
        input_size=config.input_size,
        num_classes=config.num_classes,
        weight_set=config.weight_set,
        expected_classes=dataset.num_classes,
    )
    return target, build_trainable_network(parse_reference(config.model), options, dataset)


def _apply_defenses(
    defenses: Sequence[RepairDefense], task: RepairTask, report_progress: ReportProgress
) -> Iterator[str]:
    """Apply defenses one after the other to the network of a task; yields their notes."""
    task = replace(task, kept=task.accuracy_to_keep())
    for defense in defenses:
        if defense.needs_triggers and not task.triggers and len(defenses) > 1:
            yield f"{defense.name} was left out: no trigger could be reconstructed from the model."
            continue
        yield from defense.repair(replace(task, report_progress=partial(report_progress, defense.name)))


def make_defenses(config: RepairConfig) -> tuple[list[RepairDefense], Detector | None]:
    """Create the defenses and the search for triggers from a configuration.

    Raises:
        UnknownName: If a defense does not exist.
        ConfigurationError: If one does not repair models, a setting is wrong or belongs to nothing in use, or a defense
            needs the search that is left out.
    """
    named: dict[str, list[str]] = {}
    for text in config.configure:
        named.setdefault(text.partition("=")[0].strip().rpartition(".")[0], []).append(text)
    defenses = []
    for name in config.defense:
        made = make_repair(name, {})
        texts = named.pop(made.name, [])
        defenses.append(make_repair(name, parse_defense_settings(made.name, texts)) if texts else made)
    texts = named.pop(SCAN, [])
    if named:
        raise ConfigurationError(
            f"--configure sets {next(iter(named)) or next(iter(named.values()))[0]}, which is not in use.",
            hint=f"In use are {', '.join([*(defense.name for defense in defenses), SCAN])}.",
        )
    if not config.scan:
        if any(defense.needs_triggers for defense in defenses) and len(defenses) == 1:
            raise ConfigurationError(
                f"{defenses[0].name} needs the triggers that the search finds.", hint="Leave --no-scan out."
            )
        return defenses, None
    settings = parse_defense_settings(SCAN, texts)
    cls: type[Detector] = DETECTORS.get(SCAN)
    unknown = set(settings) - set(cls.model_fields)
    if unknown:
        raise ConfigurationError(
            f"{SCAN} has no setting {min(unknown)}.", hint=f"Its fields: {', '.join(cls.model_fields)}."
        )
    return defenses, cls(**settings)


def choose_out(config: RepairConfig) -> Path:
    """Choose the file to write, and check that it may be written.

    Raises:
        ConfigurationError: If the file exists, or is the one to repair.
        ModelError: If its name does not end in ``.safetensors``.
    """
    if config.out is None:
        name = config.weights.stem if config.weights else re.sub(r"\W+", "-", config.model).strip("-")
        out = (config.weights.parent if config.weights else Path()) / f"{name}-repaired.safetensors"
    else:
        out = config.out
    check_path(out)
    if config.weights is not None and out.resolve() == config.weights.resolve():
        raise ConfigurationError(f"{out} is the file to repair; it is not overwritten.", hint="Choose another --out.")
    if not config.overwrite and (out.exists() or locate_model_record(out).exists()) and not is_unfinished(out):
        raise ConfigurationError(f"{out} exists already.", hint="Choose another --out, or pass --overwrite.")
    return out


def choose_repair_records(
    config: RepairConfig, dataset: ImageDataset, trained: TargetRecord | None
) -> tuple[Splits, NDArray[np.int64]]:
    """Choose the images that repair the model, and those that judge it.

    Args:
        config: The configuration.
        dataset: The dataset.
        trained: Model record, if there is one.

    Returns:
        Splits whose ``known_non_members`` repair the model and whose ``scored_non_members`` judge it; and the
        non-members of the original split.

    Raises:
        SplitError: If there are too few images.
    """
    if dataset.images is None:
        raise ConfigurationError(f"{dataset.reference} holds recorded outputs and no images.")
    if trained is not None:
        made = restore_splits(trained, dataset, known=config.known)
    else:
        made = splits.make("public", dataset, seed=config.seed, known=config.known)
    shadow = np.union1d(made.shadow_train, made.shadow_test)
    use_shadow = len(shadow) > 0 and config.known is None
    clean = shadow if use_shadow else made.known_non_members
    # More images than the training had would say little about the repair: training anew would do as well.
    most = config.images or (MOST_IMAGES if trained is None else min(MOST_IMAGES, len(made.members)))
    clean = np.sort(clean[shuffle(len(clean), "repair", config.seed)[:most]])
    judged = np.setdiff1d(made.non_members, clean)
    if not use_shadow:
        judged = np.setdiff1d(judged, made.known_non_members)
    if len(clean) < 20 or len(judged) < FEWEST_JUDGED:
        raise SplitError(
            f"There are {len(clean)} clean images for the repair and {len(judged)} others to judge it; at least 20 and "
            f"{FEWEST_JUDGED} are needed.",
            hint="Load more records (--limit), or another share (--known).",
        )
    used = replace(made, non_members=np.union1d(clean, judged), known_non_members=clean)
    return used, made.non_members


def read_triggers(scanned: Any) -> tuple[ReconstructedTrigger, ...]:
    """The triggers that a search found to work of the classes that it accuses, or of the one with the smallest.

    Those of the other classes are features of the class: to unlearn them costs accuracy.
    """
    if scanned is None or not np.isfinite(scanned.norms).any():
        return ()
    accused = scanned.flagged or scanned.suspects or [int(scanned.norms.argmin())]
    return tuple(
        ReconstructedTrigger(
            int(scanned.labels[position]), torch.from_numpy(mask).float() / 255, torch.from_numpy(pattern).float() / 255
        )
        for position, mask, pattern in zip(scanned.pictured.tolist(), scanned.masks, scanned.patterns, strict=True)
        if position in accused and np.isfinite(scanned.norms[position])
    )


def _describe_scan(scanned: Any) -> RepairScan:
    norms = scanned.norms
    if not np.isfinite(norms).any():
        return RepairScan(label=None, norm=None, median=None)
    lowest = int(norms.argmin())
    return RepairScan(
        label=int(scanned.labels[lowest]),
        norm=float(norms[lowest]),
        median=float(np.median(norms[np.isfinite(norms)])),
        flagged=tuple(int(scanned.labels[position]) for position in scanned.flagged),
    )


def make_repaired_target(network: nn.Module, original: Target, dataset: ImageDataset, device: torch.device) -> Target:
    """Make a target of the repaired network, which is queried as the original one is.

    Args:
        network: The repaired network.
        original: The target before the repair.
        dataset: The dataset.
        device: Where the network runs.
    """
    channels, *size = dataset.image_shape
    height, width = original.preprocessing.input_size or size
    backend = ModuleBackend(
        network,
        reference=original.reference,
        checksum=state_checksum(network.state_dict(), "repaired"),
        example_shape=(channels, height, width),
        device=device,
    )
    return Target(backend, head=original.head, preprocessing=original.preprocessing, access=Access.WHITE_BOX)
