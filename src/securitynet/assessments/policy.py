"""Policies: bounds on measurements that a continuous-integration job can check."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from securitynet.errors import ConfigurationError, PolicyError, describe_problems, suggest_names
from securitynet.files import read_toml
from securitynet.records import Measurement, Record
from securitynet.results.comparison import ResultComparison
from securitynet.results.grades import DEFAULT_BOUNDS, GradeBounds
from securitynet.results.policy import Comparator, PolicyCheck, PolicyOutcome, Violation

MOST_BOUNDS = 10_000
"""Bounds of one policy."""

GRADES_TABLE = "grades"
"""The table of a policy file that says where grades begin, instead of bounds on measurements."""


class Bound(Record):
    """A bound on a measurement.

    Attributes:
        min: Smallest value allowed.
        max: Largest value allowed.
        rise: Largest rise allowed, against an earlier result.
        fall: Largest fall allowed, likewise.
        on: What is compared: the ``value``, or the whole ``interval``, so that the bound must be met with confidence.
    """

    # Finite, because every comparison with NaN is false, so that such a bound would always be met.
    min: float | None = Field(default=None, strict=True, allow_inf_nan=False)
    max: float | None = Field(default=None, strict=True, allow_inf_nan=False)
    rise: float | None = Field(default=None, strict=True, allow_inf_nan=False)
    fall: float | None = Field(default=None, strict=True, allow_inf_nan=False)
    on: Literal["value", "interval"] = Field(default="value")

    @model_validator(mode="after")
    def _has_a_bound(self) -> Bound:
        if self.min is None and self.max is None and not self.on_change:
            raise ValueError("give min, max, rise or fall")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self

    @property
    def on_change(self) -> bool:
        """Whether it bounds the change against an earlier result."""
        return self.rise is not None or self.fall is not None

    def __str__(self) -> str:
        words = [f"at least {self.min:g}"] if self.min is not None else []
        words += [f"at most {self.max:g}"] if self.max is not None else []
        words += [f"a rise of at most {self.rise:g}"] if self.rise is not None else []
        words += [f"a fall of at most {self.fall:g}"] if self.fall is not None else []
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
    hint = 'Write "name.of.measurement" = { max = 0.02 }, with min, max, rise or fall.'
    for name, value in _leaves(content):
        if not isinstance(value, Mapping):
            raise PolicyError(
                f"{path}: the bound on {name!r} is not understood: {value!r} is not a table with min or max.", hint=hint
            )
        try:
            bounds[name] = Bound.model_validate(value)
        except ValidationError as error:
            reason = describe_problems(error, "bound")
            raise PolicyError(f"{path}: the bound on {name!r} is not understood: {reason}.", hint=hint) from error
    if len(bounds) > MOST_BOUNDS:
        raise PolicyError(
            f"{path} has {len(bounds):,} bounds, and may have {MOST_BOUNDS:,}.", hint="Write patterns: *.auc."
        )
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


def judge_bounds(
    policy: Policy, measurements: Iterable[Measurement], comparison: ResultComparison | None = None
) -> PolicyOutcome:
    """Compare measurements, and their changes, with bounds; a bound on what has no value is not met.

    Args:
        policy: The bounds. A ``*`` in a name stands for any part of it, so that one bound holds for many measurements.
        measurements: What was measured.
        comparison: The result against an earlier one, for bounds on a rise or a fall.
    """
    by_name = {measurement.name: measurement for measurement in measurements}
    differences = comparison.differences if comparison is not None else ()
    # What differs because other records were judged is no change of the model.
    changes = {d.name: d.difference for d in differences if d.verdict != "other records"}
    violations: list[Violation] = []
    checks: list[PolicyCheck] = []
    bounds = 0
    for name, bound in policy.items():
        matching = [known for known in by_name if fnmatch.fnmatchcase(known, name)] if "*" in name else [name]
        bounds += max(len(matching), 1)
        if not matching:
            violations.append(Violation(name=name, bound=str(bound), value=None, why="no measurement has such a name"))
        for one in matching:
            if bound.min is not None or bound.max is not None:
                if one in by_name and by_name[one].value is None and "*" in name:
                    continue  # a pattern bounds what has a value; a name that is written out must have one
                broken = list(_judge_value(one, bound, by_name))
                limits: dict[Comparator, float | None] = {">=": bound.min, "<=": bound.max}
                checks += _list_checks(one, limits, bound, by_name.get(one), broken)
                violations += broken
            if bound.on_change and (one in changes or "*" not in name):
                broken = list(_judge_change(one, bound, changes))
                on_change: dict[Comparator, float | None] = {"rise <=": bound.rise, "fall <=": bound.fall}
                checks += _list_checks(one, on_change, bound, changes.get(one), broken)
                violations += broken
        if bound.on_change and "*" in name and matching and not changes.keys() & set(matching):
            violations.append(Violation(name=name, bound=str(bound), value=None, why="nothing to compare it with"))
    return PolicyOutcome(met=not violations, bounds=bounds, violations=tuple(violations), checks=tuple(checks))


def _list_checks(
    name: str,
    limits: Mapping[Comparator, float | None],
    bound: Bound,
    measurement: Measurement | None,
    broken: Sequence[Violation],
) -> Iterator[PolicyCheck]:
    """The comparisons that one bound states, with their outcome."""
    for comparator, threshold in limits.items():
        if threshold is not None:
            yield PolicyCheck(
                metric=name,
                comparator=comparator,
                threshold=threshold,
                on=bound.on,
                value=measurement.value if measurement is not None else None,
                passed=not any(violation.comparator in (comparator, None) for violation in broken),
                sample_size=measurement.n if measurement is not None else 0,
            )


def _judge_value(name: str, bound: Bound, by_name: Mapping[str, Measurement]) -> Iterator[Violation]:
    measurement = by_name.get(name)
    if measurement is None:
        close = suggest_names(name, by_name, most=1, cutoff=0.8)
        why = f"not measured; did you mean {close}?" if close else "not measured"
        yield Violation(name=name, bound=str(bound), value=None, why=why)
    elif measurement.value is None or measurement.low is None or measurement.high is None:
        yield Violation(name=name, bound=str(bound), value=None, why=measurement.note or "has no value")
    else:
        low = measurement.low if bound.on == "interval" else measurement.value
        high = measurement.high if bound.on == "interval" else measurement.value
        if bound.min is not None and low < bound.min:
            why = f"{low:.4g} is below {bound.min:g}"
            yield Violation(name=name, bound=str(bound), value=measurement.value, why=why, comparator=">=")
        if bound.max is not None and high > bound.max:
            why = f"{high:.4g} is above {bound.max:g}"
            yield Violation(name=name, bound=str(bound), value=measurement.value, why=why, comparator="<=")


def _judge_change(name: str, bound: Bound, changes: Mapping[str, Measurement]) -> Iterator[Violation]:
    change = changes.get(name)
    if change is None or change.value is None or change.low is None or change.high is None:
        yield Violation(name=name, bound=str(bound), value=None, why="nothing to compare it with")
        return
    least = change.low if bound.on == "interval" else change.value
    most = change.high if bound.on == "interval" else change.value
    if bound.rise is not None and most > bound.rise:
        why = f"it {'may have' if bound.on == 'interval' else 'has'} risen by {most:.4g}"
        yield Violation(name=name, bound=str(bound), value=change.value, why=why, comparator="rise <=")
    if bound.fall is not None and -least > bound.fall:
        why = f"it {'may have' if bound.on == 'interval' else 'has'} fallen by {-least:.4g}"
        yield Violation(name=name, bound=str(bound), value=change.value, why=why, comparator="fall <=")


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, bound) for each table that contains a bound, and for everything that is not a table."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and not set(value) & {"min", "max", "rise", "fall", "on"}:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value
