"""`assess`: from a model and its data to trial files, ``result.json`` and ``report.html``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from securitynet.assessments import assess as assessment
from securitynet.assessments import policy
from securitynet.assessments.assessed_target import AssessedTarget, check_members, prepare
from securitynet.assessments.comparison import StoredResult, compare_results, read_result
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.given import GivenData, name_given_architecture, prepare_given
from securitynet.assessments.options import check_option_names
from securitynet.assessments.records import write_records
from securitynet.assessments.result import to_document
from securitynet.assessments.run_trial import ReportProgress, name_phase
from securitynet.assessments.trial_plan import list_requested
from securitynet.assessments.what_helps import check_remedies
from securitynet.catalog.location import using
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.given import load_given
from securitynet.datasets.loading import load
from securitynet.errors import ConfigurationError, PolicyError
from securitynet.files import add_digest, check_writable, find_data_folder, hash_stably, write_json
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.plugins import load_plugin
from securitynet.reports.build import write_report
from securitynet.reports.grades import add_grades
from securitynet.reports.outcome import Outcome
from securitynet.results.redaction import redact_document
from securitynet.results.store import TrialStore
from securitynet.results.trackers import check_trackers, log_result


def assess(
    model: str | os.PathLike[str] | nn.Module | Callable[[torch.Tensor], Any] | Target | AssessConfig,
    train: Any = None,
    test: Any = None,
    *,
    members: Any = None,
    non_members: Any = None,
    architecture: str | nn.Module | Callable[..., nn.Module] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: ReportProgress | None = None,
    **options: Any,
) -> Outcome:
    """Assess one model with all applicable attacks and detectors, write a report, and return the result.

    The transforms of torch datasets are read, not run: Normalize, and Resize and CenterCrop if they enlarge the images,
    become the target's preprocessing, and random augmentation is left out. If no transform states the normalisation,
    the usual ones are tried on a network (``normalize`` states one); a callable receives images in [0, 1]. The model
    itself is never changed.

    Args:
        model: A ``torch.nn.Module`` (white-box), a callable that takes images as a float tensor N×C×H×W and returns
            class scores N×K (black-box), a reference such as ``"timm:resnet18.a1_in1k"``, a loaded target, or a whole
            configuration.
        train: The training data of the model: a torch dataset, a pair (images, labels) of arrays, a Hugging Face
            dataset, a loaded dataset, or a reference such as ``"cifar10"``.
        test: Data that it was not trained on, in the same forms; None if ``train`` holds both parts, or with
            ``members``.
        members: The members, if ``train`` holds all records: a boolean mask, numbers or names of records, or the path
            of a list. All other records are non-members.
        non_members: The non-members, in the same forms; records that are neither are left out.
        architecture: Architecture of shadow models and surrogates: a function or class that builds a network, a
            network, or a reference. By default the target's own, if it is known.
        mean: Mean of the normalisation, one value or one per channel, if the images are normalised already.
        std: Standard deviation of the normalisation, likewise.
        class_names: One per class, if the dataset does not name them.
        out: Folder for ``report.html``, ``result.json``, ``exposed.csv`` and the trial files. Default: one in the
            user's data folder, named after what is assessed. Trials that are finished there are not repeated.
        progress: Called with (what, done, total) during long work.
        **options: Fields of `AssessConfig`, such as ``attacks=["lira"]``, ``detectors``, ``try_defenses``, ``device``,
            ``limit``, ``seed``. ``configure`` may be a nested table, ``{"lira": {"shadows": {"count": 64}}}``, and
            ``auxiliary_dataset`` an object.

    Returns:
        The result: measurements by name, data frames, and a view for notebooks.

    Raises:
        SecurityNetError: If the model, the data or an option is invalid, before long work starts.
    """
    with using(model.db if isinstance(model, AssessConfig) else options.get("db")):
        if isinstance(model, AssessConfig):
            stated = (train, test, members, non_members, architecture, mean, std, class_names, out)
            if options or any(value is not None for value in stated):
                raise ConfigurationError(
                    "With a whole configuration, no dataset, folder or options can be given beside it.",
                    hint="Put them into it.",
                )
            _check_early(model)
            return assess_loaded(model, prepare(model, name_phase(progress, "loading")), progress=progress)
        given = GivenData(train, test, members, non_members, mean, std, class_names)
        config, target = prepare_given(
            model, given, {**options, "architecture": architecture, "out": out}, progress, check=_check_early
        )
        return assess_loaded(config, target, progress=progress)


def load_dataset(train: Any, test: Any = None, **options: Any) -> ImageDataset:
    """Load a dataset, by a reference or from objects, for `assess`, `train` and single attacks.

    Args:
        train: A name (`securitynet.list_datasets`), ``folder:PATH``, ``parquet:PATH``, or an object: a torch dataset, a
            pair (images, labels) of arrays, or a Hugging Face dataset. Also its training part alone.
        test: Its test part, where that is another object or reference.
        **options: For references ``channels``, ``size``, ``resize``, ``crop``, ``root``, ``cache``...: see
            `securitynet.datasets.load`. For objects ``mean``, ``std``, ``class_names``, ``name``: see
            `securitynet.datasets.dataset_from_objects`. For both ``members``, ``non_members`` and ``limit``.

    Returns:
        The images as uint8, labels and parts. The preprocessing that transforms of objects state is not part of it;
        `assess` reads it if it is given the objects themselves.

    Raises:
        SecurityNetError: If there is no such dataset, its content is unusable, or an option makes no sense.
    """
    check_option_names(options, load_given, load)
    return load_given(train, test, **options).dataset


def train(
    architecture: str | nn.Module | Callable[..., nn.Module], train: Any, test: Any = None, **options: Any
) -> Target:
    """Train a target on the members of a split, and record who they were.

    Args:
        architecture: A name (`securitynet.list_architectures`), a reference to another network, a function or class
            that makes one, or a network of which a fresh copy is trained.
        train: The dataset, or its training part; see `load_dataset`.
        test: Its test part, where that is another object.
        **options: See `securitynet.models.store.train_target.train_target`: ``split``, ``epochs`` and other fields of
            the recipe, ``seed``, ``out``, ``defense``, ``backdoor``, ``device``...

    Returns:
        The trained target under white-box access.

    Raises:
        SecurityNetError: If the architecture, the data or an option is invalid.
    """
    check_option_names(options, train_target, Recipe)
    dataset = train if isinstance(train, ImageDataset) and test is None else load_given(train, test).dataset
    return train_target(name_given_architecture(architecture), dataset, **options)


def assess_loaded(config: AssessConfig, target: AssessedTarget, *, progress: ReportProgress | None = None) -> Outcome:
    """Assess a target that has been loaded, and write the report.

    Args:
        config: The configuration that it was loaded with.
        target: The target with its data.
        progress: Called with (what, done, total) during long work.
    """
    started = time.perf_counter()
    bounds = policy.read_policy(config.policy) if config.policy else None
    table = policy.read_grade_bounds(config.policy) if config.policy else None
    earlier = read_result(config.against) if config.against else None  # before the run overwrites it
    folder = config.out or _default_folder(config, target)
    finished = assessment.run_assessment(config, target, TrialStore(folder), progress)
    finished.seconds["wall"] = time.perf_counter() - started
    document = add_grades(to_document(finished), table)
    if earlier is not None:
        names = {int(record): target.dataset.get_record_name(int(record)) for record in finished.signals.indices}
        comparison = compare_results(earlier, StoredResult(document, TrialStore(folder), names, folder))
        document = document.model_copy(update={"comparison": comparison})
    if bounds is not None:
        judged = policy.judge_bounds(bounds, document.measurements, document.comparison)
        document = document.model_copy(update={"policy": judged})
    if config.redact:
        document = redact_document(document)
    write_report([document], [finished], folder / "report.html")
    write_records(finished, folder / "exposed.csv")
    write_json(folder / "result.json", add_digest(document.to_json()))
    log_result(document, folder, config.mlflow, config.wandb)
    return Outcome(document, finished, folder)


def _check_early(config: AssessConfig) -> None:
    """Report all mistakes that can be detected before anything is downloaded, loaded or queried."""
    for plugin in config.plugin:
        load_plugin(plugin)
    if config.policy:
        bounds = policy.read_policy(config.policy)
        if config.against is None and any(bound.on_change for bound in bounds.values()):
            raise PolicyError(
                f"{config.policy} bounds a rise or a fall, and there is nothing to compare with.",
                hint="Add --against and the folder of an earlier result.",
            )
        policy.read_grade_bounds(config.policy)
    if config.against:
        read_result(config.against)
    list_requested(config)
    check_members(config)
    check_remedies(config)
    check_trackers(config.mlflow, config.wandb)
    if config.out is not None:
        check_writable(config.out)


def _default_folder(config: AssessConfig, assessed: AssessedTarget) -> Path:
    identity = hash_stably([assessed.target.identity.model_dump(mode="json"), assessed.dataset.fingerprint], 8)
    words = "".join(c if c.isalnum() or c in "-." else "-" for c in config.model.partition(":")[2] or config.model)
    return find_data_folder() / "assessments" / f"{words.strip('-.')[-40:]}-{identity}"
