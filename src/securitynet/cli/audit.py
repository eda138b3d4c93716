"""`securitynet audit`: lower bounds on the epsilon of a training with canaries."""

from __future__ import annotations

from typing import Annotated

import typer

from securitynet.assessments.audit_config import AuditConfig
from securitynet.cli import console
from securitynet.cli.options import add_config_options


@add_config_options(AuditConfig, positional=("weights",))
def audit(
    config: AuditConfig,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON to stdout.")] = False,
) -> None:
    """Bound the epsilon of a training with canaries from below, beside the one that DP-SGD states.

    The exit code is 3 if the bounds contradict the stated epsilon.

    Example: securitynet audit model.safetensors --dataset digits
    """
    from securitynet.assessments.audit import audit_weights
    from securitynet.files import check_writable, write_json

    if config.out is not None:
        check_writable(config.out.parent)
    result = audit_weights(config)
    if config.out is not None:
        write_json(config.out, result.model_dump(mode="json"))
    if json:
        console.print_json(result.model_dump(mode="json"))
    else:
        for sentence in result.sentences:
            console.stdout.print(sentence, markup=False, soft_wrap=True)
        for measurement in result.measurements:
            value = "not resolvable" if measurement.value is None else f"at least {measurement.value:.3f}"
            console.stdout.print(
                f"  {measurement.name}: {value} ({measurement.note})", markup=False, soft_wrap=True, highlight=False
            )
    if result.verdict == "contradicted":
        raise typer.Exit(3)
