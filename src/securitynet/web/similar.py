"""Models like one: of its dataset, family and task, near in size, accuracy and year."""

from __future__ import annotations

import polars as pl

from securitynet.web.search import Snapshot

WEIGHTS = {"dataset": 2.0, "family": 2.0, "task_type": 1.0, "architecture_type": 0.5, "purpose": 0.5}
_MOST_CANDIDATES = 20_000


def similar(snapshot: Snapshot, number: int, count: int = 6) -> list[int]:
    """Row numbers of the models most like one, the nearest first.

    The distance is the sum of the weights of the codes in which they differ (half, where one is not known), and of
    differences in the logarithm of the parameters, in accuracy and in year. Only models that share its dataset or its
    family are looked at, of very many the first 20,000.

    Args:
        snapshot: Of the catalog.
        number: Row number of the model.
        count: Most to give.
    """
    [place] = snapshot.places([number])
    if place is None:
        return []
    columns = ["number", *WEIGHTS, "parameters", "claimed_accuracy", "year"]
    frame = snapshot.frame.select(columns)
    own = frame.row(place, named=True)
    shared = [pl.col(name) == own[name] for name in ("dataset", "family") if own[name] is not None]
    if not shared:
        return []
    others = frame.filter(pl.all_horizontal(shared))
    if others.height <= count:
        others = frame.filter(pl.any_horizontal(shared))
    parts = [
        (weight * (pl.col(name) != own[name]).cast(pl.Float64)).fill_null(weight / 2)
        if own[name] is not None
        else pl.lit(weight / 2)
        for name, weight in WEIGHTS.items()
    ]
    for name, scale in (("parameters", 1.0), ("claimed_accuracy", 0.1), ("year", 5.0)):
        if own[name] is None:
            continue  # as far from one as from another
        value, mine = pl.col(name).cast(pl.Float64), pl.lit(own[name], dtype=pl.Float64)
        if name == "parameters":
            value, mine = (one.clip(lower_bound=1).log10() for one in (value, mine))
        parts.append(((value - mine) / scale).abs().clip(upper_bound=2).fill_null(0.5))
    near = (
        others.filter(pl.col("number") != number)
        .head(_MOST_CANDIDATES)
        .select("number", pl.sum_horizontal(parts).alias("distance"))
        .bottom_k(count, by=["distance", "number"])
        .sort("distance", "number")
    )
    return [int(one) for one in near["number"]]
