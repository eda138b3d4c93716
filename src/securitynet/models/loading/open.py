"""Open what a reference names: a network with its weights, or a model that only answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from securitynet.datasets.base import ImageDataset
from securitynet.errors import ModelError, WeightsMismatch
from securitynet.files import cache_folder
from securitynet.models.sources import open_source
from securitynet.models.sources import state_dicts as fitting
from securitynet.models.sources.base import Progress, Shape, Source
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.suggestions import suggest
from securitynet.models.sources.weights import StateDict, read_state_dict, state_checksum
from securitynet.models.store.model_record import (
    ClassifierRecord,
    model_record_path,
    read_membership,
    read_model_record,
)
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.heads import Head
from securitynet.models.training.dp_sgd import with_group_norms

DEFAULT_SIZE = 32
"""Height and width of images where nothing states them."""

_REQUEST_SIZE = 32


@dataclass(frozen=True)
class Options:
    """What a user may say about a model; None leaves it to be found out."""

    device: torch.device
    weights: Path | None = None
    normalize: str | None = None
    input_size: int | None = None
    head: Head | None = None
    num_classes: int | None = None
    precision: str = "fp32"
    batch_size: int | None = None
    max_queries: int | None = None
    timeout: float = 30.0
    retries: int = 5
    cache: Path | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class Opened:
    """A backend and what its source states about it.

    Attributes:
        backend: Ready to answer.
        preprocessing: That its source states; None if it states none.
        head: That its source states.
        input_size: That its source states, where it states no normalisation.
        example_size: Height and width of images that it probably takes.
        notes: What a reader of the report should know.
        paid: Whether answers may cost something.
        recorded: Whether it can only answer for recorded images.
    """

    backend: Backend
    preprocessing: Preprocessing | None = None
    head: Head | None = None
    input_size: tuple[int, int] | None = None
    example_size: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    paid: bool = False
    recorded: bool = False


def open_network(reference: ModelReference, options: Options, dataset: ImageDataset | None) -> Opened:
    """Build a network, read its weights and put them in.

    Raises:
        ModelError: See `load_target`.
    """
    source = open_source(reference)
    notes: list[str] = []
    record: ClassifierRecord | None = None
    if options.weights is not None:
        record = read_model_record(options.weights)
        if record is None and read_membership(options.weights) is not None:
            lost = model_record_path(options.weights).name
            notes.append(f"these weights were trained here, and their record {lost} is missing: members are assumed.")
    if record is not None and reference.scheme == "arch" and record.architecture != source.architecture:
        raise WeightsMismatch(
            f"{options.weights} was trained as arch:{record.architecture}, not {reference}.",
            hint=f"Write arch:{record.architecture}.",
        )
    shape, state, counted = _read_weights(reference, source, options, record, dataset)
    if counted:
        _check_count(reference, shape.num_classes, options, dataset)
    network = fitting.build(source, shape, frozenset(state or {}))
    if record is not None and record.defense is not None and record.defense.group_norms:
        network = with_group_norms(network)
    if state is None:
        loaded = {key: value.detach().float() for key, value in network.state_dict().items()}
        notes.append(f"weights are those with which {reference} makes the network; no file of weights was given.")
    else:
        loaded = fitting.load_weights(
            network,
            state,
            reference=str(reference),
            convert=source.convert,
            suggest=lambda: suggest(state, reference, shape.image_size),
        )
    preprocessing = record.preprocessing if record else source.preprocessing
    if record is None and preprocessing is not None and counted and shape.num_classes != source.num_classes:
        notes.append(
            f"preprocessing is that of {reference}'s own weights ({preprocessing.describe()}), while these have "
            f"{shape.num_classes} classes: give --normalize and --input-size if they were trained otherwise."
        )
    size = preprocessing.input_size if preprocessing else None
    if preprocessing is not None and len(preprocessing.mean) not in (0, 1, shape.channels):
        preprocessing = None  # stated for colour images, and these weights take grey ones
    example = shape.channels, *_example_size(shape, size, options, dataset)
    backend = ModuleBackend(
        network.float(),
        reference=short(reference) if reference.scheme == "python" else str(reference),
        checksum=state_checksum(loaded, source.architecture),
        example_shape=example,
        device=options.device,
        batch_size=options.batch_size,
    )
    if counted:
        backend.num_classes = shape.num_classes
    return Opened(backend, preprocessing, input_size=size, example_size=example[1:], notes=tuple(notes))


def _read_weights(
    reference: ModelReference,
    source: Source,
    options: Options,
    record: ClassifierRecord | None,
    dataset: ImageDataset | None,
) -> tuple[Shape, StateDict | None, bool]:
    """The shape to build for, the weights, and whether the class count was read from them."""
    own = _own_shape(dataset)
    stated = source.preprocessing.input_size if source.preprocessing else None
    size = options.input_size or (record.image_size if record else None) or (stated[0] if stated else None)
    size = size or (own[1] if own else DEFAULT_SIZE)
    channels = record.channels if record else (own[0] if own else 3)
    path = options.weights or (source.fetch(options.progress) if source.fetch else None)
    if path is None:
        if not source.bring_own:
            raise ModelError(
                f"{reference} has no weights of its own.", hint=f"Give a file of weights: {reference} --weights FILE."
            )
        count = options.num_classes or (dataset.num_classes if dataset else None) or source.num_classes or 10
        return Shape(count, source.channels or channels, size), None, False
    state, _ = read_state_dict(path)
    shape, counted = fitting.deduce_shape(source, state, size, channels=channels)
    return shape, state, counted


def _check_count(reference: ModelReference, count: int, options: Options, dataset: ImageDataset | None) -> None:
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
    """(channels, height) of a dataset that has images."""
    return None if dataset is None or dataset.images is None else dataset.image_shape[:2]


def _example_size(
    shape: Shape, stated: tuple[int, int] | None, options: Options, dataset: ImageDataset | None
) -> tuple[int, int]:
    """Height and width with which the network will be fed."""
    if options.input_size is not None:
        return options.input_size, options.input_size
    if stated is not None:
        return stated
    if dataset is not None and dataset.images is not None:
        return dataset.image_shape[1:]
    return shape.image_size, shape.image_size


def open_answers(reference: ModelReference, options: Options) -> Opened:
    """Open a model that only answers: an ONNX file, an endpoint, or recorded outputs."""
    name = reference.name
    if reference.scheme == "outputs":
        from securitynet.models.targets.backends.recorded import RecordedBackend

        recorded = RecordedBackend(Path(name), reference=short(reference))
        return Opened(recorded, preprocessing=Preprocessing(), head=recorded.head, recorded=True)
    if reference.scheme == "onnx":
        from securitynet.models.targets.backends.onnx import OnnxBackend

        onnx = OnnxBackend(Path(name), reference=short(reference), batch_size=options.batch_size)
        return Opened(onnx, input_size=onnx.input_size)
    from securitynet.models.targets.backends.http import HttpBackend

    http = HttpBackend(
        name,
        reference=str(reference),
        ledger_path=(options.cache or cache_folder()) / "endpoints" / "answers.sqlite",
        cap=options.max_queries,
        batch_size=options.batch_size or _REQUEST_SIZE,
        timeout=options.timeout,
        retries=options.retries,
    )
    return Opened(http, input_size=http.input_size, paid=True)


def short(reference: ModelReference) -> str:
    """The reference without the folders of its path: results name the model, not the machine."""
    return str(reference.model_copy(update={"name": Path(reference.name).name}))
