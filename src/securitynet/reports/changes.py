"""A result against an earlier one, as the page, the terminal and a comment on a pull request show it."""

from __future__ import annotations

from dataclasses import dataclass

from securitynet.reports import verdict, words
from securitynet.results.comparison import ChangedRecord, ExposureChange, MeasuredDifference, ResultComparison
from securitynet.results.exports.texts import split_name
from securitynet.results.policy import PolicyOutcome

MOST_FILES = 12
"""Newly exposed members that are listed; ``result.json`` has more."""


MOST_ROWS = 12
"""Measurements that a page lists, unless more of them changed."""


@dataclass(frozen=True)
class DifferenceRow:
    """One measurement of both results.

    Attributes:
        name: Dotted.
        label: In words, with the attack.
        old: The earlier value, as text.
        new: The value now, likewise.
        change: The difference with its interval.
        verdict: What the interval shows, for the owner.
        paired: Whether the interval is that of the same records.
    """

    name: str
    label: str
    old: str
    new: str
    change: str
    verdict: str
    paired: bool


@dataclass(frozen=True)
class Changes:
    """A result against an earlier one, as a page shows it.

    Attributes:
        sentences: What the comparison shows.
        rows: The measurements, those that changed first.
        omitted: Further measurements without a shown difference.
        exposure: How the exposed members of each attack changed.
        files: Newly exposed members, by the attack that has most of them.
    """

    sentences: list[str]
    rows: list[DifferenceRow]
    omitted: int
    exposure: list[str]
    files: list[str]


def describe_changes(comparison: ResultComparison) -> Changes:
    """Describe a comparison as a page shows it."""
    rows = list_differences(comparison)
    shown = max(MOST_ROWS, sum(row.verdict in ("worse", "better") for row in rows))
    change = find_most_changed(comparison)
    return Changes(
        sentences=describe_comparison(comparison),
        rows=rows[:shown],
        omitted=max(len(rows) - shown, 0),
        exposure=[describe_exposed_change(one) for one in comparison.exposure],
        files=[name_record(record) for record in change.newly[:MOST_FILES]] if change else [],
    )


def describe_comparison(comparison: ResultComparison) -> list[str]:
    """Describe a comparison in sentences."""
    worse, better = ([d for d in comparison.differences if d.verdict == which] for which in ("worse", "better"))
    number = len(comparison.differences)
    incomparable = sum(d.verdict == "other records" for d in comparison.differences)
    rest = number - len(worse) - len(better) - incomparable
    sentences = [
        f"Of {words.count_noun(number, 'measurement')} in both results, {len(worse)} "
        f"{'is' if len(worse) == 1 else 'are'} shown to be worse for the owner, and {len(better)} better; "
        f"{rest} {'shows' if rest == 1 else 'show'} no difference."
    ]
    if incomparable:
        sentences.append(
            f"Nothing is concluded from {incomparable}: the model is the same, and its members or non-members differ."
        )
    if number > 20:
        sentences.append("Of so many, about one in twenty may show a difference by chance.")
    if comparison.records:
        sentences.append(f"The AUCs and the accuracies are paired by {comparison.records:,} records.")
    return [*sentences, *comparison.notes]


def list_differences(comparison: ResultComparison, *, most: int | None = None) -> list[DifferenceRow]:
    """The measurements of both results: those that got worse, those that got better, then the others.

    Args:
        comparison: The comparison.
        most: How many to return.
    """
    order = {"worse": 0, "better": 1, "no difference shown": 2, "other records": 3}
    ordered = sorted(comparison.differences, key=lambda d: (order[d.verdict], not d.paired))
    return [_row(difference) for difference in ordered[:most]]


def describe_exposed_change(change: ExposureChange) -> str:
    """Describe in a sentence how the exposed members of an attack changed."""
    title = verdict.title_attack(change.trial)
    if not change.newly_count + change.no_longer_count:
        return f"{title} exposes the same members as before."
    p_value = f"p\u00a0=\u00a0{change.p_value:.3f}" if change.p_value >= 0.001 else "p\u00a0<\u00a00.001"
    shown = "" if change.p_value < 0.05 else "; so many may change by chance"
    return (
        f"{title} exposes {words.count_noun(change.newly_count, 'further member')} and no longer exposes "
        f"{change.no_longer_count:,}, at {words.write_percent(change.share)} of the non-members (McNemar's test: "
        f"{p_value}{shown})."
    )


def find_most_changed(comparison: ResultComparison) -> ExposureChange | None:
    """The attack with most newly exposed members; None if there are none."""
    changes = [change for change in comparison.exposure if change.newly_count]
    return max(changes, key=lambda change: (change.newly_count, change.trial), default=None)


def name_record(record: ChangedRecord) -> str:
    """The file of a record, or its number."""
    return record.file or f"record {record.record}"


def write_markdown(comparison: ResultComparison, policy: PolicyOutcome | None = None) -> str:
    """A comment for a pull request: the verdict of the policy, the table, and the newly exposed members."""
    lines = [f"### SecurityNet: {_escape(comparison.new_model)} against {_escape(comparison.old_model)}", ""]
    if policy is not None:
        lines += [f"**The policy is {'met' if policy.met else 'not met'}** ({policy.bounds} bounds).", ""]
        lines += [f"- `{v.name}` must be {v.bound}: {_escape(v.why)}" for v in policy.violations]
        lines += [""] if policy.violations else []
    lines += [_escape(" ".join(describe_comparison(comparison))), ""]
    lines += ["| measurement | before | now | change | |", "|---|--:|--:|--:|---|"]
    rows = list_differences(comparison)
    notable = [row for row in rows if row.verdict in ("worse", "better")] or rows[:10]
    lines += [f"| {_escape(r.label)} | {r.old} | {r.new} | {r.change} | {r.verdict} |" for r in notable]
    change = find_most_changed(comparison)
    if change is not None:
        lines += ["", _escape(describe_exposed_change(change)), ""]
        lines += [f"- {_escape(name_record(record))}" for record in change.newly[:MOST_FILES]]
    return "\n".join(lines) + "\n"


def _row(difference: MeasuredDifference) -> DifferenceRow:
    kind = words.find_kind(difference.name)
    trial = split_name(difference.name)[0]
    old, new, change = words.write_change(difference.old, difference.new, difference.difference)
    return DifferenceRow(
        name=difference.name,
        label=kind.label if trial == "target" else f"{verdict.title_attack(trial)}: {kind.label}",
        old=old,
        new=new,
        change=change,
        verdict=difference.verdict,
        paired=difference.paired,
    )


def _escape(text: str) -> str:
    """Text that Markdown shows as it is: names of files come from strangers."""
    flat = " ".join(text.split())
    for character in "\\`*_[]<>|#@":
        flat = flat.replace(character, f"\\{character}" if character != "@" else "@\u200b")
    return flat
