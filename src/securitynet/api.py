"""`assess`: from a model reference to trial files, ``result.json`` and ``report.html``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securitynet.assessments import assess as assessment
from securitynet.assessments import policy
from securitynet.assessments.assessed_target import AssessedTarget, check_members, prepare
from securitynet.assessments.assessment import Assessment
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.records import write_records
from securitynet.assessments.result import to_document
from securitynet.assessments.run_trial import ReportProgress
from securitynet.assessments.trial_plan import list_requested
from securitynet.assessments.what_helps import check_remedies
from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError
from securitynet.files import check_writable, data_folder, stable_hash, write_json
from securitynet.models.targets.target import Target
from securitynet.reports.build import write_report
from securitynet.results.document import ResultDocument
from securitynet.results.store import TrialStore


@dataclass(frozen=True, eq=False)
class Outcome:
    """What `assess` returns.

    Attributes:
        document: The content of ``result.json``.
        assessment: The same results with the raw outputs of attacks, for further analysis.
        folder: Where report, results and trial files were written.
    """

    document: ResultDocument
    assessment: Assessment
    folder: Path

    @property
    def report(self) -> Path:
        """The report's path."""
        return self.folder / "report.html"

    def __getitem__(self, name: str) -> float | None:
        """The value of a measurement by its dotted name; None if there are too few records to resolve it."""
        return self.assessment[name].value


def assess(
    model: str | Target | AssessConfig,
    dataset: str | ImageDataset | None = None,
    *,
    out: str | Path | None = None,
    progress: ReportProgress | None = None,
    **options: Any,
) -> Outcome:
    """Assess one target with all applicable attacks, and write the report.

    Args:
        model: A reference (docs/models.md), a loaded target, or a whole configuration.
        dataset: A reference or a loaded dataset.
        out: Folder for ``report.html``, ``result.json``, ``exposed.csv`` and the trial files. Default: one in the
            user's data folder, named after what is assessed.
        progress: Called with (what, done, total) during long work.
        **options: Further fields of `AssessConfig`.

    Raises:
        SecurityNetError: For anything wrong with the model, the data or the options, before long work starts.
    """
    config, target = _prepare(model, dataset, out, options, progress)
    return assess_loaded(config, target, progress=progress)


def assess_loaded(config: AssessConfig, target: AssessedTarget, *, progress: ReportProgress | None = None) -> Outcome:
    """Assess a target that has been loaded, and write the report.

    Args:
        config: The configuration that it was loaded with.
        target: The target with its data.
        progress: Called with (what, done, total) during long work.
    """
    started = time.perf_counter()
    bounds = policy.read_policy(config.policy) if config.policy else None
    folder = config.out or _default_folder(config, target)
    finished = assessment.run(config, target, TrialStore(folder), progress)
    finished.seconds["wall"] = time.perf_counter() - started
    judged = policy.judge(bounds, finished.all_measurements()) if bounds is not None else None
    document = to_document(finished, judged)
    write_report([document], [finished], folder / "report.html")
    write_records(finished, folder / "exposed.csv")
    write_json(folder / "result.json", document.to_json())
    return Outcome(document, finished, folder)


def _prepare(
    model: str | Target | AssessConfig,
    dataset: str | ImageDataset | None,
    out: str | Path | None,
    options: dict[str, Any],
    progress: ReportProgress | None,
) -> tuple[AssessConfig, AssessedTarget]:
    if isinstance(model, AssessConfig):
        if dataset is not None or out is not None or options:
            raise ConfigurationError(
                "With a whole configuration, no dataset, folder or options can be given beside it.",
                hint="Put them into it.",
            )
        _check_early(model)
        return model, prepare(model, _named(progress, "loading"))
    reference = dataset.reference if isinstance(dataset, ImageDataset) else dataset
    config = AssessConfig(
        model=model.reference if isinstance(model, Target) else model,
        dataset=reference,
        out=None if out is None else Path(out),
        **options,
    )
    _check_early(config)
    if isinstance(model, str) and not isinstance(dataset, ImageDataset):
        return config, prepare(config, _named(progress, "loading"))
    return config, prepare(
        config,
        _named(progress, "loading"),
        target=model if isinstance(model, Target) else None,
        dataset=dataset if isinstance(dataset, ImageDataset) else None,
    )


def _check_early(config: AssessConfig) -> None:
    """Report all mistakes that can be detected before anything is downloaded, loaded or queried."""
    if config.policy:
        policy.read_policy(config.policy)
    list_requested(config)
    check_members(config)
    check_remedies(config)
    if config.out is not None:
        check_writable(config.out)


def _default_folder(config: AssessConfig, assessed: AssessedTarget) -> Path:
    identity = stable_hash([assessed.target.identity.model_dump(mode="json"), assessed.dataset.fingerprint], 8)
    words = "".join(c if c.isalnum() or c in "-." else "-" for c in config.model.partition(":")[2] or config.model)
    return data_folder() / "assessments" / f"{words.strip('-.')[-40:]}-{identity}"


def _named(progress: ReportProgress | None, what: str) -> Any:
    return None if progress is None else lambda done, total: progress(what, done, total)
