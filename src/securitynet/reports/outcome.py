"""`Outcome`: the result of an assessment from Python, as numbers, data frames, and a view for notebooks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from securitynet.analysis.figures import style
from securitynet.assessments.records import tabulate_records
from securitynet.errors import ConfigurationError, UnknownName
from securitynet.records import Measurement
from securitynet.reports import verdict
from securitynet.reports.build import load_templates
from securitynet.reports.families import membership
from securitynet.reports.first_screen import make_first_screen
from securitynet.reports.sections import make_section

if TYPE_CHECKING:
    import pandas

    from securitynet.assessments.assessment import Assessment
    from securitynet.results.document import ResultDocument

_anchors = itertools.count(1)


class UnknownMeasurement(UnknownName, KeyError):
    """A name that no measurement of a result carries."""


@dataclass(frozen=True, eq=False, repr=False)
class Outcome:
    """The result of an assessment. A notebook shows it as tables and plots.

    ``result["membership.loss.auc"]`` is the value of a measurement, ``list(result)`` are the names of all, and
    ``name in result`` asks for one.

    Attributes:
        document: The content of ``result.json``.
        assessment: With raw outputs, for further work.
        folder: Where everything was written.
    """

    document: ResultDocument
    assessment: Assessment
    folder: Path

    @property
    def report(self) -> Path:
        """The report's path."""
        return self.folder / "report.html"

    @property
    def measurements(self) -> dict[str, Measurement]:
        """All measurements by name, with intervals."""
        return {measurement.name: measurement for measurement in self.document.measurements}

    def __getitem__(self, name: str) -> float | None:
        """The value of a measurement by its dotted name; None if it can't be resolved with so few records.

        Raises:
            UnknownMeasurement: If there is none of that name; it is a `KeyError` too.
        """
        measurements = self.measurements
        if name not in measurements:
            raise UnknownMeasurement("measurement", str(name), measurements)
        return measurements[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self.measurements)

    def __len__(self) -> int:
        return len(self.document.measurements)

    def __contains__(self, name: object) -> bool:
        return name in self.measurements

    def to_frame(self) -> pandas.DataFrame:
        """All measurements as a frame, indexed by name.

        Columns: ``attack`` (the trial, empty for the target's own accuracies), ``value``, ``low`` and ``high`` (ends of
        the interval), ``level`` (its confidence), ``n`` (samples), ``better`` (``lower`` or ``higher``, for the owner),
        ``method`` (of the interval) and ``note``.
        """
        import pandas

        trials = sorted((trial.name for trial in self.document.trials), key=len, reverse=True)
        rows = [
            {
                "name": one.name,
                "attack": next((trial for trial in trials if one.name.startswith(f"{trial}.")), ""),
                "value": one.value,
                "low": one.low,
                "high": one.high,
                "level": one.level,
                "n": one.n,
                "better": one.direction.value,
                "method": one.method,
                "note": one.note or "",
            }
            for one in self.document.measurements
        ]
        numbers = dict.fromkeys(("value", "low", "high"), "float64")
        return pandas.DataFrame(rows).astype(numbers).set_index("name")

    def exposed_records(self, attack: str | None = None, *, count: int | None = None) -> pandas.DataFrame:
        """The members of the training set, the most exposed first.

        Args:
            attack: Order by this membership attack: a full name, or what follows its family (``lira``). By default by
                the lowest share of any attack.
            count: Only so many.

        Returns:
            A frame indexed by ``record``, the number in the dataset (`securitynet.assessments`' own order: train, then
            test). Columns: ``file``, ``class``, ``prediction``, ``posterior`` of the prediction, and for each attack
            its ``score`` and ``share``: the share of non-members that score at least as high. A member with a low share
            is exposed; one with a share of a half is as good as hidden.

        Raises:
            UnknownName: If no such attack scored records.
            ConfigurationError: If none did, or the count is negative.
        """
        import pandas

        table = tabulate_records(self.assessment)
        if table is None:
            raise ConfigurationError(
                "No membership attack of this assessment scored records.", hint='Assess with attacks=["membership"].'
            )
        if count is not None and count < 0:
            raise ConfigurationError(f"The count of records can't be {count}.")
        dataset = self.assessment.assessed_target.dataset
        chosen = np.arange(len(table.trials))
        if attack is not None:
            named = [name for name in table.trials if attack in (name, name.partition(".")[2])]
            named = named or [name for name in table.trials if name.partition("@")[0].endswith(f".{attack}")]
            if not named:
                raise UnknownName("membership attack of this result", attack, table.trials)
            chosen = np.array([table.trials.index(name) for name in named])
        rows = np.flatnonzero(table.is_member & ~np.isnan(table.scores[:, chosen]).all(axis=1))
        if attack is not None:  # an attack's own order: ties of the share by score
            best, score = table.shares[rows][:, chosen].min(axis=1), table.scores[rows][:, chosen].max(axis=1)
            rows = rows[np.lexsort((table.records[rows], -score, best))]
        rows = rows[:count]
        columns: dict[str, object] = {
            "file": [dataset.get_record_name(int(record)) for record in table.records[rows]],
            "class": [dataset.class_names[label] for label in table.labels[rows]],
            "prediction": [dataset.class_names[label] for label in table.predictions[rows]],
            "posterior": table.posteriors[rows],
        }
        for column in chosen:
            columns[f"score:{table.trials[column]}"] = table.scores[rows, column]
            columns[f"share:{table.trials[column]}"] = table.shares[rows, column]
        return pandas.DataFrame(columns, index=pandas.Index(table.records[rows], name="record"))

    def __repr__(self) -> str:
        target, dataset = self.document.target, self.document.dataset
        words = [f"{sum(trial.status == 'ok' for trial in self.document.trials)} of {len(self.document.trials)} trials"]
        ranked = membership.rank_attacks(self.document)
        if ranked:
            auc = ranked[0].auc
            words.append(f"{ranked[0].trial.name} AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})")
        if verdict.write_doubts(self.document):
            words.append("in doubt, see document.target.checks")
        return f"<Outcome of {target.reference} on {dataset.reference}: {', '.join(words)}; report in {self.report}>"

    def _repr_html_(self) -> str:
        """The view for notebooks: the first screen of the report; folded, numbers, ROC curves and exposed records.

        Names of classes, files and models are escaped.
        """
        screen = make_first_screen(self.document, self.folder)
        part = make_section(
            self.document, self.assessment, f"securitynet-{next(_anchors)}", self.document.target.reference
        )
        page: str = (
            load_templates()
            .get_template("notebook.html")
            .render(s=part, screen=screen, report=str(self.report), inks=[ink.light for ink in style.SERIES])
        )
        return page
