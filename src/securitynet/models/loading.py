"""`load_target`: from a reference to a target that is ready to be asked, safely."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from securitynet.datasets.base import ImageDataset
from securitynet.errors import AccessDenied, ConfigurationError, ModelError, TargetError, WeightsMismatch
from securitynet.files import cache_folder
from securitynet.models import fitting, heads
from securitynet.models.backends.base import Backend
from securitynet.models.backends.module import ModuleBackend
from securitynet.models.conventions import choose_normalization, sample_indices
from securitynet.models.heads import HEADS, Head
from securitynet.models.ledger import QueryLedger
from securitynet.models.preprocessing import Preprocessing, parse_normalization
from securitynet.models.references import ModelReference, parse_reference
from securitynet.models.sources import open_source
from securitynet.models.sources.base import Progress, Shape, Source
from securitynet.models.suggestions import suggest
from securitynet.models.target import Target
from securitynet.models.trained import TrainedModel, read_artefact
from securitynet.models.trainer.environment import resolve_device
from securitynet.models.weights import StateDict, read_state_dict, state_checksum
from securitynet.records import Access

HEAD_SAMPLE = 256
"""Most images on which the kind of head is told."""

# Endpoints may charge for answers: fewer images tell the kind of head nearly as surely.
_PAID_HEAD_SAMPLE = 32
_REQUEST_SIZE = 32
_DEFAULT_SIZE = 32


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
    cache: Path | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class Opened:
    """A backend and what its source states about it."""

    backend: Backend
    preprocessing: Preprocessing | None = None
    head: Head | None = None
    notes: tuple[str, ...] = ()
    input_size: tuple[int, int] | None = None
    paid: bool = False
    recorded: bool = False


def load_target(
    reference: str,
    *,
    weights: str | Path | None = None,
    dataset: ImageDataset | None = None,
    normalize: str | None = None,
    input_size: int | None = None,
    head: str | None = None,
    num_classes: int | None = None,
    access: Access | None = None,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int | None = None,
    max_queries: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Target:
    """Load the model that a reference names.

    Nothing in a model file is executed; the one code that runs is a factory that the user names (``python:``).

    Args:
        reference: See `securitynet.models.references.FORMS`.
        weights: File of weights for a network; the library's own by default.
        dataset: Labelled images of the model's kind: they decide ``auto`` choices, and the class count is checked.
        normalize: ``auto``, a convention's name, or ``M,M,M/S,S,S``. By default what the source states, else ``auto``
            where a dataset is given, else ``none``.
        input_size: Height and width in pixels to which images are resized.
        head: What the model emits; detected by default, also by ``auto``.
        num_classes: Checked against the weights.
        access: White-box by default where there is a network, else black-box.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``fp32`` or ``bf16``.
        batch_size: Images a batch; chosen by their size by default.
        max_queries: Most distinct images that may be asked of the target.
        cache: Folder for what endpoints answered; the user's cache folder by default.
        progress: Called with (bytes done, bytes in all) while weights are downloaded.

    Returns:
        The target; its ``notes`` say what was found out.

    Raises:
        ConfigurationError: If an option or the reference makes no sense.
        ModelError: If the model cannot be found or read (`UnsafeFile` if reading it would execute code,
            `WeightsMismatch` if weights do not fit).
        TargetError: If it answers with something unusable, or the images of the dataset do not suit it.
        AccessDenied: If white-box access is asked to a model that only answers.
    """
    parsed = parse_reference(reference)
    options = Options(
        weights=None if weights is None else Path(weights),
        normalize=normalize,
        input_size=input_size,
        head=_check_head(head),
        num_classes=num_classes,
        device=resolve_device(device),
        precision=precision,
        batch_size=batch_size,
        max_queries=max_queries,
        cache=cache,
        progress=progress,
    )
    _check_options(parsed, options)
    opened = open_network(parsed, options, dataset) if parsed.is_network else open_answers(parsed, options)
    return _assemble(opened, options, dataset, access)


def _assemble(opened: Opened, options: Options, dataset: ImageDataset | None, access: Access | None) -> Target:
    backend = opened.backend
    access = access or (Access.WHITE_BOX if backend.white_box else Access.BLACK_BOX)
    if access is Access.WHITE_BOX and not backend.white_box:
        raise AccessDenied(
            f"{backend.reference} only answers: there is no network to give white-box access to.",
            hint="Run with --access black-box, or load the network itself with its weights.",
        )
    preprocessing, auto = _preprocessing(opened, options, dataset)
    ledger = QueryLedger(options.max_queries)
    notes = list(opened.notes)
    target = Target(backend, preprocessing=preprocessing, ledger=ledger if opened.paid else QueryLedger())
    if opened.recorded:
        target.head = options.head or opened.head or "logits"
        _check_classes(backend, dataset)
    else:
        target.head = options.head or _detect_head(target, opened, options, dataset, notes)
        _check_classes(backend, dataset)
        if auto and dataset is not None:
            choice = choose_normalization(target, dataset)
            mean, std = choice.constants
            preprocessing = preprocessing.model_copy(update={"mean": mean, "std": std})
            notes.append(choice.note)
        elif options.normalize is None and opened.preprocessing is None:
            notes.append("no normalisation is stated by the model's source: images are fed in [0, 1] (--normalize).")
    if isinstance(backend, ModuleBackend):
        backend.precision = options.precision
    return Target(
        backend,
        head=target.head,
        preprocessing=preprocessing,
        access=access,
        ledger=ledger,
        precision=options.precision,
        notes=tuple(notes),
    )


def _preprocessing(opened: Opened, options: Options, dataset: ImageDataset | None) -> tuple[Preprocessing, bool]:
    """The preprocessing, and whether its normalisation is still to be chosen by trying."""
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
        return preprocessing.model_copy(update={"mean": (), "std": ()}), True
    if options.normalize is not None:
        mean, std = parse_normalization(options.normalize)
        channels = opened.backend.channels
        if channels is not None and len(mean) not in (0, 1, channels):
            raise ConfigurationError(
                f"--normalize {options.normalize} is for {len(mean)} channels; {opened.backend.reference} has {channels}.",
                hint="Give one value for each channel, or one for all.",
            )
        return preprocessing.model_copy(update={"mean": mean, "std": std}), False
    return preprocessing, opened.preprocessing is None and labelled and not opened.paid and not opened.recorded


def open_network(reference: ModelReference, options: Options, dataset: ImageDataset | None) -> Opened:
    """Build a network, read its weights and put them in.

    Raises:
        ModelError: See `load_target`.
    """
    source = open_source(reference)
    notes: list[str] = []
    artefact = read_artefact(options.weights) if options.weights is not None else None
    if artefact is not None and reference.scheme == "arch" and artefact.architecture != source.architecture:
        raise WeightsMismatch(
            f"{options.weights} was trained as arch:{artefact.architecture}, not {reference}.",
            hint=f"Write arch:{artefact.architecture}.",
        )
    shape, state = _read_weights(reference, source, options, artefact, dataset)
    _check_counts(reference, shape, state, options, dataset)
    network = fitting.build(source, shape, frozenset(state or {}))
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
    preprocessing = artefact.preprocessing if artefact else source.preprocessing
    if artefact is None and preprocessing is not None and shape.num_classes != source.num_classes:
        notes.append(
            f"preprocessing is that of {reference}'s own weights ({preprocessing.describe()}), while these have "
            f"{shape.num_classes} classes: give --normalize and --input-size if they were trained otherwise."
        )
    backend = ModuleBackend(
        network.float(),
        reference=str(reference),
        checksum=state_checksum(loaded, source.architecture),
        example_shape=_example_shape(network, shape, preprocessing, options, dataset),
        device=options.device,
        batch_size=options.batch_size,
    )
    return Opened(backend, preprocessing=preprocessing, notes=tuple(notes))


def _read_weights(
    reference: ModelReference,
    source: Source,
    options: Options,
    artefact: TrainedModel | None,
    dataset: ImageDataset | None,
) -> tuple[Shape, StateDict | None]:
    own = _own_shape(dataset)
    size = options.input_size or (artefact.image_size if artefact else None) or (own[1] if own else _DEFAULT_SIZE)
    channels = artefact.channels if artefact else (own[0] if own else 3)
    path = options.weights or (source.fetch(options.progress) if source.fetch else None)
    if path is None:
        if not source.bring_own:
            raise ModelError(
                f"{reference} has no weights of its own.", hint=f"Give a file of weights: {reference} --weights FILE."
            )
        count = options.num_classes or (dataset.num_classes if dataset else None) or source.num_classes or 10
        return Shape(count, source.channels or channels, size), None
    state, _ = read_state_dict(path)
    return fitting.deduce_shape(source, state, size, channels=channels), state


def _check_counts(
    reference: ModelReference,
    shape: Shape,
    state: StateDict | None,
    options: Options,
    dataset: ImageDataset | None,
) -> None:
    if state is None:
        return
    if options.num_classes is not None and options.num_classes != shape.num_classes:
        raise WeightsMismatch(
            f"The weights for {reference} have {shape.num_classes} classes; --num-classes says {options.num_classes}.",
            hint="Leave the option out, or give the weights of a model with so many classes.",
        )
    if dataset is not None and dataset.num_classes != shape.num_classes:
        raise WeightsMismatch(
            f"The weights for {reference} have {shape.num_classes} classes; {dataset.reference} has "
            f"{dataset.num_classes}.",
            hint="Choose the dataset that the model was trained on.",
        )


def _check_classes(backend: Backend, dataset: ImageDataset | None) -> None:
    if dataset is not None and backend.num_classes is not None and backend.num_classes != dataset.num_classes:
        raise TargetError(
            f"{backend.reference} has {backend.num_classes} classes; {dataset.reference} has {dataset.num_classes}.",
            hint="Choose the dataset that the model was trained on.",
        )


def _own_shape(dataset: ImageDataset | None) -> tuple[int, int] | None:
    """(channels, height) of a dataset that has images."""
    return None if dataset is None or dataset.images is None else dataset.image_shape[:2]


def _example_shape(
    network: nn.Module,
    shape: Shape,
    preprocessing: Preprocessing | None,
    options: Options,
    dataset: ImageDataset | None,
) -> tuple[int, int, int]:
    channels = shape.channels
    if options.input_size is not None:
        return channels, options.input_size, options.input_size
    if preprocessing is not None and preprocessing.input_size is not None:
        return channels, *preprocessing.input_size
    if dataset is not None and dataset.images is not None:
        return channels, *dataset.image_shape[1:]
    return channels, shape.image_size, shape.image_size


def open_answers(reference: ModelReference, options: Options) -> Opened:
    """Open a model that only answers: an ONNX file, an endpoint, or recorded outputs."""
    name = reference.name
    if reference.scheme == "outputs":
        from securitynet.models.backends.recorded import RecordedBackend

        recorded = RecordedBackend(Path(name), reference=_short(reference))
        return Opened(recorded, preprocessing=Preprocessing(), head=recorded.head, recorded=True)
    if reference.scheme == "onnx":
        from securitynet.models.backends.onnx import OnnxBackend

        onnx = OnnxBackend(Path(name), reference=_short(reference), batch_size=options.batch_size)
        return Opened(onnx, input_size=onnx.input_size)
    from securitynet.models.backends.http import HttpBackend

    http = HttpBackend(
        name,
        reference=str(reference),
        ledger_path=(options.cache or cache_folder()) / "endpoints" / "answers.sqlite",
        cap=options.max_queries,
        batch_size=options.batch_size or _REQUEST_SIZE,
    )
    return Opened(http, input_size=http.input_size, paid=True)


def _short(reference: ModelReference) -> str:
    """The reference without the folders of its path: results name the model, not the machine."""
    return f"{reference.scheme}:{Path(reference.name).name}"


def _detect_head(
    target: Target, opened: Opened, options: Options, dataset: ImageDataset | None, notes: list[str]
) -> Head:
    if dataset is not None and dataset.images is not None:
        indices = sample_indices(dataset, _PAID_HEAD_SAMPLE if opened.paid else HEAD_SAMPLE)
        images = dataset.batch(indices)
    else:
        images = _random_images(target, options)
    step = target.batch_size
    outputs = torch.cat([target.raw_outputs(images[i : i + step]) for i in range(0, len(images), step)])
    head = heads.detect(outputs)
    if head != "logits":
        notes.append(f"the model emits {head}, not logits (detected on {len(outputs)} images; --head overrides).")
    elif bool(((outputs >= 0) & (outputs <= 1)).all()):
        notes.append(
            "WARNING: the outputs lie in [0, 1] without summing to 1, as after a sigmoid; they are taken for logits."
        )
    return head


def _random_images(target: Target, options: Options) -> torch.Tensor:
    size = target.preprocessing.input_size or (options.input_size or _DEFAULT_SIZE,) * 2
    generator = torch.Generator().manual_seed(0)
    return torch.rand((_PAID_HEAD_SAMPLE, target.backend.channels or 3, *size), generator=generator)


def _check_head(head: str | None) -> Head | None:
    if head is None or head == "auto":
        return None
    for known in HEADS:
        if head == known:
            return known
    raise ConfigurationError(f"--head {head!r} is not understood.", hint=f"Write auto, {', '.join(HEADS)}.")


def _check_options(reference: ModelReference, options: Options) -> None:
    if options.precision not in ("fp32", "bf16"):
        raise ConfigurationError(f"--precision {options.precision!r} is not understood.", hint="Write fp32 or bf16.")
    if options.precision != "fp32" and not reference.is_network:
        raise ConfigurationError(f"--precision has no effect on {reference}.", hint="Leave it out.")
    for option, value in (
        ("input-size", options.input_size),
        ("batch-size", options.batch_size),
        ("num-classes", options.num_classes),
    ):
        if value is not None and value < 1:
            raise ConfigurationError(f"--{option} must be positive, not {value}.")
    if options.weights is not None and not reference.is_network:
        raise ConfigurationError(f"{reference} comes with its weights; --weights can't be given too.")
