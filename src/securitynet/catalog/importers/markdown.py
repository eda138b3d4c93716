"""The published SecurityNet tables in Markdown: benchmark models, security models, and papers with weights."""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from securitynet.catalog.importers.base import ImportProblem, Table, TableError, describe_reason
from securitynet.catalog.known import complete_entry, find_family_codes
from securitynet.catalog.store import Item, Measured
from securitynet.errors import SecurityNetError

SECURITYNET_PAPER = "https://arxiv.org/abs/2310.12665"
PYTORCHCV_PAGE = "github.com/osmr/imgclsmob"

MEASURED = {
    "Train Accuracy": "accuracy.train",
    "Test Accuracy": "accuracy.test",
    "Overfit Gap": "accuracy.gap",
    "Model Stealing Accuracy": "stealing.accuracy",
    "Model Stealing Agreement": "stealing.agreement",
    "Correct Auc": "membership.correctness.auc",
    "M_entropy AUC": "membership.modified-entropy.auc",
    "Wrn Accuracy": "stealing.surrogate=wrn-50.accuracy",
    "Wrn Agree": "stealing.surrogate=wrn-50.agreement",
    "ImgNet Accuracy": "stealing.auxiliary=imagenet.accuracy",
    "ImgNet Agree": "stealing.auxiliary=imagenet.agreement",
}
_MODEL_COLUMNS = frozenset({"Model Name", "Model Type", "Data Name", "Data Category", "Num Class", "Training Size",
    "Conference", "Conference Type", "Year", "Country", "Num Authors", "Purpose", "Paper Link", "Weights"})  # fmt: skip
_PAPER_COLUMNS = frozenset({"Title", "Conference", "Conference Type", "Year", "Paper Link", "Weights", "Note"})
_VENUE_TYPES = {"cv": "computer vision", "ml": "machine learning", "arxiv": "preprint", "security": "security"}
_COUNTRIES = {"Korea": "South Korea", "Netherland": "Netherlands"}
_CELL = re.compile(r"(?<!\\)\|")
_DASHES = re.compile(r":?-+:?")
_MARKDOWN_LINK = re.compile(r"\]\(\s*<?(https?:[^)\s>]+)>?|\]\(\s*([^)\s]+)")
_HTML_LINK = re.compile(r"<a\s[^<>]*href\s*=\s*[\"']([^\"']+)[\"']", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_DATASET_SUFFIX = re.compile(r"_(cifar10|cifar100|svhn|cub)$")
_MEDMNIST_RUN = re.compile(r"_(?:28_|224_|acs_|2\.5D_|3D_)?\d+(?:\.pth)?$")
_ADVERSARIAL = re.compile(r"^(?P<architecture>.+?)_(?P<norm>l2|linf)_eps(?P<size>[\d.]+?)(?:\.ckpt)?$")


def read_markdown(text: str, source: str) -> Table:
    """Read all tables of models and of papers in a Markdown page.

    Raises:
        TableError: If there is no such table, or one of models lacks columns.
    """
    table = Table(source)
    repeats: Counter[tuple[str, str, str]] = Counter()
    tables = 0
    for heading, header, rows in _tables(text.splitlines()):
        columns = set(header)
        if not header:
            # Behind a gap, or below a heading row that is none: not to be lost in silence.
            table.problems += [ImportProblem(line, "a row outside of any table") for line, _ in rows]
        elif "Model Name" in columns:
            _require(columns, _MODEL_COLUMNS | {"Test Accuracy"}, heading)
            tables += 1
            for line, cells in rows:
                _row(table, line, header, cells, lambda values: _model(values, repeats))
        elif columns >= {"Title", "Weights"}:
            _require(columns, _PAPER_COLUMNS - {"Note"}, heading)
            tables += 1
            for line, cells in rows:
                _row(table, line, header, cells, _paper)
    if not tables:
        raise TableError(
            f"{source.removeprefix('import:')} holds no table of models or papers.",
            hint="A table has a heading row with 'Model Name' or 'Title', and a row of dashes below it.",
        )
    return table


def _tables(lines: list[str]) -> Iterator[tuple[str, list[str], list[tuple[int, list[str]]]]]:
    """Heading above, column names, and (line, cells) of every table; without column names, of rows that stand alone.

    A table ends at an empty line or a heading. What stands before that is a row, even if it lost its bars.
    """
    heading = ""
    number = 0
    while number < len(lines):
        line = lines[number]
        if line.startswith("#"):
            heading = line.lstrip("# ").strip()
        if "|" in line and number + 1 < len(lines) and _is_rule(lines[number + 1]):
            header = _cells(line)
            rows = []
            number += 2
            while number < len(lines) and lines[number].strip() and not lines[number].startswith("#"):
                rows.append((number + 1, _cells(lines[number])))
                number += 1
            yield heading, header, rows
        else:
            if line.lstrip().startswith("|") and not _is_rule(line):
                yield heading, [], [(number + 1, [])]
            number += 1


def _is_rule(line: str) -> bool:
    """Whether a line is the row of dashes below a heading row."""
    cells = line.strip().removeprefix("|").removesuffix("|").split("|")
    return all(_DASHES.fullmatch(cell.strip()) for cell in cells)


def _cells(line: str) -> list[str]:
    line = line.strip()
    line = line.removeprefix("|")
    if line.endswith("|") and not line.endswith("\\|"):
        line = line[:-1]
    return [cell.strip().replace("\\|", "|") for cell in _CELL.split(line)]


def _require(columns: set[str], wanted: frozenset[str] | set[str], heading: str) -> None:
    missing = sorted(wanted - columns)
    if missing:
        raise TableError(
            f"The table {heading!r} lacks the columns {', '.join(missing)}.",
            hint="Compare its heading row with the published SecurityNet table.",
        )


def _row(table: Table, line: int, header: list[str], cells: list[str], convert: Any) -> None:
    if len(cells) != len(header):
        table.problems.append(ImportProblem(line, f"{len(cells)} cells where the heading has {len(header)}"))
        return
    values = dict(zip(header, cells, strict=True))
    for column in ("Paper Link", "Weights"):
        try:
            values[column] = link(values[column]) or ""
        except ValueError as error:
            table.warnings.append(ImportProblem(line, f"{column} left out: {error}"))
            values[column] = ""
    try:
        converted = convert(values)
    except (ValidationError, SecurityNetError, ValueError) as error:
        table.problems.append(ImportProblem(line, describe_reason(error)))
        return
    if isinstance(converted, Item):
        table.add(line, converted)
    else:
        table.papers.append(converted)


def _model(values: dict[str, str], repeats: Counter[tuple[str, str, str]]) -> Item:
    name, kind = strip_markup(values["Model Name"]), strip_markup(values["Model Type"])
    if not name:
        raise ValueError("no model name")
    security = values["Purpose"].strip().lower() == "security"
    weights = values["Weights"] or None
    codes: dict[str, Any] = {
        "source": "securitynet",
        "name": name,
        "dataset": strip_markup(values["Data Name"]),
        "topic_category": strip_markup(values["Data Category"]) or None,
        "classes": _whole(values, "Num Class"),
        "training_size": _whole(values, "Training Size"),
        "task_type": "classification",
        "head": "classifier",
        "venue": strip_markup(values["Conference"]) or None,
        "venue_type": _venue_type(values["Conference Type"]),
        "year": _whole(values, "Year"),
        "countries": tuple(
            _COUNTRIES.get(c, c) for c in map(str.strip, strip_markup(values["Country"]).split(",")) if c
        ),
        "authors": _whole(values, "Num Authors"),
        "purpose": "security" if security else "benchmark",
        "paper_link": values["Paper Link"] or None,
        "weights_link": weights,
        "publisher_type": "model library" if weights and PYTORCHCV_PAGE in weights else "paper authors",
        "membership": "assumed",
        "extra_data": False,
    } | _from_name(name, kind, weights, security)
    if values["Purpose"].strip().lower() not in ("security", "benchmark"):
        codes["purpose_detail"] = f"{strip_markup(values['Purpose'])} (as published)"
    repeat = (name, codes["dataset"], codes["purpose"])
    entry, sources = complete_entry({**codes, "key": "made below"})
    # The same name stands for several models of one dataset (seeds): their order distinguishes them.
    repeats[repeat] += 1
    number = f"#{repeats[repeat]}" if repeats[repeat] > 1 else ""
    entry = entry.model_copy(update={"key": f"securitynet:{codes['purpose']}:{name}@{entry.dataset}{number}"})
    return Item(entry, sources, tuple(_measured(values)))


def _from_name(name: str, kind: str, weights: str | None, security: bool) -> dict[str, Any]:
    """What the published name tells: the architecture, the way it was trained, and a reference."""
    codes: dict[str, Any] = {}
    adversarial = _ADVERSARIAL.match(name)
    if adversarial:
        norm = {"l2": "L2", "linf": "Linf"}[adversarial["norm"]]
        codes["threat"] = norm
        codes["architecture"] = adversarial["architecture"]
        codes["purpose_detail"] = f"adversarial training ({norm}, eps {adversarial['size']})"
    elif security:
        codes["purpose_detail"] = "adversarial training"
    elif weights and PYTORCHCV_PAGE in weights:
        codes["architecture"] = _DATASET_SUFFIX.sub("", name)
        codes["reference"] = f"pytorchcv:{name}"
    else:
        codes["architecture"] = _MEDMNIST_RUN.split(name)[0]
    family = find_family_codes(kind)
    codes.update({code: family[code] for code in ("family", "architecture_type") if code in family})
    return codes


def _measured(values: dict[str, str]) -> Iterator[Measured]:
    """Measured columns; 0 and nan stand for "not measured" in the published table."""
    numbers = {column: _number(values, column) for column in MEASURED if column in values}
    if not (numbers.get("Train Accuracy") and numbers.get("Test Accuracy")):
        # A gap to an accuracy that was not measured is no gap.
        numbers.pop("Overfit Gap", None)
    for column, value in numbers.items():
        if value:
            low = -1.0 if column == "Overfit Gap" else 0.0
            if not low <= value <= 1.0:
                raise ValueError(f"{column}: {value} is outside [{low:g}, 1]")
            yield Measured(MEASURED[column], value, "published", SECURITYNET_PAPER)


def _paper(values: dict[str, str]) -> dict[str, Any]:
    title = strip_markup(values["Title"])
    if not title:
        raise ValueError("no title")
    return {
        "title": title,
        "venue": strip_markup(values["Conference"]) or None,
        "venue_type": _venue_type(values["Conference Type"]),
        "year": _whole(values, "Year"),
        "paper_link": values["Paper Link"] or None,
        "weights_link": values["Weights"] or None,
        "note": strip_markup(values.get("Note", "")) or None,
    }


def strip_markup(cell: str) -> str:
    """The text of a cell: no HTML tags, no Markdown links, entities decoded."""
    text = _TAG.sub("", html.unescape(cell))
    text = re.sub(r"\[([^\[\]]*)\]\([^)\[]*\)", r"\1", text)
    return " ".join(text.split())


def link(cell: str) -> str | None:
    """The address in a cell, from Markdown, HTML or as it stands; None if there is none.

    Raises:
        ValueError: If it is not http or https.
    """
    cell = html.unescape(cell)
    match = _MARKDOWN_LINK.search(cell) or _HTML_LINK.search(cell)
    address = next(filter(None, match.groups())) if match else _TAG.sub("", cell).strip()
    if not address:
        return None
    if not re.match(r"^https?://\S+$", address):
        raise ValueError(f"{address[:80]!r} is no web address")
    return address


def _venue_type(cell: str) -> str | None:
    text = strip_markup(cell)
    return _VENUE_TYPES.get(text.lower(), "other") if text else None


def _number(values: dict[str, str], column: str) -> float | None:
    text = strip_markup(values[column])
    if not text or text.lower() in ("nan", "none", "-"):
        return None
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{column}: {text[:80]!r} is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{column}: {text} is not finite")
    return number


def _whole(values: dict[str, str], column: str) -> int | None:
    number = _number(values, column)
    if number is None:
        return None
    if number != int(number):
        raise ValueError(f"{column}: {number} is no whole number")
    return int(number) or None
