"""The demonstration: an overfitted and a regularised model of digits, assessed and compared in one report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import securitynet.datasets
from securitynet.assessments import assess as assessment
from securitynet.assessments.assessed_target import prepare
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.records import write_records
from securitynet.assessments.result import to_document
from securitynet.assessments.run_trial import ReportProgress
from securitynet.files import add_digest, write_json
from securitynet.models.store.train_target import train_model
from securitynet.models.training.config import TrainConfig
from securitynet.models.training.fit import History
from securitynet.reports.build import write_report
from securitynet.reports.grades import add_grades
from securitynet.results.document import ResultDocument
from securitynet.results.store import TrialStore

ARCHITECTURE = "simple-cnn"

LIMIT = 240
"""Records of each part of digits: with 120 members a network can memorise each of them."""

RECIPES: dict[str, dict[str, object]] = {
    "overfitted": {"epochs": 150, "learning_rate": 0.05, "weight_decay": 0.0, "schedule": "constant"},
    "regularised": {"epochs": 40, "learning_rate": 0.05, "weight_decay": 0.05, "schedule": "cosine"},
}


@dataclass(frozen=True, eq=False)
class Demonstration:
    """The outcome of the demonstration.

    Attributes:
        names: Of the two models.
        documents: Their results, in the same order.
        report: Path of the report that compares them.
    """

    names: list[str]
    documents: list[ResultDocument]
    report: Path


def run(out: Path, *, seed: int = 0, device: str = "auto", progress: ReportProgress | None = None) -> Demonstration:
    """Train both models on a few digits, assess both, and write ``report.html`` under ``out``.

    Finished work is used again.

    Args:
        out: Folder for models, results and the report.
        seed: Of the split, the training and the attacks.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        progress: Called with (what, done, total) during long work.
    """
    documents, assessments = [], []
    dataset = securitynet.datasets.load("digits", limit=LIMIT)
    for name, recipe in RECIPES.items():
        weights = out / name / "model.safetensors"
        training = TrainConfig.model_validate(
            {
                "architecture": ARCHITECTURE,
                "dataset": "digits",
                "limit": LIMIT,
                "out": weights,
                "seed": seed,
                "split_seed": seed,
                "device": device,
                "overwrite": True,  # models of an older version in the same folder are replaced
                **recipe,
            }
        )
        train_model(training, progress=_named(progress, f"training the {name} model"))
        config = AssessConfig(
            model=f"arch:{ARCHITECTURE}",
            weights=weights,
            dataset="digits",
            limit=LIMIT,
            seed=seed,
            device=device,
            out=out / name,
        )
        target = prepare(config, dataset=dataset)
        assessments.append(assessment.run_assessment(config, target, TrialStore(out / name), progress))
        documents.append(add_grades(to_document(assessments[-1])))
        write_records(assessments[-1], out / name / "exposed.csv")
        write_json(out / name / "result.json", add_digest(documents[-1].to_json()))
    report = write_report(
        documents, assessments, out / "report.html", title="An overfitted and a regularised model of digits"
    )
    return Demonstration(list(RECIPES), documents, report)


def _named(progress: ReportProgress | None, what: str) -> Callable[[int, int, History], None] | None:
    return None if progress is None else lambda done, total, _history: progress(what, done, total)
