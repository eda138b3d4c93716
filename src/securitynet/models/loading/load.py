"""`load_target`: from a reference or an object to a target that is ready to be queried, without untrusted code."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from securitynet.catalog.location import using
from securitynet.catalog.weights import compare_checksums
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.given import load_given
from securitynet.datasets.pipelines import InputTransform
from securitynet.devices import resolve_device
from securitynet.errors import AccessDenied, ConfigurationError, TargetError, WeightsMismatch
from securitynet.files import expand_home
from securitynet.models.loading.check_options import check_head, check_numbers, check_options
from securitynet.models.loading.detect_head import detect_head, doubt_head, note_scale
from securitynet.models.loading.examination import (
    ExaminationResult,
    examine_accuracy,
    examine_constancy,
    query_outputs,
    replace_preprocessing,
    verify_optimisations,
)
from securitynet.models.loading.geometry import choose_geometry
from securitynet.models.loading.normalization import SAMPLE, choose_normalization, sample_indices
from securitynet.models.loading.open import DEFAULT_SIZE, open_network, open_queryable
from securitynet.models.loading.open_object import open_object
from securitynet.models.sources.base import Progress
from securitynet.models.sources.catalog import EntryModel, resolve_entry
from securitynet.models.sources.preprocessing import Normalization, Preprocessing, parse_normalization
from securitynet.models.sources.references import parse_reference
from securitynet.models.targets.backends.base import Backend, LoadOptions, OpenedModel
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.query_count import QueryCounter
from securitynet.models.targets.target import Target
from securitynet.records import Access, Check

HEAD_SAMPLE = 256
"""Most images used to detect the kind of head."""

# Endpoints may charge for queries, and fewer images detect the kind of head almost as reliably.
_PAID_SAMPLE = 32
_PAID_TRIALS = 64
_RANDOM_SAMPLE = 8
_USUAL_SIZES = (32, 28, 64, 224, 299)


def load_target(
    reference: str | os.PathLike[str] | nn.Module | Callable[[torch.Tensor], Any],
    *,
    weights: str | Path | None = None,
    dataset: Any = None,
    normalize: str | None = None,
    input_size: int | None = None,
    head: str | None = None,
    num_classes: int | None = None,
    weight_set: str | None = None,
    allow_random: bool = False,
    access: Access | None = None,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int | None = None,
    max_queries: int | None = None,
    timeout: float = 30.0,
    retries: int = 5,
    cache: Path | None = None,
    progress: Progress | None = None,
    output: str | None = None,
    trust: bool = False,
    transform: InputTransform | None = None,
    checksum: str | None = None,
    db: str | None = None,
) -> Target:
    """Load the model that a reference names, or make a target of a network or a callable.

    Nothing in a model file is executed; the only code that runs is a factory that the user names (``python:``), and a
    callable that is given. A network that is given is copied; its mode, gradients and device stay as they are.

    Args:
        reference: Reference of the model (`securitynet list backends` shows the forms), a network, or a callable that
            takes images in [0, 1], a float tensor N×C×H×W, and returns scores, N×K.
        weights: File of weights for a network; the library's own by default.
        dataset: Labelled images of the model's kind, as `securitynet.datasets.load_given` takes them: a dataset, a
            reference such as ``cifar10``, or objects. ``auto`` choices are made on them; the class count is checked.
        normalize: ``auto``, a convention's name, or ``M,M,M/S,S,S``. By default what the source states, else ``auto``
            if a dataset is given, else ``none``.
        input_size: Height and width in pixels to which images are resized.
        head: Kind of the model's outputs; detected by default, as with ``auto``.
        num_classes: Expected number of classes; checked against the weights.
        weight_set: Which weights to use from a file with several sets: a name in the file, or ``average``. By default
            the weights as trained, and a note names the others.
        allow_random: Average repeated outputs of a model that is not deterministic. By default such a model is loaded
            with a warning, and no assessment accepts it.
        access: Access of the adversary; by default white-box if there is a network, else black-box.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``fp32`` or ``bf16``.
        batch_size: Images per batch; chosen by image size by default.
        max_queries: Largest number of distinct images that the target may be sent.
        timeout: Seconds to wait for a response of an endpoint.
        retries: Number of times that a failed request is repeated.
        cache: Folder for outputs of endpoints; the user's cache folder by default.
        progress: Called with (bytes done, total bytes) while weights are downloaded.
        output: Name of the output that holds the class scores, for formats whose models have several.
        trust: Allow formats that run code from the model's file, and entries of the catalog that name code, a file or
            an address; without it they are refused.
        transform: Preprocessing that the dataset's own transforms state (`dataset_from_objects` reads them); used if
            the model's source states none.
        checksum: Digest that the weights must have (``sha256:DIGITS`` of the file, or ``tensors:DIGITS``); by default
            the one that the catalog states, for ``catalog:`` references.
        db: The catalog's database, for ``catalog:`` references; by default the one in the user's data folder.

    Returns:
        The target; its ``notes`` describe what was determined, and its ``checks`` whether it behaves as a model must.

    Raises:
        ConfigurationError: If an option or the reference is invalid.
        ModelError: If the model cannot be located or read (`UnsafeFile` if reading it would execute code,
            `WeightsMismatch` if weights do not fit).
        TargetError: If its outputs are unusable, or the images of the dataset do not suit it.
        AccessDenied: If white-box access is requested for a model that gives outputs only.
    """
    if dataset is not None and not isinstance(dataset, ImageDataset):
        given = load_given(dataset)
        dataset, transform = given.dataset, transform or given.transform
    options = LoadOptions(
        weights=None if weights is None else expand_home(weights),
        normalize=normalize,
        input_size=input_size,
        head=check_head(head),
        num_classes=num_classes,
        weight_set=weight_set,
        allow_random=allow_random,
        device=resolve_device(device),
        precision=precision,
        batch_size=batch_size,
        max_queries=max_queries,
        timeout=timeout,
        retries=retries,
        cache=cache,
        progress=progress,
        expected_classes=dataset.num_classes if dataset else None,
        output=output,
        trust=trust,
        checksum=checksum,
    )
    check_numbers(options)
    preprocessing = None if transform is None else Preprocessing(**transform.model_dump())
    if isinstance(reference, os.PathLike):
        reference = os.fspath(reference)
    if not isinstance(reference, str):
        opened = open_object(reference, options, dataset, preprocessing)
        return _assemble(opened, options, dataset, access, None)
    parsed = parse_reference(reference)
    stated = None
    if parsed.scheme == "catalog":
        with using(db):
            entry = resolve_entry(parsed, trust=trust)
        parsed, options = entry.reference, _apply_entry(entry, options, dataset)
        stated = None if dataset is None else entry.accuracy_on(dataset.reference)
    check_options(parsed, options)
    opened = open_network(parsed, options, dataset) if parsed.is_network else open_queryable(parsed, options)
    if preprocessing is not None:
        opened = _with_transform(opened, preprocessing)
    return _assemble(opened, options, dataset, access, stated)


def _apply_entry(entry: EntryModel, options: LoadOptions, dataset: ImageDataset | None) -> LoadOptions:
    """Complete options by what the catalog's entry states: its weights and their checksum, and the image size."""
    if compare_checksums(options.checksum, entry.checksum) is False:
        raise WeightsMismatch(
            f"The catalog's entry {entry.key} has the checksum {entry.checksum}, where {options.checksum} is expected.",
            hint="Name the model by its own reference, or correct the entry.",
        )
    file = entry.weights_file(options.weights, options.progress, trust=options.trust)
    size = options.input_size
    if dataset is None and size is None and not entry.complete:
        size = entry.image_size  # nothing else says what it was made for
    return dataclasses.replace(
        options,
        weights=file,
        checksum=entry.checksum or options.checksum,
        input_size=size,
        # Trust was given to the entry; the network that it names gets it only if its format needs it.
        trust=options.trust and bool(entry.reference.declaration.trust),
    )


def _with_transform(opened: OpenedModel, transform: Preprocessing) -> OpenedModel:
    """Take preprocessing from the dataset's transforms where the model's source states none."""
    if opened.preprocessing is None and not opened.recorded:
        note = f"as the dataset's transform says: {transform.describe()}."
        return dataclasses.replace(opened, preprocessing=transform, library=None, notes=(*opened.notes, note))
    stated = opened.preprocessing
    if stated is not None and (stated.mean, stated.std) != (transform.mean, transform.std):
        note = (
            f"the dataset's transform says {transform.describe()}; the model's source states {stated.describe()}, "
            "which is used (--normalize overrides)."
        )
        return dataclasses.replace(opened, notes=(*opened.notes, note))
    return opened


def _assemble(
    opened: OpenedModel, options: LoadOptions, dataset: ImageDataset | None, access: Access | None, stated: float | None
) -> Target:
    backend = opened.backend
    access = access or (Access.WHITE_BOX if backend.white_box else Access.BLACK_BOX)
    if access is Access.WHITE_BOX and not backend.white_box:
        raise AccessDenied(
            f"{backend.reference} gives outputs only: there is no network to give white-box access to.",
            hint="Run with --access black-box, or load the network itself with its weights.",
        )
    preprocessing, auto = _preprocessing(opened, options, dataset)
    query_counter = QueryCounter(options.max_queries)
    target = Target(
        backend, preprocessing=preprocessing, query_counter=query_counter if opened.paid else QueryCounter()
    )
    findings = ExaminationResult(list(opened.notes))
    if opened.checksum is not None:
        checksum = opened.checksum
        findings.checks.append(Check(what="checksum", said=checksum, found=checksum, agrees=True))
    if opened.recorded:
        target.head = options.head or opened.head or "logits"
        _check_classes(backend, options, dataset)
    else:
        sample = _sample(target, opened, options, dataset)
        if isinstance(backend, ModuleBackend):
            verify_optimisations(target, backend, sample, findings)
        target = examine_constancy(target, sample, findings, paid=opened.paid, allow_random=options.allow_random)
        target = _examine_outputs(target, opened, options, dataset, sample, stated, auto, findings)
    if options.normalize is None and opened.preprocessing is None and not target.preprocessing.mean and not auto:
        findings.notes.append(
            "no normalisation is stated by the model's source: images are fed in [0, 1] (--normalize)."
        )
    if isinstance(backend, ModuleBackend):
        backend.precision = options.precision
    return Target(
        target.backend,
        head=target.head,
        preprocessing=target.preprocessing,
        access=access,
        query_counter=query_counter,
        precision=options.precision,
        notes=tuple(findings.notes),
        checks=tuple(findings.checks),
        class_names=opened.class_names,
    )


def _examine_outputs(
    target: Target,
    opened: OpenedModel,
    options: LoadOptions,
    dataset: ImageDataset | None,
    sample: torch.Tensor,
    stated: float | None,
    auto: bool,
    findings: ExaminationResult,
) -> Target:
    """Detect the head, choose the normalisation if it is to be chosen, and check the accuracy."""
    if options.head is None or not opened.paid or dataset is not None:
        outputs = query_outputs(target, sample)
        if options.head is None:
            target.head = detect_head(outputs, findings.notes)
        elif not opened.paid:
            doubt_head(options.head, outputs, findings.notes)
        note_scale(options.head or target.head, outputs, findings.notes)
    target.head = options.head or target.head
    _check_classes(opened.backend, options, dataset)
    if dataset is None or dataset.images is None:
        return target
    if opened.library is not None and options.input_size is None:
        known = None if auto else Normalization(target.preprocessing.mean, target.preprocessing.std)
        geometry = choose_geometry(target, dataset, opened.library, known)
        if geometry is not None:
            findings.notes.append(geometry.note)
            preprocessing = geometry.preprocessing
            if known is not None:
                preprocessing = preprocessing.normalized_by(known)
            target = replace_preprocessing(target, preprocessing)
            outputs = query_outputs(target, sample)
    indices = sample_indices(dataset, len(sample))
    predicted = outputs.argmax(dim=1).numpy()
    # Normalisations are compared by the highest scores; the lowest would say something about the wrong one.
    lowest = None if auto else outputs.argmin(dim=1).numpy()
    if auto:
        size = _PAID_TRIALS if opened.paid else SAMPLE
        choice = choose_normalization(target, dataset, size=size, bgr=not opened.paid, cache=options.cache)
        target = replace_preprocessing(target, target.preprocessing.normalized_by(choice.normalization))
        findings.notes.append(choice.note)
        indices, predicted = choice.indices, choice.table[0].predicted
    names = opened.class_names
    examine_accuracy(findings, predicted, indices, dataset, model_names=names, stated=stated, lowest=lowest)
    return target


def _preprocessing(
    opened: OpenedModel, options: LoadOptions, dataset: ImageDataset | None
) -> tuple[Preprocessing, bool]:
    """The preprocessing, and whether its normalisation still has to be chosen by trial."""
    preprocessing = opened.preprocessing or Preprocessing(input_size=opened.input_size)
    if options.input_size is not None:
        preprocessing = preprocessing.model_copy(update={"input_size": (options.input_size, options.input_size)})
    labelled = dataset is not None and dataset.images is not None
    if options.normalize == "auto":
        if not labelled:
            raise ConfigurationError(
                "--normalize auto needs labelled images to try the conventions on.",
                hint="Give a dataset, or name the normalisation.",
            )
        return preprocessing.normalized_by(Normalization((), ())), True
    if options.normalize is not None:
        stated = parse_normalization(options.normalize)
        channels = opened.backend.channels
        if channels is not None and len(stated.mean) not in (0, 1, channels):
            raise ConfigurationError(
                f"--normalize {options.normalize} has {len(stated.mean)} channels, "
                f"{opened.backend.reference} has {channels}.",
                hint="Give one value for each channel, or one for all.",
            )
        return preprocessing.normalized_by(stated), False
    return preprocessing, opened.preprocessing is None and labelled and not opened.paid and not opened.recorded


def _check_classes(backend: Backend, options: LoadOptions, dataset: ImageDataset | None) -> None:
    count = backend.num_classes
    if count is None:
        return
    if dataset is not None and count != dataset.num_classes:
        raise TargetError(
            f"{backend.reference} has {count} classes; {dataset.reference} has {dataset.num_classes}.",
            hint="Choose the dataset that the model was trained on."
            + (
                f" If the endpoint returns only its {count} highest scores, let it return those of all classes."
                if backend.charges and count < dataset.num_classes
                else ""
            ),
        )
    if options.num_classes is not None and count != options.num_classes:
        raise TargetError(
            f"{backend.reference} has {count} classes; --num-classes says {options.num_classes}.",
            hint="Leave the option out.",
        )


def _sample(target: Target, opened: OpenedModel, options: LoadOptions, dataset: ImageDataset | None) -> torch.Tensor:
    """Images on which the target is examined: labelled ones, else random ones of a size that it accepts."""
    if dataset is not None and dataset.images is not None:
        most = min(_PAID_SAMPLE, options.max_queries or _PAID_SAMPLE) if opened.paid else HEAD_SAMPLE
        return dataset.batch(sample_indices(dataset, most))
    return _random_images(target, opened)


def _random_images(target: Target, opened: OpenedModel) -> torch.Tensor:
    """Random images of the first common size that the model accepts, unless its own size is known."""
    known = target.preprocessing.input_size or opened.example_size
    sizes = ([known] if known else []) + ([] if opened.paid else [(size, size) for size in _USUAL_SIZES])
    generator = torch.Generator().manual_seed(0)
    first: TargetError | None = None
    for size in sizes or [(DEFAULT_SIZE, DEFAULT_SIZE)]:
        images = torch.rand((_RANDOM_SAMPLE, target.backend.channels or 3, *size), generator=generator)
        try:
            query_outputs(target, images)
        except TargetError as error:
            first = first or error
        else:
            return images
    assert first is not None  # there is at least one size
    raise first
