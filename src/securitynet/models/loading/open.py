"""Open what a reference names: a network with its weights, or a model that gives outputs only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from securitynet.datasets.base import ImageDataset
from securitynet.errors import ModelError, WeightsMismatch
from securitynet.files import hash_stably
from securitynet.models.sources import open_source
from securitynet.models.sources import state_dicts as fitting
from securitynet.models.sources.base import NetworkSource, Shape
from securitynet.models.sources.layer_order import find_shape
from securitynet.models.sources.preprocessing import Normalization, Preprocessing
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import BACKENDS
from securitynet.models.sources.suggestions import NOTHING_FITS, describe_kind, describe_surplus, suggest
from securitynet.models.sources.tensor_names import fit_names
from securitynet.models.sources.weight_digests import verify_weights
from securitynet.models.sources.weights import StateDict, read_weights, state_checksum
from securitynet.models.store.model_record import ClassifierRecord, TargetRecord
from securitynet.models.store.record_files import locate_model_record, read_membership, read_model_record
from securitynet.models.targets.backends.base import Backend, LoadOptions, OpenedModel
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.outputs import AdaptedNetwork, adapt_outputs
from securitynet.models.training.dp_sgd import replace_batch_norms
from securitynet.models.training.trainable import describe_architecture

DEFAULT_SIZE = 32
"""Height and width of images where nothing states them."""


def open_network(reference: ModelReference, options: LoadOptions, dataset: ImageDataset | None) -> OpenedModel:
    """Build a network, read its weights and load them.

    Args:
        reference: Reference of a network.
        options: What the user states about the model.
        dataset: The dataset of the assessment, for its class count and image size; None without one.

    Raises:
        ModelError: If the network cannot be built, or its weights cannot be read or do not fit.
    """
    return _open_network(reference, options, dataset)[0]


def build_trainable_network(reference: ModelReference, options: LoadOptions, dataset: ImageDataset | None) -> nn.Module:
    """Build a network with its weights as `open_network` does, but not frozen or optimised, so that it can be trained.

    Args:
        reference: Reference of a network.
        options: What the user states about the model.
        dataset: See `open_network`.

    Raises:
        ModelError: If the network cannot be built, or its weights cannot be read or do not fit.
    """
    network = _open_network(reference, options, dataset)[1]
    for weight in network.parameters():
        weight.requires_grad_(True)
    return network.to(options.device or "cpu").eval()


def _open_network(
    reference: ModelReference, options: LoadOptions, dataset: ImageDataset | None
) -> tuple[OpenedModel, nn.Module]:
    source = open_source(reference)
    notes: list[str] = []
    record = _read_record(reference, source, options, notes)
    path = options.weights
    if path is None and reference.declaration.takes_weights and source.fetch:
        path = source.fetch(options.progress)
    verified = _verify(reference, options, path)
    network, loaded, shape, counted, stated = _build(reference, source, options, path, record, dataset, notes)
    is_own = options.weights is None or (source.is_own is not None and source.is_own(options.weights))
    if is_own and source.set_own_flags is not None:
        source.set_own_flags(network)
    preprocessing, library = _stated_preprocessing(reference, source, options, record, dataset, is_own, notes)
    if preprocessing is None and stated is not None:
        preprocessing = Preprocessing().normalized_by(stated)
        notes.append(f"the file states its normalisation: {preprocessing.describe()}.")
    size = preprocessing.input_size if preprocessing else source.input_size
    if library is not None and source.sized:
        size = shape.image_size, shape.image_size  # the weights themselves depend on it
        library = None
    if preprocessing is not None and len(preprocessing.mean) not in (0, 1, shape.channels):
        preprocessing = None  # stated for colour images, and these weights take grey ones
    sides = record.input_sides if record else (shape.image_size, shape.image_size)
    example = shape.channels, *_example_size(sides, size, options, dataset)
    classes = shape.num_classes if counted else (options.num_classes or (dataset.num_classes if dataset else None))
    network, output_notes = adapt_outputs(network.float(), example, classes=classes, reference=str(reference))
    with_flags = is_own or source.set_own_flags is None
    checksum = state_checksum(loaded, source.architecture + ("" if with_flags else ":plain"))
    if isinstance(network, AdaptedNetwork):  # other scores than without: signals of older versions must not be taken
        checksum = hash_stably([checksum, network.part, network.before_sigmoid, network.single], 64)
    backend = ModuleBackend(
        network,
        reference=str(reference.without_folders()),
        checksum=checksum,
        example_shape=example,
        device=options.device,
        batch_size=options.batch_size,
    )
    if reference.declaration.takes_weights:
        backend.architecture = describe_architecture(reference, source).reference
    backend.weights = options.weights
    if counted:
        backend.num_classes = max(shape.num_classes, 2)
    if backend.channels is None and not reference.declaration.takes_weights:
        backend.channels = source.channels
    names = record.class_names if isinstance(record, TargetRecord) else source.class_names if is_own else ()
    opened = OpenedModel(
        backend,
        preprocessing,
        library=library,
        class_names=names,
        input_size=size,
        example_size=example[1:],
        notes=(*notes, *output_notes),
        checksum=options.checksum if verified else None,
    )
    return opened, network


def _read_record(
    reference: ModelReference, source: NetworkSource, options: LoadOptions, notes: list[str]
) -> ClassifierRecord | None:
    """The record beside the weights that were given; None if there is none.

    Raises:
        WeightsMismatch: If it is that of another architecture.
    """
    if options.weights is None:
        return None
    record = read_model_record(options.weights)
    if record is None and read_membership(options.weights) is not None:
        lost = locate_model_record(options.weights).name
        notes.append(
            f"WARNING: these weights were trained by securitynet, and their record {lost}, which says on what, is "
            "missing: unless members are stated with --members, they are assumed and may be others. Put it back."
        )
    if record is not None and reference.scheme == "arch" and record.architecture != source.architecture:
        trained_as = record.architecture if ":" in record.architecture else f"arch:{record.architecture}"
        raise WeightsMismatch(
            f"{options.weights} was trained as {trained_as}, not {reference}.", hint=f"Write {trained_as}."
        )
    return record


class _LoadedNetwork(NamedTuple):
    """A network with its weights.

    Attributes:
        network: The network.
        tensors: The weights that were loaded, by name.
        shape: What it was built for.
        counted: Whether the class count was read from the weights.
        normalization: The one that the file of weights states.
    """

    network: nn.Module
    tensors: Mapping[str, torch.Tensor]
    shape: Shape
    counted: bool
    normalization: Normalization | None


def _build(
    reference: ModelReference,
    source: NetworkSource,
    options: LoadOptions,
    path: Path | None,
    record: ClassifierRecord | None,
    dataset: ImageDataset | None,
    notes: list[str],
) -> _LoadedNetwork:
    """Build the network for the shape that its weights show, and load them; in order of layers if no name fits."""
    shape, state, counted = _read_weights(reference, source, options, path, record, dataset, notes)
    if counted:
        _check_count(reference, shape.num_classes, options, dataset)
    if state is not None and reference.scheme == "hf":  # its architecture is described by a file, too
        fitting.check_network_memory(source, shape, state, str(reference))
    network = fitting.build_quietly(source, shape, frozenset(state or {}))
    if record is not None and record.defense is not None and record.defense.group_norms:
        network = replace_batch_norms(network)
    if state is None:
        loaded = {key: value.detach().float() for key, value in network.state_dict().items()}
        if reference.declaration.takes_weights:
            notes.append(f"weights are those with which {reference} makes the network; no file of weights was given.")
        return _LoadedNetwork(network, loaded, shape, counted, None)
    fitted = fit_names(state, network.state_dict())
    notes += fitted.notes
    stated = fitted.normalization
    try:
        loaded = fitting.load_weights(network, fitted.state, reference=str(reference), convert=source.convert)
    except WeightsMismatch as mismatch:
        match = find_shape(source, state, shape)
        if match is None:
            hint = describe_kind(state) or suggest(state, reference, shape.image_size)
            hint = hint or describe_surplus(fitted.state, network.state_dict()) or NOTHING_FITS
            raise WeightsMismatch(mismatch.message, hint=hint) from mismatch
        shape, counted = match[0], True
        _check_count(reference, shape.num_classes, options, dataset)
        network = fitting.build_quietly(source, shape, frozenset(match[1].state))
        loaded = fitting.load_weights(network, match[1].state, reference=str(reference))
        stated = match[1].normalization or stated
        notes.append(match[1].note)
    return _LoadedNetwork(network, loaded, shape, counted, stated)


def _stated_preprocessing(
    reference: ModelReference,
    source: NetworkSource,
    options: LoadOptions,
    record: ClassifierRecord | None,
    dataset: ImageDataset | None,
    is_own: bool,
    notes: list[str],
) -> tuple[Preprocessing | None, Preprocessing | None]:
    """Preprocessing stated for these weights and, if there is none, what a library states for its own weights."""
    if record is not None:
        return record.preprocessing, None
    if is_own or source.preprocessing is None:
        return source.preprocessing, None
    labelled = dataset is not None and dataset.images is not None
    if not labelled and (reference.detail or "." in reference.name):
        notes.append(
            f"preprocessing is that of {reference}, as there are no labelled images to try others on; that the file "
            "holds just these weights could not be verified."
        )
        return source.preprocessing, None
    notes.append(
        f"weights of your own for {reference}: the library's preprocessing for its own weights is not "
        "assumed; state --normalize and --input-size if you know them."
    )
    return None, source.preprocessing


def _read_weights(
    reference: ModelReference,
    source: NetworkSource,
    options: LoadOptions,
    path: Path | None,
    record: ClassifierRecord | None,
    dataset: ImageDataset | None,
    notes: list[str],
) -> tuple[Shape, StateDict | None, bool]:
    """The shape to build for, the weights, and whether the class count was read from them."""
    own = _own_shape(dataset)
    stated = source.preprocessing.input_size if source.preprocessing else source.input_size
    size = options.input_size or (max(record.input_sides) if record else None) or (stated[0] if stated else None)
    size = size or (own[1] if own else DEFAULT_SIZE)
    channels = record.channels if record else (own[0] if own else 3)
    if not reference.declaration.takes_weights:
        count = source.num_classes
        return Shape(count or 10, source.channels or channels, size), None, count is not None
    if path is None:
        if not source.bring_own:
            raise ModelError(
                f"{reference} has no weights of its own.", hint=f"Give a file of weights: {reference} --weights FILE."
            )
        count = options.num_classes or (dataset.num_classes if dataset else None) or source.num_classes or 10
        return Shape(count, source.channels or channels, size), None, False
    weights = read_weights(path, options.weight_set, source.weight_sets)
    notes += weights.notes
    state = weights.tensors
    shape, counted = fitting.deduce_shape(source, state, size, channels=channels)
    if source.sized and options.input_size is None and stated and own and own[1] != size:
        # Made for the size of the dataset rather than for that of the library's own weights?
        other, known = fitting.deduce_shape(source, state, own[1], channels=channels)
        if not fitting.fits(source, shape, state) and fitting.fits(source, other, state):
            return other, state, known
    return shape, state, counted


def _check_count(reference: ModelReference, count: int, options: LoadOptions, dataset: ImageDataset | None) -> None:
    count = max(count, 2)  # one output is the score of the second of two classes
    if options.num_classes is not None and options.num_classes != count:
        raise WeightsMismatch(
            f"The weights for {reference} have {count} classes; --num-classes says {options.num_classes}.",
            hint="Leave the option out, or give the weights of a model with so many classes.",
        )
    if dataset is not None and dataset.num_classes != count:
        raise WeightsMismatch(
            f"The weights for {reference} have {count} classes; {dataset.reference} has {dataset.num_classes}.",
            hint="Choose the dataset that the model was trained on.",
        )


def _own_shape(dataset: ImageDataset | None) -> tuple[int, int] | None:
    """(channels, longer side) of a dataset that has images."""
    if dataset is None or dataset.images is None:
        return None
    channels, *sides = dataset.image_shape
    return channels, max(sides)


def _example_size(
    built_for: tuple[int, int], stated: tuple[int, int] | None, options: LoadOptions, dataset: ImageDataset | None
) -> tuple[int, int]:
    """Height and width of the images that the network will receive."""
    if options.input_size is not None:
        return options.input_size, options.input_size
    if stated is not None:
        return stated
    if dataset is not None and dataset.images is not None:
        return dataset.image_shape[1:]
    return built_for


def open_queryable(reference: ModelReference, options: LoadOptions) -> OpenedModel:
    """Open a model that gives outputs only, with the backend of its scheme."""
    verified = _verify(reference, options, None)
    backend: type[Backend] = BACKENDS.get(reference.declaration.name)
    opened = backend.open(reference, options)
    return replace(opened, checksum=options.checksum) if verified else opened


def _verify(reference: ModelReference, options: LoadOptions, path: Path | None) -> bool:
    """Compare the file that will be read with the stated digest; whether there is one and they agree.

    Raises:
        WeightsMismatch: If they differ, or there is no file to compare.
    """
    if options.checksum is None:
        return False
    file = path if reference.declaration.takes_weights else reference.path
    if file is None or not file.is_file():
        raise WeightsMismatch(
            f"The weights of {reference.without_folders()} must have the checksum {options.checksum}, and there is no "
            "file of weights that could be compared with it.",
            hint="Give the file with --weights.",
        )
    fetched = options.weights is None and reference.declaration.takes_weights
    return verify_weights(file, options.checksum, str(reference.without_folders()), fetched=fetched)
