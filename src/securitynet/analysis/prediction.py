"""Vulnerability predicted from annotations alone, before any attack is run.

The prediction is a ridge regression on what is annotated. Its error is that on families it has not seen: models are
left out family by family, so that a ResNet is never predicted from other ResNets. Beside it stands the error of the
mean of the other models of the same dataset: what a prediction must beat to be worth anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas
from numpy.typing import NDArray

from securitynet.analysis import statistics
from securitynet.analysis.statistics import Estimate

NUMBERS = ("classes", "training_size", "image_height", "parameters", "flops")
"""Annotations whose logarithm is used."""

PLAIN_NUMBERS = ("year", "authors")
WORDS = ("dataset", "topic_category", "granularity", "architecture_type", "venue_type", "purpose")
FEWEST = 20
FEWEST_FAMILIES = 3
FOLDS = 10


@dataclass(frozen=True, eq=False)
class Prediction:
    """How well annotations predict a quantity.

    Attributes:
        table: One row a model: case, model, family, dataset, actual, predicted, baseline, residual; largest residual
            first.
        error: Mean absolute error on families that were left out.
        baseline: That of the mean of the dataset's other families.
        gain: Baseline's error minus the prediction's, paired by model; above zero if annotations help.
        correlation: Of predicted with actual values, within datasets.
        used: Annotations that were used.
    """

    table: pandas.DataFrame
    error: Estimate
    baseline: Estimate
    gain: Estimate
    correlation: Estimate
    used: tuple[str, ...]


def predict_families(
    wide: pandas.DataFrame, quantity: str, extra: Sequence[str] = (), seed: int = 0
) -> Prediction | None:
    """Predict a quantity from annotations, each family from the others.

    Args:
        wide: One row a case, from `frames.widen`.
        quantity: Column to predict.
        extra: Further columns of numbers to predict from, such as the target's accuracy.
        seed: Of the tests.

    Returns:
        None if there are too few models or families.
    """
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rows = wide[wide[quantity].notna()].reset_index(drop=True)
    families = rows["family"].fillna(rows["architecture"]).fillna(rows["model"]).astype(str)
    if len(rows) < FEWEST or families.nunique() < FEWEST_FAMILIES:
        return None
    features = pandas.DataFrame(index=rows.index)
    for name in NUMBERS:
        features[name] = np.log10(pandas.to_numeric(rows[name], errors="coerce").clip(lower=1).astype(float))
    for name in (*PLAIN_NUMBERS, *extra):
        features[name] = pandas.to_numeric(rows[name], errors="coerce").astype(float)
    for name in WORDS:
        features[name] = rows[name].astype(object).where(rows[name].notna(), "not known").astype(str)
    used = [name for name in features if features[name].nunique(dropna=True) > 1]
    features = features[used]
    numbers = [name for name in used if name not in WORDS]
    words = [name for name in used if name in WORDS]
    model = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
            (OneHotEncoder(handle_unknown="ignore"), words),
        ),
        RidgeCV(alphas=np.logspace(-2, 3, 16)),
    )
    actual = rows[quantity].to_numpy(float)
    folds = GroupKFold(min(FOLDS, families.nunique()))
    predicted = cross_val_predict(model, features, actual, groups=families, cv=folds)
    baseline = _dataset_means(actual, rows["dataset"].astype(str).to_numpy(), families.to_numpy())
    wrong, simple = np.abs(predicted - actual), np.abs(baseline - actual)
    clusters = families.to_numpy()
    table = pandas.DataFrame(
        {
            "case": rows["case"],
            "model": rows["model"],
            "family": families,
            "dataset": rows["dataset"],
            "actual": actual,
            "predicted": predicted,
            "baseline": baseline,
            "residual": actual - predicted,
        }
    )
    return Prediction(
        table=table.reindex(table["residual"].abs().sort_values(ascending=False, kind="stable").index),
        error=statistics.estimate_mean(wrong, clusters=clusters, bounds=(0, np.inf)),
        baseline=statistics.estimate_mean(simple, clusters=clusters, bounds=(0, np.inf)),
        gain=statistics.estimate_paired_difference(wrong, simple, clusters=clusters, seed=seed),
        # Within datasets: that models of an easy dataset are predicted higher than those of a hard one is no merit.
        correlation=statistics.estimate_correlation(
            predicted, actual, clusters=clusters, strata=rows["dataset"].astype(str).to_numpy(), seed=seed
        ),
        used=tuple(map(str, used)),
    )


def _dataset_means(
    actual: NDArray[np.float64], datasets: NDArray[np.object_], families: NDArray[np.object_]
) -> NDArray[np.float64]:
    """For each model, the mean over the other families of its dataset, or over all other families."""
    means = np.empty(len(actual))
    for row in range(len(actual)):
        others = families != families[row]
        same = others & (datasets == datasets[row])
        means[row] = actual[same if same.any() else others].mean()
    return means
