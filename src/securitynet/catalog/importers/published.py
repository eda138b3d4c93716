"""Published results, read from a checkout of their source: timm's ``results`` folder, RobustBench's ``model_info``.

``python -m securitynet.catalog.importers.published KIND FOLDER FILE`` writes the table of facts that the package
carries.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from securitynet.catalog.importers.base import ImportProblem, Table, TableError
from securitynet.catalog.known import complete_entry, find_family_codes
from securitynet.catalog.published import ROBUSTBENCH, TEST_ACCURACY, TIMM, TOP5, PublishedModel, choose_at_size
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.store import Item

_TIMM_FILES = {
    "results-imagenet.csv": TEST_ACCURACY,
    "results-imagenet-a.csv": "accuracy.imagenet-a",
    "results-imagenet-r.csv": "accuracy.imagenet-r",
    "results-imagenet-real.csv": "accuracy.imagenet-real",
    "results-sketch.csv": "accuracy.imagenet-sketch",
    "results-imagenetv2-matched-frequency.csv": "accuracy.imagenet-v2",
}
_THROUGHPUT_FILE = "benchmark-cpu.csv"
THROUGHPUT = "throughput.cpu"
"""Images a second on the processor on which timm's authors measured."""

_ROBUSTBENCH_VALUES = {
    "clean_acc": TEST_ACCURACY,
    "reported": "accuracy.threat={}.reported",
    "autoattack_acc": "accuracy.threat={}.autoattack",
    "corruptions_acc": "accuracy.corruptions",
    "corruptions_acc_3d": "accuracy.corruptions-3d",
    "corruptions_mce": "error.corruptions-mce",
    "corruptions_mce_3d": "error.corruptions-3d-mce",
}
BEST_KNOWN = "accuracy.threat={}.best-known"
"""The lowest robust accuracy under a threat that any evaluation reached: RobustBench's, or one that it cites."""

DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet": "ImageNet-1k"}
"""RobustBench's names of datasets -> the catalog's."""

THREATS = {"Linf": "Linf", "L2": "L2", "corruptions": "common corruptions", "corruptions_3d": "3D common corruptions"}
_WITHOUT_WEIGHTS: dict[str, tuple[str, ...]] = {
    "cifar100:corruptions": (
        "Erichson2022NoisyMix",
    ),
    "cifar10:Linf": (
        "Alayrac2019Labels", "Alfarra2020ClusTR", "Atzmon2019Controlling", "Chan2020Jacobian",
        "Jang2019Adversarial", "JinRinard2020Manifold", "KimWang2020Sensible", "Kumari2019Harnessing",
        "Kundu2020Tunable", "Madry2018Towards", "Mao2019Metric", "Moosavi-Dezfooli2019Robustness",
        "Mustafa2019Adversarial", "Pang2020Bag", "Pang2020Rethinking", "Qin2019Adversarial",
        "Shafahi2019Adversarial", "WangZhang2019Bilateral", "Wu2020Do", "Xiao2020Enhancing",
        "Zhang2020Towards", "ZhangWang2019Defense", "ZhangXu2020Adversarial",
    ),
    "cifar10:corruptions": (
        "Calian2021Defending", "Erichson2022NoisyMix", "Gowal2020Uncovering_70_16_L2",
        "Gowal2020Uncovering_70_16_Linf", "Gowal2020Uncovering_70_16_extra_L2",
        "Gowal2020Uncovering_70_16_extra_Linf",
    ),
}  # fmt: skip
"""Dataset and threat -> models of the leaderboard whose networks and weights RobustBench's package (1.1.1) lacks."""

_VENUE_TYPES = {
    "computer vision": ("CVPR", "ICCV", "ECCV", "BMVC", "WACV"),
    "machine learning": ("NeurIPS", "ICML", "ICLR"),
    "artificial intelligence": ("AAAI", "IJCAI"),
    "preprint": ("arXiv", "OpenReview"),
    "journal": ("TMLR", "SIMODS", "Pattern Recognition"),
}
_UNTRAINED_FOR_ROBUSTNESS = re.compile(r"Standard|AlexNet$")


def read_timm_results(folder: Path) -> tuple[list[PublishedModel], list[ImportProblem]]:
    """The results in timm's ``results`` folder, one row for each model and image size.

    Args:
        folder: The checkout, or its folder ``results``.

    Raises:
        TableError: If it holds no ``results-imagenet.csv``.
    """
    folder = folder / "results" if (folder / "results").is_dir() else folder
    if not (folder / "results-imagenet.csv").is_file():
        raise TableError(
            f"{folder} holds no results-imagenet.csv.", hint="Give a checkout of timm, or its folder `results`."
        )
    models: dict[tuple[str, int], PublishedModel] = {}
    problems: list[ImportProblem] = []
    for file, value in _TIMM_FILES.items():
        if not (folder / file).is_file():
            continue
        for line, row in _read_rows(folder / file):
            try:
                key = row["model"], int(row["img_size"])
                numbers = {value: _share(row["top1"])}
                if value == TEST_ACCURACY:
                    numbers[TOP5] = _share(row["top5"])
                millions = float(row["param_count"].replace(",", ""))
                facts = {"size": str(key[1]), "parameters": str(round(1e6 * millions))}
            except (KeyError, ValueError, TypeError) as error:
                problems.append(ImportProblem(line, f"{file}: {error!r}"))
                continue
            models.setdefault(key, PublishedModel(key[0], facts)).values.update(numbers)
    if (folder / _THROUGHPUT_FILE).is_file():
        speeds = {
            (row["model"], row["infer_img_size"]): float(row["infer_samples_per_sec"])
            for _, row in _read_rows(folder / _THROUGHPUT_FILE)
            if row.get("infer_samples_per_sec")
        }
        for (name, size), model in models.items():
            speed = speeds.get((name.partition(".")[0], str(size)))
            if speed is not None:
                model.values[THROUGHPUT] = speed
    return list(models.values()), problems


def read_robustbench(folder: Path) -> tuple[list[PublishedModel], list[ImportProblem]]:
    """The models in RobustBench's ``model_info`` folder.

    The folders say for which dataset and threat a result holds: the field ``dataset`` in the files is wrong for some.

    Args:
        folder: The checkout, or its folder ``model_info``.

    Raises:
        TableError: If it holds no such files.
    """
    folder = folder / "model_info" if (folder / "model_info").is_dir() else folder
    paths = [path for dataset in DATASETS for path in sorted((folder / dataset).glob("*/*.json"))]
    if not paths:
        raise TableError(
            f"{folder} holds no files such as cifar10/Linf/NAME.json.",
            hint="Give a checkout of RobustBench, or its folder `model_info`.",
        )
    models: list[PublishedModel] = []
    problems: list[ImportProblem] = []
    for path in paths:
        dataset, threat = path.parts[-3:-1]
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            models.append(_robustbench_model(f"{dataset}:{threat}:{path.stem}", content))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            problems.append(ImportProblem(1, f"{dataset}/{threat}/{path.name}: {error!r}"))
    return models, problems


def _robustbench_model(name: str, content: Mapping[str, Any]) -> PublishedModel:
    threat = name.split(":")[1]
    values = {
        measured.format(threat): round(number / 100, 6)
        for column, measured in _ROBUSTBENCH_VALUES.items()
        if (number := _number(content.get(column))) is not None
    }
    evaluations = [_number(content.get("autoattack_acc")), _number(content.get("external"))]
    known = [value for value in evaluations if value is not None]
    if known:
        values[BEST_KNOWN.format(threat)] = round(min(known) / 100, 6)
    venue, year = _read_venue(str(content.get("venue") or ""))
    authors = count_authors(str(content.get("authors") or ""))
    facts = {
        "architecture": str(content.get("architecture") or ""),
        "title": " ".join(str(content.get("name") or "").split()),
        "link": str(content.get("link") or ""),
        "venue": venue,
        "year": year,
        "authors": str(authors or ""),
        "extra_data": "true" if content.get("additional_data") else "false",
        "eps": str(content.get("eps") or ""),
    }
    return PublishedModel(name, {column: text for column, text in facts.items() if text}, values)


def count_authors(text: str) -> int:
    """Number of authors in a list such as ``A B, C D``, ``A B, C D, and E F`` or BibTeX's ``B, A and D, C``.

    Args:
        text: The list.
    """
    joined = [part for part in re.split(r"\s+and\s+", text) if part.strip()]
    if len(joined) > 1 and all(part.count(",") == 1 for part in joined):
        return len(joined)  # family name, first name
    return sum(bool(name.strip()) for part in joined for name in part.split(","))


def _read_venue(text: str) -> tuple[str, str]:
    """Venue and year of texts such as ``NeurIPS 2020``, ``arXiv, Mar 2021``, ``GitHub,<br>Oct 2019``."""
    match = re.fullmatch(r"([A-Za-z][\w -]*?)(?:,(?:<br>)?\s*[A-Z][a-z]{2,8}\.?)?\s+((?:19|20)\d\d)", text.strip())
    return (match[1].strip(), match[2]) if match else ("", "")


def convert_robustbench_row(model: PublishedModel) -> dict[str, Any]:
    """The codes of the catalog that a RobustBench row gives, except those of its weights.

    Args:
        model: From `read_robustbench`, or from the packaged table.
    """
    dataset, threat, name = model.name.split(":", 2)
    facts = model.facts
    standard = _UNTRAINED_FOR_ROBUSTNESS.match(name) is not None
    threatened = THREATS.get(threat, threat)
    venue = facts.get("venue")
    stated = facts.get("architecture", "")
    parts = [part for part in re.split(r"\s*\+\s*|,|\s+", stated) if find_family_codes(part)]
    codes: dict[str, Any] = {
        "key": f"robustbench:{DATASETS.get(dataset, dataset)}:{threat}:{name}",
        "source": "robustbench",
        "name": name,
        "reference": None if name in _WITHOUT_WEIGHTS.get(f"{dataset}:{threat}", ()) else f"robustbench:{model.name}",
        "code_link": "https://github.com/RobustBench/robustbench",
        "purpose": "benchmark" if standard else "security",
        "purpose_detail": None if standard else f"adversarial robustness ({threatened})",
        "threat": None if standard else threatened,
        "publisher_type": "model library" if standard else "paper authors",
        "task_type": "classification",
        "head": "classifier",
        "dataset": dataset,
        "membership": "assumed",
        "architecture": parts[0].lower() if parts else stated or None,
        "claimed_accuracy": model.values.get(TEST_ACCURACY),
        "extra_data": facts["extra_data"] == "true" if "extra_data" in facts else None,
    }
    if not standard:
        codes |= {
            "paper_title": facts.get("title"),
            "paper_link": facts.get("link"),
            "venue": venue,
            "venue_type": _venue_type(venue) if venue else None,
            "year": int(facts["year"]) if "year" in facts else None,
            "authors": int(facts["authors"]) if "authors" in facts else None,
        }
    return {name: value for name, value in codes.items() if value is not None}


def _venue_type(venue: str) -> str:
    return next((kind for kind, names in _VENUE_TYPES.items() if venue in names), "other")


def load_robustbench_table(models: Iterable[PublishedModel], source: str, known: Mapping[str, CatalogEntry]) -> Table:
    """Entries with their published values.

    Args:
        models: From `read_robustbench`.
        source: Where the values were published.
        known: Key -> entry in the catalog. Its reference stays: the package's own lists know better how it is loaded.
    """
    table = Table(source)
    for line, model in enumerate(models, start=1):
        codes = convert_robustbench_row(model)
        held = known.get(codes["key"])
        if held is not None and held.reference is not None:
            codes["reference"] = held.reference
        entry, sources = complete_entry(codes)
        table.add(line, Item(entry, sources, model.measured(source)))
    return table


def load_timm_table(models: Iterable[PublishedModel], source: str, known: Mapping[str, CatalogEntry]) -> Table:
    """Published values of the timm models that a catalog holds, at the image size of each.

    Args:
        models: From `read_timm_results`.
        source: Where the values were published.
        known: Name of a timm model -> its entry in the catalog.
    """
    table = Table(source)
    by_name: dict[str, list[PublishedModel]] = {}
    for model in models:
        by_name.setdefault(model.name, []).append(model)
    for line, (name, results) in enumerate(by_name.items(), start=1):
        entry = known.get(name)
        fitting = choose_at_size(results, entry.image_height if entry else None)
        if entry is None or fitting is None:
            table.warnings.append(ImportProblem(line, f"timm:{name} is not in the catalog; its results were left out"))
            continue
        codes = {"key": entry.key, "source": entry.source, "name": entry.name} | find_timm_claims(fitting)
        table.add(line, Item(CatalogEntry(**codes), {}, fitting.measured(f"{source} ({fitting.facts['size']} px)")))
    return table


def find_timm_claims(model: PublishedModel) -> dict[str, float]:
    """The accuracies on ImageNet that timm states for a model, as codes."""
    stated = {"claimed_accuracy": model.values.get(TEST_ACCURACY), "claimed_top5": model.values.get(TOP5)}
    return {name: value for name, value in stated.items() if value is not None}


def write_facts_table(models: Iterable[PublishedModel], path: Path) -> int:
    """Write models as a table of facts; how many.

    Args:
        models: In any order; they are sorted by name and size.
        path: The CSV file.
    """
    rows = sorted(models, key=lambda model: (model.name, int(model.facts.get("size", 0))))
    facts = list(dict.fromkeys(name for model in rows for name in model.facts))
    values = list(dict.fromkeys(name for model in rows for name in model.values))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["name", *facts, *values])
        for model in rows:
            numbers = [f"{model.values[name]:.6g}" if name in model.values else "" for name in values]
            writer.writerow([model.name, *(model.facts.get(name, "") for name in facts), *numbers])
    return len(rows)


PUBLISHED_READERS: dict[str, Callable[[Path], tuple[list[PublishedModel], list[ImportProblem]]]] = {
    TIMM: read_timm_results,
    ROBUSTBENCH: read_robustbench,
}
"""Name of a kind of published results -> what reads a checkout of it."""


def _read_rows(path: Path) -> Iterable[tuple[int, dict[str, str]]]:
    with path.open(encoding="utf-8", newline="") as stream:
        yield from enumerate(csv.DictReader(stream), start=2)


def _share(text: str) -> float:
    share = round(float(text) / 100, 6)
    if not 0 <= share <= 1:
        raise ValueError(f"{text} is no percentage")
    return share


def _number(value: Any) -> float | None:
    """A number that is written as text; None for what is empty, ``null`` or missing."""
    text = str(value if value is not None else "").strip()
    return float(text) if text not in ("", "null", "N/A", "-") else None


if __name__ == "__main__":
    kind, source, target = sys.argv[1:]
    found, left_out = PUBLISHED_READERS[kind](Path(source))
    for problem in left_out:
        print(problem, file=sys.stderr)
    print(write_facts_table(found, Path(target)), "rows", file=sys.stderr)
