"""The contract that every attack, detector, defense, backend and dataset must satisfy, for the tests of plug-ins.

Each ``check_…`` raises `ContractError` at the first violation, and returns nothing. They need no download: the targets
are small networks on scikit-learn's digits, trained once per process.

    from securitynet.testing import check_attack

    def test_margin_keeps_the_contract():
        check_attack(Margin())
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import securitynet.datasets
from securitynet.attacks.base import Attack
from securitynet.attacks.membership._scores import MembershipScores
from securitynet.datasets.base import ImageDataset
from securitynet.datasets.source import Request, Source
from securitynet.defenses.base import OutputDefense, TrainingDefense
from securitynet.detectors.base import Detector
from securitynet.errors import AccessDenied, ConfigurationError
from securitynet.methods.base import Method
from securitynet.methods.context import Context
from securitynet.methods.output import Output
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.records import Access, Auxiliary, Measurement, ThreatModel
from securitynet.testing.cases import Case, OutputsOnly, make_clean_case, make_null_case, make_overfitted_case

__all__ = [
    "Case",
    "ContractError",
    "OutputsOnly",
    "check_access",
    "check_attack",
    "check_backend",
    "check_beats_chance",
    "check_chance_on_null",
    "check_dataset",
    "check_defense",
    "check_detector",
    "check_foreign_threat_models",
    "check_output",
    "check_reproducible",
    "check_scores",
    "check_together",
    "make_clean_case",
    "make_null_case",
    "make_overfitted_case",
]

FPRS = (0.1, 0.01)


class ContractError(AssertionError):
    """The contract is violated."""


def check_attack(attack: Attack, *, case: Case | None = None, null_case: Case | None = None) -> None:
    """Check an attack under each of its threat models.

    All attacks must give the same result twice with one seed, whatever was drawn before; an output that can be stored
    and restored; measurements with intervals; and must use no more access and no more queries than stated. Membership
    inference must also be well above chance on an overfitted target, and at chance where there is nothing to infer.

    Args:
        attack: The attack, configured to be quick on 240 grey images of 8×8 pixels.
        case: Target and data to try it on. Default: `make_overfitted_case`.
        null_case: For membership inference, a case whose truth is chance. Default: `make_null_case`.

    Raises:
        ContractError: At the first violation.
    """
    case = case or make_overfitted_case()
    with tempfile.TemporaryDirectory() as folder:
        for number, threat_model in enumerate(attack.threat_models):
            cache = Path(folder) / str(number)
            output = _check_method(attack, case, threat_model, cache)
            if issubclass(attack.output, MembershipScores):
                check_scores(output)
                check_chance_on_null(attack, null_case or make_null_case(), threat_model, cache=cache)
    check_foreign_threat_models(attack, case)


def check_detector(detector: Detector, *, case: Case | None = None) -> None:
    """Check a backdoor detector under each of its threat models, as `check_attack` checks all attacks.

    Args:
        detector: The detector, configured to be quick on grey images of 8×8 pixels in ten classes.
        case: Target and data to try it on. Default: `make_clean_case`.

    Raises:
        ContractError: At the first violation.
    """
    case = case or make_clean_case()
    with tempfile.TemporaryDirectory() as folder:
        for number, threat_model in enumerate(detector.threat_models):
            _check_method(detector, case, threat_model, Path(folder) / str(number))
    check_foreign_threat_models(detector, case)


def check_defense(defense: OutputDefense | TrainingDefense, *, case: Case | None = None) -> None:
    """Check a defense.

    Output defenses: the outputs for an image do not depend on its batch, are finite and not negative, and keep the
    predicted class; and the network stays hidden. Training defenses: changing a recipe is idempotent; a training works,
    can be repeated exactly, and is recorded. Both: the settings can be stored as JSON.

    Args:
        defense: The defense, configured so that it can be trained on 449 grey images of 8×8 pixels for two epochs.
        case: For output defenses, the target to defend. Default: `make_clean_case`.

    Raises:
        ContractError: At the first violation.
    """
    restored = type(defense).model_validate_json(defense.model_dump_json())
    _require(restored == defense, "its settings do not survive being written as JSON")
    if isinstance(defense, OutputDefense):
        _check_output_defense(defense, case or make_clean_case())
    else:
        _check_training_defense(defense)


def check_backend(backend: Backend, images: torch.Tensor) -> None:
    """Check a backend on some inputs.

    Args:
        backend: The backend, ready for queries.
        images: Suitable inputs, N×C×H×W float32, at least two and all different.

    Raises:
        ContractError: At the first violation.
    """
    _require(bool(backend.reference), "it has no reference")
    _require(len(backend.checksum) >= 16, "its checksum is too short to identify a model")
    outputs = backend.outputs(images)
    _require(outputs.ndim == 2 and len(outputs) == len(images), f"its outputs have shape {outputs.shape}, not N×K")
    _require(outputs.dtype == torch.float32 and outputs.device.type == "cpu", "outputs are not float32 on the CPU")
    _require(bool(outputs.isfinite().all()), "outputs are not finite")
    _require(backend.num_classes in (None, outputs.shape[1]), f"it claims {backend.num_classes} classes")
    _require(backend.channels in (None, images.shape[1]), f"it claims {backend.channels} channels")
    _require(torch.equal(outputs, backend.outputs(images)), "the same images get other outputs the second time")
    alone = torch.cat([backend.outputs(image[None]) for image in images])
    _require(torch.allclose(outputs, alone, rtol=1e-4, atol=1e-4), "an output depends on the rest of its batch")
    if backend.white_box:
        frozen = not any(parameter.requires_grad for parameter in backend.module.parameters())
        _require(frozen and not backend.module.training, "its module is not frozen in evaluation mode")
    else:
        _require_denied(lambda: backend.module, "it hands out a module though it is not white-box")
        _require_denied(lambda: backend.embeddings(images), "it shows embeddings though it is not white-box")


def check_dataset(loader: Callable[[Request], Source], root: Path, *, name: str = "mine") -> None:
    """Check a dataset's loader: the dataset is valid, and the same when it is loaded again.

    Args:
        loader: The loader, as it is registered.
        root: Folder of its files.
        name: Name of the dataset in the registry.

    Raises:
        ContractError: At the first violation.
        DatasetError: If the dataset is invalid.
    """
    request = Request(name, name, root)
    first, second = loader(request), loader(request)
    every = np.arange(len(first.labels), dtype=np.int64)
    _require(len(first.pixels) == len(every), f"{len(first.pixels)} images for {len(every)} labels")
    _require(np.array_equal(first.labels, second.labels), "labels change from one loading to the next")
    _require(first.pixels.digest(None, None) == second.pixels.digest(None, None), "its digest changes")
    _require(set(first.parts) == set(second.parts), "parts change from one loading to the next")
    for part, indices in first.parts.items():
        _require(np.array_equal(indices, second.parts[part]), f"part {part!r} changes from one loading to the next")
    blank = torch.zeros((len(every), 1, 1, 1), dtype=torch.uint8)
    ImageDataset(name, blank, first.labels, first.class_names, first.parts, first.attributes)  # checks labels
    some = every[[-1, 0, len(every) // 2]]
    together = first.pixels.fetch(some)
    for index, item in zip(some, together, strict=True):
        (alone,) = first.pixels.fetch(np.asarray([index]))
        same = np.array_equal(item, np.asarray(alone)) if isinstance(item, np.ndarray) else item == alone
        _require(same, f"image {index} depends on what else is fetched")
        if isinstance(item, np.ndarray):
            _require(item.dtype == np.uint8 and item.ndim == 3, f"image {index} is not C×H×W uint8")


def check_beats_chance(attack: Method, case: Case, threat_model: ThreatModel, *, cache: Path | None = None) -> None:
    """Check that membership inference succeeds on a target that has memorised its members.

    Args:
        attack: The attack.
        case: The target and its data.
        threat_model: One of the attack's threat models.
        cache: Folder for signals and shadow models; None stores nothing.
    """
    check_scores(_run(attack, case, threat_model, cache=cache))


def check_scores(output: Output) -> None:
    """Check that the scores of membership inference on an overfitted target distinguish members from non-members."""
    measurements = _measure(output)
    for name, least in (("auc", 0.6), ("balanced-accuracy", 0.55)):
        low = measurements[name].low
        value, high = measurements[name].value, measurements[name].high
        sign = (
            "; members score lower, where higher must mean member: return the scores with the opposite sign"
            if name == "auc" and high is not None and high < 0.5
            else ""
        )
        _require(low is not None and low > least, f"{name} on an overfitted target is {value}{sign}")


def check_chance_on_null(attack: Method, case: Case, threat_model: ThreatModel, *, cache: Path | None = None) -> None:
    """Check that membership inference is at chance on records that the target never saw.

    The bound is 1.6 half-widths of a 95% interval, about three standard errors.

    Args:
        attack: The attack.
        case: The target and its data.
        threat_model: One of the attack's threat models.
        cache: Folder for signals and shadow models; None stores nothing.
    """
    measurements = _measure(_run(attack, case, threat_model, cache=cache))
    for name in ("auc", "balanced-accuracy"):
        value, low, high = (getattr(measurements[name], part) for part in ("value", "low", "high"))
        _require(abs(value - 0.5) < 0.8 * (high - low), f"{name} is {value} where the truth is one half")


def check_reproducible(
    method: Method,
    case: Case,
    threat_model: ThreatModel,
    *,
    caches: tuple[Path | None, Path | None] = (None, None),
) -> Output:
    """Check that one seed gives one result, whatever was drawn from the global generators before.

    Args:
        method: An attack or a detector.
        case: The target and its data.
        threat_model: One of the method's threat models.
        caches: Two folders without any outputs of the target.

    Returns:
        The result, for further checks.
    """
    with _global_state(1):
        output = _run(method, case, threat_model, cache=caches[0])
    first = output.arrays()
    with _global_state(2):
        second = _run(method, case, threat_model, cache=caches[1]).arrays()
    _require(first.keys() == second.keys(), "a second run with the same seed gives other arrays")
    for name, array in first.items():
        _require(_same(array, second[name]), f"{name} differs in a second run with the same seed")
    return output


def check_output(output: Output) -> None:
    """Check that an output can be stored as arrays and restored, and that its headline is among its measurements."""
    measurements = _measure(output)
    restored = _measure(type(output).from_arrays(output.arrays()))
    _require(restored == measurements, "measurements change when the output is written and read again")
    _require(bool(set(output.headline) & set(measurements)), f"no measurement is named in {output.headline}")


def check_access(method: Method, case: Case, threat_model: ThreatModel, *, cache: Path | None = None) -> None:
    """Check that a method needs no more than its access, and counts every image that it queries.

    Args:
        method: An attack or a detector.
        case: The target and its data.
        threat_model: One of the method's threat models.
        cache: Folder for signals and shadow models; None stores nothing.
    """
    backend = OutputsOnly(case.target.backend)
    sealed = _replace_backend(case.target, backend)
    context = Context(cache=cache)
    if threat_model.access is Access.WHITE_BOX:
        _require_denied(
            lambda: method(sealed, case.data, context, threat_model), "it ran on a target that gives outputs only"
        )
        return
    method(sealed, case.data, context, threat_model)
    counted = context.queries()
    _require(counted.total == backend.calls, f"it queried {backend.calls} images and counted {counted.total}")
    _require(counted.unique <= counted.total, "more distinct images are counted than images")


def check_foreign_threat_models(method: Method, case: Case) -> None:
    """Check that a method refuses every threat model that it does not support."""
    for threat_model in (ThreatModel(access=access, auxiliary=data) for access in Access for data in Auxiliary):
        if threat_model in method.threat_models:
            continue
        try:
            method(case.target, case.data, Context(), threat_model)
        except ConfigurationError:
            continue
        raise ContractError(f"it does not refuse {threat_model}, which it does not support")


def check_together(method: Method, case: Case, threat_model: ThreatModel, alone: Output, *, cache: Path) -> None:
    """Check that `run_together` gives exactly the output of `run`.

    Args:
        method: An attack or a detector that says so (``exact_together``).
        case: The target and its data.
        threat_model: One of the method's threat models.
        alone: The output of `run` with seed 0.
        cache: Folder with the outputs of the target.
    """
    cases = []
    for _ in range(3):
        view, context = method.admitted(case.target, Context(seed=0, cache=cache, device="cpu"), threat_model)
        cases.append((view, case.data, context))
    outputs = method.run_together(cases)
    _require(len(outputs) == len(cases), "run_together does not return one output for each target")
    for output in outputs:
        arrays = output.arrays()
        _require(arrays.keys() == alone.arrays().keys(), "run_together gives other arrays than run")
        for name, array in alone.arrays().items():
            _require(_same(array, arrays[name]), f"{name} of run_together differs from that of run")


def _check_method(method: Method, case: Case, threat_model: ThreatModel, folder: Path) -> Output:
    # Each run has its own cache: cached outputs of the first would hide that the second queries other images.
    output = check_reproducible(method, case, threat_model, caches=(folder, folder / "again"))
    check_output(output)
    if method.exact_together:
        check_together(method, case, threat_model, output, cache=folder)
    check_access(method, case, threat_model, cache=folder / "counted")
    return output


def _check_output_defense(defense: OutputDefense, case: Case) -> None:
    images = case.data.dataset.batch(case.data.judged[:24])
    context = Context(seed=0)
    target = case.target.through(defense.interface(case.target, case.data, context))
    outputs = target.raw_outputs(images)
    _require(bool((outputs >= 0).all()), "some of its outputs are negative")
    _require(torch.equal(outputs.argmax(1), case.target.labels(images)), "it changes the predicted class")
    alone = torch.cat([target.raw_outputs(image[None]) for image in images])
    _require(torch.allclose(outputs, alone, atol=1e-5), "an output depends on the rest of its batch")
    again = case.target.through(defense.interface(case.target, case.data, Context(seed=0)))
    _require(again.identity == target.identity, "the same defense with the same seed changes its identity")
    _require_denied(lambda: target.module, "it does not hide the network")


def _check_training_defense(defense: TrainingDefense) -> None:
    recipe = Recipe(epochs=2)
    once = defense.change_recipe(recipe)
    _require(defense.change_recipe(once) == once, "changing a recipe twice is not the same as changing it once")
    digits = securitynet.datasets.load("digits")
    checksums = []
    with tempfile.TemporaryDirectory() as folder:
        for run in (1, 2):
            weights = Path(folder) / f"run-{run}.safetensors"
            with _global_state(run):
                trained = train_target(
                    "simple-cnn", digits, defense=defense, device="cpu", out=weights, epochs=2, seed=1
                )
            checksums.append(trained.backend.checksum)
            record = weights.with_suffix(".json").read_text(encoding="utf-8")
            _require(defense.name in record, "the model record does not name it")
    _require(checksums[0] == checksums[1], "the same training gives other weights the second time")


def _run(method: Method, case: Case, threat_model: ThreatModel, *, cache: Path | None = None) -> Output:
    return method(case.target, case.data, Context(seed=0, cache=cache), threat_model)


def _measure(output: Output) -> dict[str, Measurement]:
    return {m.name: m for m in output.measurements(level=0.95, fprs=FPRS, seed=0)}


def _replace_backend(target: Target, backend: Backend) -> Target:
    """Return the target with another backend, with black-box access and a new query count."""
    return Target(backend, head=target.head, preprocessing=target.preprocessing, access=Access.BLACK_BOX)


def _same(first: NDArray[np.generic], second: NDArray[np.generic]) -> bool:
    return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


@contextmanager
def _global_state(seed: int) -> Iterator[None]:
    """Seed the global generators of NumPy and torch within a block, and restore their state afterwards."""
    state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(state)


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ContractError(f"The contract is not kept: {problem}.")


def _require_denied(action: Callable[[], object], problem: str) -> None:
    try:
        action()
    except AccessDenied:
        return
    raise ContractError(f"The contract is not kept: {problem}.")
