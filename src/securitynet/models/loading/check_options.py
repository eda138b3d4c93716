"""Check the options of `load_target` before anything is opened."""

from __future__ import annotations

from securitynet.errors import ConfigurationError, UnsafeFile
from securitynet.models.sources.references import ModelReference
from securitynet.models.targets.backends.base import LoadOptions
from securitynet.models.targets.heads import HEADS, Head


def check_head(head: str | None) -> Head | None:
    """Return the head that ``--head`` states; None for ``auto``. Raises `ConfigurationError` for an unknown one."""
    if head is None or head == "auto":
        return None
    for known in HEADS:
        if head == known:
            return known
    raise ConfigurationError(f"--head {head!r} is not understood.", hint=f"Write auto, {', '.join(HEADS)}.")


def check_numbers(options: LoadOptions) -> None:
    """Raise `ConfigurationError` for an unknown precision or a number that is not positive."""
    if options.precision not in ("fp32", "bf16"):
        raise ConfigurationError(f"--precision {options.precision!r} is not understood.", hint="Write fp32 or bf16.")
    for option, value in (
        ("input-size", options.input_size),
        ("batch-size", options.batch_size),
        ("num-classes", options.num_classes),
    ):
        if value is not None and value < 1:
            raise ConfigurationError(f"--{option} must be positive, not {value}.")


def check_options(reference: ModelReference, options: LoadOptions) -> None:
    """Refuse options that the kind of model does not take.

    Raises:
        ConfigurationError: If an option would have no effect.
        UnsafeFile: If the model is a program that is not trusted.
    """
    if options.precision != "fp32" and not reference.is_network:
        raise ConfigurationError(f"--precision has no effect on {reference}.", hint="Leave it out.")
    if reference.declaration.recorded and (options.normalize is not None or options.input_size is not None):
        raise ConfigurationError(f"{reference} holds recorded outputs: --normalize and --input-size have no effect.")
    declared = reference.declaration
    if options.weights is not None and not declared.takes_weights:
        raise ConfigurationError(f"{reference} comes with its weights; --weights can't be given too.")
    if options.output is not None and "output" not in declared.options:
        raise ConfigurationError(
            f"{reference} has one output; --output can't be given.", hint="It is for formats such as ONNX."
        )
    if options.trust and not declared.trust:
        raise ConfigurationError(
            f"{reference} runs no code from its file; --trust has no effect.", hint="Leave it out."
        )
    if declared.trust and not options.trust:
        raise UnsafeFile(
            f"{reference} is a program, which is not run unless you say that you trust it.",
            hint=f"--trust {declared.trust}",
        )
