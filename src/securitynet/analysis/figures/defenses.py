"""Targets with and without a defense: Tables 3 to 5 of ML-Doctor, and which cases are compared with which."""

from __future__ import annotations

import pandas

from securitynet.analysis import frames
from securitynet.analysis.figures import tables
from securitynet.analysis.figures.base import Drawn, Figure
from securitynet.analysis.figures.performance import melt_quantities
from securitynet.analysis.figures.texts import lower_text

NONE = tables.NONE
ABSENT = "–"
"""Text of a cell without a measurement."""


def name_defenses(cases: pandas.DataFrame) -> pandas.Series:
    """Name of each case's defense, with its settings or the epsilon that it spent."""

    def name(case: pandas.Series) -> str:
        if pandas.isna(case["defense"]):
            return NONE
        words = [str(case["defense"])]
        if pandas.notna(case["epsilon"]):
            words.append(f"epsilon {float(case['epsilon']):.3g}")
        elif pandas.notna(case["setting"]):
            words.append(str(case["setting"]))
        return ", ".join(words)

    return cases.apply(name, axis=1).astype(object) if len(cases) else pandas.Series([], dtype=object)


def name_models(cases: pandas.DataFrame) -> pandas.Series:
    """Name of each case's model, with its architecture, dataset, defense and backdoor unless the name contains them.

    Cases of the same name are distinguished by the beginning of their key.
    """
    defenses = name_defenses(cases).where(cases["defense"].notna(), None)
    names = []
    for model, *others in zip(
        cases["model"], cases["architecture"], cases["dataset"], defenses, cases["backdoor"], strict=True
    ):
        name = str(model)
        for words in others:
            if pandas.notna(words) and str(words).partition(",")[0].casefold() not in name.casefold():
                name += f" · {words}"
        names.append(name)
    unique = pandas.Series(names, index=cases.index, dtype=object)
    repeated = unique.duplicated(keep=False)
    return unique.where(~repeated, unique + " · " + cases["case"].astype(str).str[:6])


def pair_defenses(cases: pandas.DataFrame, defense: str) -> pandas.DataFrame:
    """The cases of a defense and those that they are compared with, each with its ``pair``, in words.

    Like is compared with like: the same architecture on the same dataset, trained for as many epochs, without any
    defense; for a distilled student its teacher's architecture, where the study has that (the paper compares VGG19 with
    the VGG11 that learns from it). If any of those has a seed that the defense was tried with, only such ones count.

    A case without a defense occurs once for each pair that it belongs to.
    """
    cases = cases.assign(_epochs=pandas.to_numeric(cases["epochs"]).fillna(-1))
    plain = cases[cases["defense"].isna()]
    there = set(zip(plain["dataset"], plain["architecture"], strict=True))
    with_it = cases[cases["defense"] == defense].copy()
    origins = [
        teacher if isinstance(teacher, str) and (dataset, teacher) in there else own
        for dataset, own, teacher in zip(with_it["dataset"], with_it["architecture"], with_it["teacher"], strict=True)
    ]
    with_it["origin"] = origins
    # A paper's targets and a study's were trained for other numbers of epochs, but on other datasets.
    several = with_it.groupby(["dataset", "architecture"])["_epochs"].nunique().gt(1).any()
    with_it["pair"] = [
        (own if own == origin else f"{origin} → {own}") + (f", {epochs:g} epochs" if several else "")
        for own, origin, epochs in zip(with_it["architecture"], origins, with_it["_epochs"], strict=True)
    ]
    wanted = with_it[["dataset", "origin", "pair", "_epochs"]].drop_duplicates()
    originals = plain.merge(
        wanted, left_on=["dataset", "architecture", "_epochs"], right_on=["dataset", "origin", "_epochs"]
    )
    tried = with_it.groupby(["dataset", "pair"])["seed"].agg(set).to_dict()
    if len(originals):
        keys = zip(originals["dataset"], originals["pair"], originals["seed"], strict=True)
        same = pandas.Series([seed in tried[dataset, pair] for dataset, pair, seed in keys], index=originals.index)
        any_same = same.groupby([originals["dataset"], originals["pair"]]).transform("any")
        originals = originals[same | ~any_same]
    return pandas.concat([originals, with_it], ignore_index=True).drop(columns="_epochs")


def draw_attacks(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """Attacks on targets with the defense ``defense`` beside the same targets without; a column for each setting.

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.
    """
    cases = pair_defenses(wide, str(figure.options["defense"]))
    cases = cases.assign(_defense=name_defenses(cases))
    quantities = {name: quantity for name, quantity in figure.quantities.items() if cases[name].notna().any()}
    long = melt_quantities(cases, quantities)
    several = long["pair"].nunique() > 1
    rows = ["pair", "condition"] if several else ["condition"]
    table = tables.tabulate_cells(long, rows, ["dataset", "_defense"])
    order = {quantity.label: number for number, quantity in enumerate(quantities.values())}
    shown = _crossed(table, rows, ["dataset", "_defense"], order)
    pairs = f" Targets: {', '.join(sorted(map(str, long['pair'].unique())))}."
    lacking = sorted({str(case["pair"]) for _, case in cases[cases["defense"].notna()].iterrows()}
                     - set(cases.loc[cases["defense"].isna(), "pair"].astype(str)))  # fmt: skip
    without = f" Nothing without a defense to compare with: {', '.join(lacking)}." if lacking else ""
    absent = [quantity for name, quantity in figure.quantities.items() if name not in quantities]
    empty = f" Without data here: {frames.list_absent(tidy, absent)}." if absent else ""
    return Drawn(None, tables.write_table_caption(figure, long) + pairs + without + empty, shown, table)


def draw_utility(wide: pandas.DataFrame, tidy: pandas.DataFrame, figure: Figure) -> Drawn:
    """Test accuracy by defense with its settings, and architecture; a column for each dataset.

    Where the risk of the worst records was measured, utility and risk have a row each.

    Epsilons differ between datasets; DP-SGD settings are distinguished by the requested epsilon, not the one spent.

    Args:
        wide: One row per case, with a column for each quantity and each annotation.
        tidy: The tidy frame that ``wide`` was made from.
        figure: The declaration of the figure.
    """
    spent = wide["epsilon"].notna() & wide["setting"].notna()
    cases = wide.assign(epsilon=wide["epsilon"].mask(spent))
    cases["_defense"] = name_defenses(cases)
    quantities = {name: quantity for name, quantity in figure.quantities.items() if cases[name].notna().any()}
    long = melt_quantities(cases, quantities).rename(columns={"_defense": "defense in use"})
    lengths = long.groupby(["dataset", "architecture"], dropna=False)["epochs"].nunique(dropna=False)
    epochs = ["epochs"] if lengths.gt(1).any() else []
    rows = ["defense in use", "architecture", *epochs, *(["condition"] if len(quantities) > 1 else [])]
    table = tables.tabulate_cells(long, rows, ["dataset"])
    what = f" Shown: {'; '.join(lower_text(quantity.label) for quantity in quantities.values())}."
    return Drawn(None, tables.write_table_caption(figure, long) + what, _crossed(table, rows, ["dataset"], {}), table)


def _crossed(table: pandas.DataFrame, rows: list[str], columns: list[str], order: dict[str, int]) -> pandas.DataFrame:
    """The cells with rows and columns in order: those without a defense first, conditions as they are declared."""

    def place(value: object) -> tuple[bool, int, object]:
        text = str(value)
        words, _, number = text.rpartition(" ")
        try:
            return text != NONE, order.get(text, 0), f"{words} {float(number):012.4f}"
        except ValueError:
            return text != NONE, order.get(text, 0), text

    pivot = table.pivot(index=rows, columns=columns, values="cell")
    keys = sorted(pivot.columns, key=lambda key: [place(part) for part in ([key] if isinstance(key, str) else key)])
    pivot = pivot[keys]
    pivot = pivot.loc[
        sorted(pivot.index, key=lambda key: [place(part) for part in ([key] if isinstance(key, str) else key)])
    ]
    pivot.columns = pandas.Index([" · ".join([key] if isinstance(key, str) else map(str, key)) for key in keys])
    return pivot.fillna(ABSENT).reset_index()
