"""The target of an assessment, with its dataset and the members of its training set, checked before work starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import securitynet.datasets
from securitynet.assessments.backdoor import make_backdoor_of
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.output_defense import check_output_defense, defend
from securitynet.assessments.training_defense import recreate_defense
from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.members import with_members
from securitynet.datasets.options import load_options
from securitynet.datasets.pipelines import InputTransform
from securitynet.datasets.splits import Splits
from securitynet.errors import ConfigurationError
from securitynet.files import expand_home, find_cache_folder
from securitynet.methods.data import TrialData
from securitynet.models.loading.examination import examine, require_constant
from securitynet.models.loading.load import load_target
from securitynet.models.sources.references import parse_reference
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.store.record_files import read_target_record
from securitynet.models.targets.backends.recorded import RecordedBackend
from securitynet.models.targets.target import Target
from securitynet.models.training.trainable import find_architecture

if TYPE_CHECKING:
    from securitynet.models.targets.signals import Progress


@dataclass(frozen=True, eq=False)
class AssessedTarget:
    """A target with its data.

    Attributes:
        target: The target.
        dataset: Its dataset.
        splits: Members, non-members and the adversary's knowledge of them.
        split_seed: Seed of the splits.
        membership: ``known`` from the model record, from a recording or from the user; ``assumed`` if the training part
            of the dataset is taken for the members.
        trained: The target's model record, if there is one.
        auxiliary: The dataset of adversaries with out-of-distribution data; None if none was named.
    """

    target: Target
    dataset: ImageDataset
    splits: Splits
    split_seed: int
    membership: Literal["known", "assumed"]
    trained: TargetRecord | None = None
    auxiliary: ImageDataset | None = None


def make_trial_data(assessed: AssessedTarget) -> TrialData:
    """Collect the data of trials: dataset, splits, and how the target was trained: backdoor and defense included.

    Raises:
        SecurityNetError: See `make_backdoor_of`.
    """
    return TrialData(
        assessed.dataset,
        assessed.splits,
        assessed.trained,
        assessed.auxiliary,
        make_backdoor_of(assessed.trained),
        recreate_defense(assessed.trained),
    )


def prepare(
    config: AssessConfig,
    progress: Progress | None = None,
    *,
    model: Any = None,
    target: Target | None = None,
    dataset: ImageDataset | None = None,
    transform: InputTransform | None = None,
    auxiliary: ImageDataset | None = None,
    checksum: str | None = None,
) -> AssessedTarget:
    """Load dataset and target, unless they are given, and make the split.

    Args:
        config: The configuration.
        progress: Called while weights are downloaded.
        model: A network or a callable, instead of the reference in the configuration.
        target: The target, if it is loaded already.
        dataset: The dataset, if it is loaded already.
        transform: The preprocessing that the dataset's own transforms state.
        auxiliary: The dataset of adversaries with out-of-distribution data, if it is loaded already.
        checksum: Digest that the weights must have; by default the catalog's, for ``catalog:`` references.

    Raises:
        SecurityNetError: If something in the configuration is wrong, before any long work.
    """
    check_output_defense(config)
    check_members(config)
    if config.architecture is not None:
        find_architecture(config.architecture)  # says what is wrong with it before anything is loaded
    if target is not None:
        recorded = isinstance(target.backend, RecordedBackend)
    else:
        recorded = model is None and parse_reference(config.model).declaration.recorded
    if config.dataset is None and dataset is None and not recorded:
        raise ConfigurationError(
            "No dataset is given to assess the model on.",
            hint="Give --dataset: a name from `securitynet list datasets`, folder:PATH or parquet:PATH.",
        )
    weights = None if config.weights is None else expand_home(config.weights)
    trained = read_target_record(weights) if weights else None
    if dataset is None and config.dataset is not None:
        dataset = securitynet.datasets.load(
            config.dataset, **load_options(config), cache=config.cache or find_cache_folder()
        )
    elif dataset is not None and not dataset.members_stated:
        dataset = state_members(config, dataset)
    if target is None:
        target = _load_target(config, model, weights, dataset, progress, transform, checksum)
    elif config.access is not None:
        target = target.under(config.access)
    if config.architecture is not None:
        target.backend.architecture = find_architecture(config.architecture).reference
    if isinstance(target.backend, RecordedBackend):
        dataset = dataset or state_members(config, target.backend.dataset())
    assert dataset is not None  # checked above
    if trained is None and target.backend.weights is not None:  # the file of a catalog's entry
        trained = read_target_record(target.backend.weights)
    target = examine(target, dataset, allow_random=config.allow_random)
    require_constant(target, allow_random=config.allow_random)
    made, seed, membership = choose_split(config, dataset, trained, recorded)
    if trained is not None and membership == "assumed" and trained.dataset.fingerprint == dataset.fingerprint:
        _warn_of_ignored_record(target, trained, config)
    auxiliary = load_auxiliary(config, dataset, auxiliary)
    return AssessedTarget(defend(config, target, dataset, made), dataset, made, seed, membership, trained, auxiliary)


def _load_target(
    config: AssessConfig,
    model: Any,
    weights: Path | None,
    dataset: ImageDataset | None,
    progress: Progress | None,
    transform: InputTransform | None,
    checksum: str | None,
) -> Target:
    """Load the target of a configuration, or make one of a network or a callable that is given."""
    return load_target(
        config.model if model is None else model,
        weights=weights,
        dataset=dataset,
        normalize=config.normalize,
        input_size=config.input_size,
        head=config.head,
        num_classes=config.num_classes,
        weight_set=config.weight_set,
        allow_random=config.allow_random,
        access=config.access,
        device=config.device,
        precision=config.precision,
        batch_size=config.batch_size,
        max_queries=config.max_queries,
        timeout=config.timeout,
        retries=config.retries,
        output=config.output,
        trust=config.trust,
        cache=config.cache or find_cache_folder(),
        progress=progress,
        transform=transform,
        checksum=checksum,
    )


def _warn_of_ignored_record(target: Target, trained: TargetRecord, config: AssessConfig) -> None:
    """Note on the target that ``--split`` sets aside what its record knows about its members."""
    warning = (
        f"WARNING: the model's record states which records trained it (split {trained.split.protocol}); with "
        f"--split {config.split}, others are taken for members. Leave --split out."
    )
    if warning not in target.notes:  # a target that was given may have been assessed before
        target.notes += (warning,)


def state_members(config: AssessConfig, dataset: ImageDataset) -> ImageDataset:
    """Return a loaded dataset with the members that the configuration states, if any.

    Raises:
        DatasetError: If the dataset does not contain these records.
    """
    if config.members is None:
        return dataset
    return with_members(dataset, config.members, config.non_members)


def check_members(config: AssessConfig) -> None:
    """Raise `ConfigurationError` if the options about membership contradict each other."""
    if config.members is None and config.non_members is not None:
        raise ConfigurationError("--non-members lists the non-members; --members must list the members.")
    if config.members is not None and config.split == "four-way":
        raise ConfigurationError(
            "--members lists the members, whereas --split four-way draws them at random.", hint="Leave one of them out."
        )


def load_auxiliary(
    config: AssessConfig, dataset: ImageDataset, given: ImageDataset | None = None
) -> ImageDataset | None:
    """Load the out-of-distribution dataset in the shape of the target's images; None if there is none.

    Args:
        config: Names it.
        dataset: The target's.
        given: It, where it has been loaded already.

    Raises:
        ConfigurationError: If it is the target's own dataset, or the target's dataset has no images.
    """
    if given is None and config.auxiliary_dataset is None:
        return None
    if dataset.images is None:
        raise ConfigurationError(
            "Recorded outputs cannot be queried with other images, so --auxiliary-dataset cannot be used."
        )
    channels, height, width = dataset.image_shape
    if given is not None:
        _check_shape(given, dataset)
        return _check_other(given, dataset)
    assert config.auxiliary_dataset is not None  # returned above
    auxiliary = securitynet.datasets.load(
        config.auxiliary_dataset,
        channels=3 if channels == 3 else 1,
        size=height if height == width else None,  # datasets are resized to squares only
        limit=config.limit,
        root=config.data_root,
        cache=config.cache or find_cache_folder(),
    )
    _check_shape(auxiliary, dataset)
    return _check_other(auxiliary, dataset)


def _check_shape(auxiliary: ImageDataset, dataset: ImageDataset) -> None:
    if auxiliary.image_shape != dataset.image_shape:
        shapes = ["×".join(map(str, one.image_shape)) for one in (auxiliary, dataset)]
        raise ConfigurationError(
            f"The images of auxiliary_dataset are {shapes[0]}, those of {dataset.reference} {shapes[1]}.",
            hint="Bring them to the same shape.",
        )


def _check_other(auxiliary: ImageDataset, dataset: ImageDataset) -> ImageDataset:
    if auxiliary.fingerprint == dataset.fingerprint:
        raise ConfigurationError(
            "--auxiliary-dataset is the dataset of the target itself.", hint="Name one of other images."
        )
    return auxiliary


def choose_split(
    config: AssessConfig, dataset: ImageDataset, trained: TargetRecord | None, recorded: bool
) -> tuple[Splits, int, Literal["known", "assumed"]]:
    """Return the splits, their seed, and how well membership is known.

    Args:
        config: The configuration.
        dataset: The dataset.
        trained: Model record of the target, if there is one.
        recorded: Membership stated by a file of recorded outputs, if there is one.

    Raises:
        SplitError: If the model was trained on another dataset, or the dataset cannot be split in this way.
    """
    if dataset.members_stated:
        made = splits.make("public", dataset, seed=config.split_seed, known=config.known)
        return made, config.split_seed, "known"
    if config.split == "auto" and trained is not None:
        return restore_splits(trained, dataset, known=config.known), trained.split.seed, "known"
    protocol = "public" if config.split == "auto" else config.split
    made = splits.make(protocol, dataset, seed=config.split_seed, known=config.known)
    of_record = trained is not None and trained.split.fingerprint == made.fingerprint
    return made, config.split_seed, "known" if recorded or of_record else "assumed"
