"""`load_target`: from a reference to a target that is ready to be asked, safely."""

from __future__ import annotations

from pathlib import Path

import torch

from securitynet.datasets.base import ImageDataset
from securitynet.devices import resolve_device
from securitynet.errors import AccessDenied, ConfigurationError, TargetError
from securitynet.models.loading.normalization import choose_normalization, sample_indices
from securitynet.models.loading.open import DEFAULT_SIZE, Opened, Options, open_answers, open_network
from securitynet.models.sources.base import Progress
from securitynet.models.sources.catalog import resolve
from securitynet.models.sources.preprocessing import Preprocessing, parse_normalization
from securitynet.models.sources.references import ModelReference, parse_reference
from securitynet.models.targets import heads
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.heads import HEADS, Head
from securitynet.models.targets.query_count import QueryCounter
from securitynet.models.targets.target import Target
from securitynet.records import Access

HEAD_SAMPLE = 256
"""Most images on which the kind of head is told."""

# Endpoints may charge for answers: fewer images tell the kind of head nearly as surely.
_PAID_SAMPLE = 32
_RANDOM_SAMPLE = 8
_USUAL_SIZES = (32, 28, 64, 224, 299)


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
    timeout: float = 30.0,
    retries: int = 5,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Target:
    """Load the model that a reference names.

    Nothing in a model file is executed; the one code that runs is a factory that the user names (``python:``).

    Args:
        reference: See `securitynet.models.sources.references.FORMS`.
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
        timeout: Seconds to wait for an endpoint's answer.
        retries: How often an endpoint that fails is asked again.
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
    if parsed.scheme == "catalog":
        parsed = resolve(parsed)
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
        timeout=timeout,
        retries=retries,
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
    ledger = QueryCounter(options.max_queries)
    notes = list(opened.notes)
    target = Target(backend, preprocessing=preprocessing, ledger=ledger if opened.paid else QueryCounter())
    if opened.recorded:
        target.head = options.head or opened.head or "logits"
    elif options.head is None:
        target.head = _detect_head(_sample_outputs(target, opened, options, dataset), notes)
    else:
        target.head = options.head
        if not opened.paid:
            _doubt_head(options.head, _sample_outputs(target, opened, options, dataset), notes)
    _check_classes(backend, options, dataset)
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
                f"--normalize {options.normalize} has {len(mean)} channels, {opened.backend.reference} has {channels}.",
                hint="Give one value for each channel, or one for all.",
            )
        return preprocessing.model_copy(update={"mean": mean, "std": std}), False
    return preprocessing, opened.preprocessing is None and labelled and not opened.paid and not opened.recorded


def _check_classes(backend: Backend, options: Options, dataset: ImageDataset | None) -> None:
    count = backend.num_classes
    if count is None:
        return
    if dataset is not None and count != dataset.num_classes:
        raise TargetError(
            f"{backend.reference} has {count} classes; {dataset.reference} has {dataset.num_classes}.",
            hint="Choose the dataset that the model was trained on.",
        )
    if options.num_classes is not None and count != options.num_classes:
        raise TargetError(
            f"{backend.reference} has {count} classes; --num-classes says {options.num_classes}.",
            hint="Leave the option out.",
        )


def _sample_outputs(target: Target, opened: Opened, options: Options, dataset: ImageDataset | None) -> torch.Tensor:
    if dataset is not None and dataset.images is not None:
        most = min(_PAID_SAMPLE, options.max_queries or _PAID_SAMPLE) if opened.paid else HEAD_SAMPLE
        return _ask(target, dataset.batch(sample_indices(dataset, most)))
    return _ask_random(target, opened)


def _doubt_head(stated: Head, outputs: torch.Tensor, notes: list[str]) -> None:
    """Warn where the user's word on the head contradicts the outputs: scores would be wrong without looking so.

    Logits and log-probabilities are read alike: only mistaking either for probabilities, or the reverse, matters.
    """
    looks = heads.detect(outputs)
    if (looks == "probabilities") != (stated == "probabilities"):
        notes.append(f"WARNING: --head says {stated}; on {len(outputs)} images the outputs look like {looks}.")


def _detect_head(outputs: torch.Tensor, notes: list[str]) -> Head:
    head = heads.detect(outputs)
    if head != "logits":
        notes.append(f"the model emits {head}, not logits (detected on {len(outputs)} images; --head overrides).")
    elif bool(((outputs >= 0) & (outputs <= 1)).all()) and float(outputs.std()) > 0:
        notes.append(
            "WARNING: the outputs lie in [0, 1] without summing to 1, as after a sigmoid; they are taken for logits."
        )
    return head


def _ask(target: Target, images: torch.Tensor) -> torch.Tensor:
    step = target.batch_size
    return torch.cat([target.raw_outputs(images[i : i + step]) for i in range(0, len(images), step)])


def _ask_random(target: Target, opened: Opened) -> torch.Tensor:
    """Outputs for random images, of the first usual size that the model takes if its own is not known."""
    known = target.preprocessing.input_size or opened.example_size
    sizes = ([known] if known else []) + ([] if opened.paid else [(size, size) for size in _USUAL_SIZES])
    generator = torch.Generator().manual_seed(0)
    first: TargetError | None = None
    for size in sizes or [(DEFAULT_SIZE, DEFAULT_SIZE)]:
        images = torch.rand((_RANDOM_SAMPLE, target.backend.channels or 3, *size), generator=generator)
        try:
            return _ask(target, images)
        except TargetError as error:
            first = first or error
    assert first is not None  # there is at least one size
    raise first


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
    if reference.scheme == "outputs" and (options.normalize is not None or options.input_size is not None):
        raise ConfigurationError(f"{reference} holds answers: --normalize and --input-size have no effect.")
    if options.weights is not None and not reference.is_network:
        raise ConfigurationError(f"{reference} comes with its weights; --weights can't be given too.")
