"""Policies: bounds on measurements that a continuous-integration job can check."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from securitynet.errors import ConfigurationError, PolicyError
from securitynet.files import read_toml
from securitynet.records import Measurement, Record
from securitynet.results.document import PolicyOutcome, Violation
from securitynet.results.grades import DEFAULT_BOUNDS, GradeBounds

GRADES_TABLE = "grades"
"""The table of a policy file that says where grades begin, instead of bounds on measurements."""


class Bound(Record):
    """A bound on a measurement.

    Attributes:
        min: Smallest value allowed.
        max: Largest value allowed.
        on: What is compared: the ``value``, or the whole ``interval``, so that the bound must be met with confidence.
    """

    # Finite, because every comparison with NaN is false, so that such a bound would always be met.
    min: float | None = Field(default=None, strict=True, allow_inf_nan=False)
    max: float | None = Field(default=None, strict=True, allow_inf_nan=False)
    on: Literal["value", "interval"] = Field(default="value")

    @model_validator(mode="after")
    def _has_a_bound(self) -> Bound:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self

    def __str__(self) -> str:
        words = [f"at least {self.min:g}"] if self.min is not None else []
        words += [f"at most {self.max:g}"] if self.max is not None else []
        return " and ".join(words) + (" over the whole interval" if self.on == "interval" else "")


Policy = Mapping[str, Bound]


def read_policy(path: Path) -> Policy:
    """Read the bounds in a policy file.

    Keys are quoted names of measurements, or nested tables that spell them:
    ``"membership.modified-entropy.tpr@fpr=0.001" = { max = 0.02 }``.

    Raises:
        PolicyError: If the file cannot be read, contains no bound, or a bound is invalid.
    """
    try:
        content = read_toml(path)
    except ConfigurationError as error:
        raise PolicyError(error.message, hint=error.hint) from error
    graded = content.pop(GRADES_TABLE, None)
    bounds: dict[str, Bound] = {}
    hint = 'Write "name.of.measurement" = { max = 0.02 }, with min, max or both.'
    for name, value in _leaves(content):
        if not isinstance(value, Mapping):
            raise PolicyError(
                f"{path}: the bound on {name!r} is not understood: {value!r} is not a table with min or max.", hint=hint
            )
        try:
            bounds[name] = Bound.model_validate(value)
        except ValidationError as error:
            reason = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'bound'}: {problem['msg'].removeprefix('Value error, ')}"
                for problem in error.errors()
            )
            raise PolicyError(f"{path}: the bound on {name!r} is not understood: {reason}.", hint=hint) from error
    if not bounds and not graded:
        raise PolicyError(
            f"{path} holds no bounds.", hint='Write lines such as "target.test_accuracy" = { min = 0.9 }.'
        )
    return bounds


def read_grade_bounds(path: Path) -> dict[str, GradeBounds]:
    """Read where grades begin from the table ``grades`` of a policy file; empty if it has none.

    Raises:
        PolicyError: If the file cannot be read, a number is not one that grades follow from, or its bounds are invalid.
    """
    try:
        content = read_toml(path).get(GRADES_TABLE, {})
    except ConfigurationError as error:
        raise PolicyError(error.message, hint=error.hint) from error
    hint = 'Write "membership.auc" = { moderate = 0.6, high = 0.75 } below [grades].'
    if not isinstance(content, Mapping):
        raise PolicyError(f"{path}: grades is not a table.", hint=hint)
    table: dict[str, GradeBounds] = {}
    for family, own in content.items():
        nested = isinstance(own, Mapping) and not set(own) & {"moderate", "high"}
        for name, value in (
            {f"{family}.{scale}": bounds for scale, bounds in own.items()}.items() if nested else [(family, own)]
        ):
            if name not in DEFAULT_BOUNDS:
                raise PolicyError(
                    f"{path}: no grade follows from {name!r}.", hint=f"Known: {', '.join(DEFAULT_BOUNDS)}."
                )
            try:
                table[name] = GradeBounds.model_validate(
                    {key: float(number) if type(number) is int else number for key, number in value.items()}
                )
            except (ValidationError, AttributeError) as error:
                raise PolicyError(
                    f"{path}: the grades of {name!r} are not understood: {value!r}.", hint=hint
                ) from error
    return table


def judge(policy: Policy, measurements: Iterable[Measurement]) -> PolicyOutcome:
    """Compare measurements with bounds; a bound on a measurement without a value is not met."""
    by_name = {measurement.name: measurement for measurement in measurements}
    violations = []
    for name, bound in policy.items():
        measurement = by_name.get(name)
        if measurement is None:
            close = difflib.get_close_matches(name, by_name, n=1, cutoff=0.8)
            why = f"not measured; did you mean {close[0]}?" if close else "not measured"
            violations.append(Violation(name=name, bound=str(bound), value=None, why=why))
        elif measurement.value is None or measurement.low is None or measurement.high is None:
            why = measurement.note or "has no value"
            violations.append(Violation(name=name, bound=str(bound), value=None, why=why))
        else:
            low = measurement.low if bound.on == "interval" else measurement.value
            high = measurement.high if bound.on == "interval" else measurement.value
            if bound.min is not None and low < bound.min:
                why = f"{low:.4g} is below {bound.min:g}"
                violations.append(Violation(name=name, bound=str(bound), value=measurement.value, why=why))
            if bound.max is not None and high > bound.max:
                why = f"{high:.4g} is above {bound.max:g}"
                violations.append(Violation(name=name, bound=str(bound), value=measurement.value, why=why))
    return PolicyOutcome(met=not violations, bounds=len(policy), violations=tuple(violations))


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, bound) for each table that contains a bound, and for everything that is not a table."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and not set(value) & {"min", "max", "on"}:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value
