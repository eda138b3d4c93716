"""The target of an assessment from models and datasets that are given by reference or as objects."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from securitynet.assessments.assessed_target import AssessedTarget, prepare
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.options import flatten_settings, make_config
from securitynet.assessments.run_trial import ReportProgress, name_phase
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.given import load_given
from securitynet.datasets.in_memory import ObjectData
from securitynet.datasets.options import load_options
from securitynet.datasets.pipelines import InputTransform
from securitynet.errors import ConfigurationError
from securitynet.files import find_cache_folder
from securitynet.models.architectures.in_process import register_factory
from securitynet.models.loading.open_object import describe_object
from securitynet.models.targets.target import Target

_DATA = ("members", "non_members", "mean", "std", "class_names", "architecture")


@dataclass(frozen=True, eq=False)
class GivenData:
    """The data of an assessment; see `securitynet.api.assess`.

    Attributes:
        train: The training data, or the whole dataset.
        test: Data that the model was not trained on; None if it is part of ``train``.
        members: The members, if they are stated.
        non_members: The non-members, likewise.
        mean: Mean of the normalisation, if the images are normalised already.
        std: Standard deviation of the normalisation, likewise.
        class_names: One per class, if they are stated.
    """

    train: Any
    test: Any = None
    members: Any = None
    non_members: Any = None
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    class_names: Sequence[str] | None = None


def prepare_given(
    model: Any,
    given: GivenData,
    options: Mapping[str, Any],
    progress: ReportProgress | None = None,
    *,
    check: Callable[[AssessConfig], object] | None = None,
) -> tuple[AssessConfig, AssessedTarget]:
    """The configuration, and the target with its data.

    Args:
        model: A reference, a loaded target, a network or a callable.
        given: The data.
        options: Fields of `AssessConfig` by name; None stands for the default.
        progress: Called during long work.
        check: Called with the configuration before anything is loaded; raises an error if it is invalid.

    Raises:
        SecurityNetError: If the model, the data or an option is invalid, before any long work.
    """
    values = {name: value for name, value in options.items() if value is not None}
    train = values.pop("dataset", None) if given.train is None else given.train
    auxiliary = values.pop("auxiliary_dataset", None)
    plain = given.test is None and isinstance(train, str | None)
    if isinstance(values.get("configure"), Mapping):
        values["configure"] = flatten_settings(values["configure"])
    for name in ("members", "non_members"):
        if getattr(given, name) is not None:
            values[name] = getattr(given, name)
    if "architecture" in values:
        values["architecture"] = name_given_architecture(values["architecture"])
    values["model"] = _describe(model)
    values["dataset"] = train if plain else None
    if auxiliary is not None:
        values["auxiliary_dataset"] = auxiliary if isinstance(auxiliary, str) else "object:auxiliary"
    if train is None and not isinstance(model, str | os.PathLike | Target):
        raise ConfigurationError(
            "No dataset is given to assess the model on.",
            hint="Give the data that it was trained on, and other data: assess(model, train, test).",
        )
    if progress is not None and not callable(progress):
        raise ConfigurationError(
            f"progress can't be {progress!r}.", hint="Give a function that is called with (what, done, total)."
        )
    config = make_config(AssessConfig, values, others=_DATA)
    if check is not None:
        check(config)
    loading = name_phase(progress, "loading")
    other = None if auxiliary is None or isinstance(auxiliary, str) else load_given(auxiliary).dataset
    dataset: ImageDataset | None = None
    transform: InputTransform | None = None
    if not plain:
        data = _load(config, train, given)
        dataset, transform = data.dataset, data.transform
        _check_membership(config, dataset)
        config = config.model_copy(update={"dataset": dataset.reference})
    elif any(value is not None for value in (given.mean, given.std, given.class_names)):
        raise ConfigurationError(
            "mean, std and class_names are for datasets that are given as objects.", hint="Leave them out."
        )
    assessed = prepare(
        config,
        loading,
        model=None if isinstance(model, str | os.PathLike | Target) else model,
        target=model if isinstance(model, Target) else None,
        dataset=dataset,
        transform=transform,
        auxiliary=other,
    )
    return config, assessed


def name_given_architecture(architecture: Any) -> str:
    """The name or reference of an architecture that is given as such, as a factory or as a network.

    Raises:
        ModelError: If it builds no network, or cannot be trained from fresh weights.
    """
    return architecture if isinstance(architecture, str) else register_factory(architecture)


def _describe(model: Any) -> str:
    """The reference of a model, however it is given."""
    if isinstance(model, Target):
        return model.reference
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    return describe_object(model)


def _load(config: AssessConfig, train: Any, given: GivenData) -> ObjectData:
    if train is None:
        raise ConfigurationError(
            "A test dataset is given, and no training dataset.", hint="Give the data that the model was trained on."
        )
    options = {name: value for name, value in load_options(config).items() if value is not None}
    return load_given(
        train,
        given.test,
        mean=given.mean,
        std=given.std,
        class_names=given.class_names,
        cache=config.cache or find_cache_folder(),
        **options,
    )


def _check_membership(config: AssessConfig, dataset: ImageDataset) -> None:
    """Raise `ConfigurationError` if the members are not known."""
    if {"train", "test"} <= set(dataset.parts) or config.split == "four-way" or config.weights is not None:
        return
    raise ConfigurationError(
        f"It is not known which of the {len(dataset):,} records of {dataset.reference} the model was trained on.",
        hint="Give the test data as well, assess(model, train, test), or state the members: members=mask.",
    )
