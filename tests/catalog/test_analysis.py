"""Statistics, comparison, selection, agreement and validation, against values made by hand or by another library."""

from __future__ import annotations

import http.server
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from sklearn.metrics import cohen_kappa_score

from securitynet.catalog import agreement as coding
from securitynet.catalog.catalog import Catalog
from securitynet.catalog.compare import compare_groups_of_models
from securitynet.catalog.importers.annotations import read_annotations
from securitynet.catalog.importers.base import TableError
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.selection import select_models, tabulate_facets
from securitynet.catalog.stats import count_entries
from securitynet.catalog.validation import check_entry, validate_entries
from securitynet.errors import ConfigurationError, UnknownName


def frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    """As `Catalog.to_frame` gives it."""
    found = []
    for number, row in enumerate(rows):
        measured = {name: value for name, value in row.items() if "." in name}
        codes = {name: value for name, value in row.items() if "." not in name}
        entry = CatalogEntry(key=f"t:{number}", source="t", name=f"m{number}", reference=f"hf:t/{number}", **codes)
        found.append({"id": entry.id, **entry.model_dump(), **measured})
    return pandas.DataFrame(found)


def test_statistics_of_figure_1() -> None:
    found = count_entries(frame([
        {"year": 2016, "countries": ("USA", "China"), "venue": "CVPR", "purpose": "benchmark", "family": "ResNet"},
        {"year": 2016, "countries": ("USA",), "venue": "NeurIPS", "purpose": "security", "family": "ResNet"},
        {"year": 2012, "purpose": "benchmark", "family": "AlexNet"},
    ]))  # fmt: skip
    assert found.total == 3 and found.purposes == {"benchmark": 2, "security": 1}
    years = found.counts["year"]
    assert years[["value", "benchmark", "security", "total"]].values.tolist() == [[2012, 1, 0, 1], [2016, 1, 1, 2]]
    countries = found.counts["countries"].set_index("value")["total"]
    assert countries.to_dict() == {"USA": 2, "China": 1} and countries.index[0] == "USA"
    assert found.known["venue"] == pytest.approx(2 / 3) and found.known["countries"] == pytest.approx(2 / 3)
    assert found.distinct == {"year": 2, "countries": 2, "venue": 2, "venue_type": 0, "dataset": 0, "family": 2}


def test_comparison_finds_planted_clusters() -> None:
    rng = numpy.random.default_rng(0)
    low, high = rng.normal(0.30, 0.02, 20), rng.normal(0.85, 0.02, 20)
    security = [
        {"purpose": "security", "family": "VGG", "accuracy.test": a, "accuracy.train": a + 0.1} for a in [*low, *high]
    ]
    benchmark = [{"purpose": "benchmark", "family": "VGG", "accuracy.test": 0.94, "accuracy.train": 0.99}] * 3
    other = [{"purpose": "benchmark", "family": "ViT", "accuracy.test": 0.99}]
    rows = [{**row, "dataset": "CIFAR-10"} for row in security + benchmark + other]
    table = frame([*rows, {"purpose": "benchmark", "dataset": "SVHN", "accuracy.test": 0.9, "family": "VGG"}])
    (found,) = compare_groups_of_models(table)
    assert found.families == ["VGG"] and found.accuracy["benchmark"].n == 3, "only families that both have"
    assert [cluster.mean for cluster in found.clusters] == pytest.approx([low.mean(), high.mean()])
    assert [cluster.n for cluster in found.clusters] == [20, 20]
    members = [found.members[name] for name in table["id"][:40]]
    assert members == [0] * 20 + [1] * 20
    assert found.overfitting["security"].mean == pytest.approx(0.1) and found.overfitting[
        "benchmark"
    ].mean == pytest.approx(0.05)
    (wide,) = compare_groups_of_models(table, any_architecture=True)
    assert wide.accuracy["benchmark"].n == 4


def test_one_cluster_is_not_split() -> None:
    values = numpy.random.default_rng(1).normal(0.8, 0.02, 60)
    rows = [{"purpose": "security", "family": "VGG", "dataset": "CIFAR-10", "accuracy.test": a} for a in values]
    (found,) = compare_groups_of_models(
        frame([*rows, {"purpose": "benchmark", "family": "VGG", "dataset": "CIFAR-10", "accuracy.test": 0.9}])
    )
    assert len(found.clusters) == 1


def test_comparison_of_the_published_tables(sqlite_catalog: Catalog, published: Path) -> None:
    sqlite_catalog.import_table(published)
    found = {item.dataset: item for item in compare_groups_of_models(sqlite_catalog.to_frame())}
    cifar = found["CIFAR-10"]
    # The paper's Figure 2: security models stay below benchmark models. Of its two clusters only the low one, of 68 to
    # 82%, is in the published table, and it is not cut into parts.
    assert cifar.accuracy["security"].n == 72
    assert cifar.accuracy["security"].high < cifar.accuracy["benchmark"].low
    assert len(cifar.clusters) == 1


def test_selection_reaches_the_optimum_on_a_small_case() -> None:
    rng = numpy.random.default_rng(3)
    rows = [
        {
            "family": f"F{rng.integers(5)}",
            "dataset": f"D{rng.integers(4)}",
            "year": int(2015 + rng.integers(5)),
            "claimed_accuracy": float(rng.random()),
        }
        for _ in range(14)
    ]
    table = frame(rows)
    values = tabulate_facets(table)

    def covered(indices: Any) -> float:
        return sum(values[f][list(indices)].nunique() / values[f].nunique() for f in values) / len(values)

    best = max(covered(indices) for indices in itertools.combinations(range(14), 4))
    found = select_models(table, 4)
    assert found.objective >= (1 - 1 / numpy.e) * best
    assert found.objective == pytest.approx(covered([list(table["id"]).index(name) for name in found.chosen["id"]]))
    assert all(sorted(set(found.covered[f]) | set(found.missing[f])) == sorted(set(values[f].dropna())) for f in values)


def test_selection_bears_missing_values_and_refuses_too_many() -> None:
    table = frame([{"family": "ResNet"}, {}, {"family": "VGG", "year": 2015}])
    found = select_models(table, 2)
    assert set(found.chosen["family"]) == {"ResNet", "VGG"}, "what is not known is covered last"
    assert found.unknown["year"] == 2 and "[[models]]" in found.as_toml()
    with pytest.raises(ConfigurationError, match="Only 3"):
        select_models(table, 4)


@pytest.fixture
def coded(sqlite_catalog: Catalog) -> Catalog:
    for number in range(30):
        sqlite_catalog.add({"name": f"m{number}", "key": f"t:m{number}", "source": "t"})
    return sqlite_catalog


def _annotate(catalog: Catalog, coders: dict[str, list[str]], code: str = "topic_category") -> None:
    for coder, values in coders.items():
        coding.annotate(catalog, coder, [(f"t:m{n}", {code: value}) for n, value in enumerate(values) if value])


def test_cohens_kappa_against_scikit_learn(coded: Catalog) -> None:
    rng = numpy.random.default_rng(0)
    first = rng.choice(["natural", "medical", "digit"], 30).tolist()
    second = [value if rng.random() < 0.7 else "face" for value in first]
    _annotate(coded, {"a": first, "b": second})
    code, overall = coding.measure_agreement(coding.read_units(coded))
    assert code.cohen == pytest.approx(cohen_kappa_score(first, second))
    assert overall.code == "all" and overall.cohen == pytest.approx(code.cohen)
    assert code.percent == pytest.approx(numpy.mean([a == b for a, b in zip(first, second, strict=True)]))
    assert code.fleiss is None and code.units == 30


def test_alpha_of_the_published_example(coded: Catalog) -> None:
    # Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": nominal data, four observers, gaps: 0.743.
    names = ["natural", "medical", "digit", "character", "face"]
    four = {
        "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    }
    _annotate(coded, {coder: [names[v - 1] if v else "" for v in values] for coder, values in four.items()})
    code, _ = coding.measure_agreement(coding.read_units(coded))
    assert code.krippendorff == pytest.approx(0.743, abs=5e-4)
    assert code.cohen is None and code.fleiss is None, "there are gaps"


def test_fleiss_kappa_by_hand(coded: Catalog) -> None:
    values = {"a": ["natural"] * 10, "b": ["natural"] * 5 + ["medical"] * 5, "c": ["natural"] * 5 + ["medical"] * 5}
    _annotate(coded, values)
    code, _ = coding.measure_agreement(coding.read_units(coded))
    # Five units of full agreement, five of one pair in three; shares 2/3 and 1/3 of the categories.
    observed, chance = (5 * 1 + 5 / 3) / 10, (2 / 3) ** 2 + (1 / 3) ** 2
    assert code.fleiss == pytest.approx((observed - chance) / (1 - chance))


def test_all_the_same_has_no_kappa(coded: Catalog) -> None:
    _annotate(coded, {"a": ["natural"] * 5, "b": ["natural"] * 5})
    code, _ = coding.measure_agreement(coding.read_units(coded))
    assert (code.percent, code.cohen, code.krippendorff) == (1.0, None, None)


def test_disagreements_and_resolution(coded: Catalog) -> None:
    _annotate(coded, {"a": ["natural", "medical", "digit", "face"], "b": ["natural", "medical", "face", "food"],
                      "c": ["natural", "digit", "food", ""]})  # fmt: skip
    found = coding.list_disagreements(coding.read_units(coded))
    by_entry = {item.entry: item for item in found}
    ids = [coded.get(f"t:m{n}").id for n in range(4)]
    assert (
        set(by_entry) == set(ids[1:]) and by_entry[ids[1]].majority == "medical" and by_entry[ids[2]].majority is None
    )
    changed, left = coding.resolve_values(coded, coding.parse_decisions(coded, [f"{ids[2]}:topic-category=plant"]))
    assert changed == 3 and [item.entry for item in left] == [ids[3]]
    assert [coded.get(name).topic_category for name in ids] == ["natural", "medical", "plant", None]
    assert coded.details(ids[0]).sources["topic_category"] == "person:coders"
    again, left = coding.resolve_values(coded)
    assert (again, len(left)) == (0, 1), "what was decided is no longer open; what was not is"
    coding.resolve_values(coded, coding.parse_decisions(coded, [f"{ids[1]}:topic-category=food"]))
    coding.resolve_values(coded)
    assert coded.get(ids[1]).topic_category == "food", "decided against the majority, and it holds"


def test_a_coder_who_says_two_things_is_told(coded: Catalog) -> None:
    rows = [("t:m0", {"year": "2016"}), (coded.get("t:m0").id, {"year": "2017"})]
    with pytest.raises(ConfigurationError, match="two values of year"):
        coding.annotate(coded, "a", rows)
    assert coding.read_units(coded) == {}


def test_annotations_replace_and_are_kept(coded: Catalog) -> None:
    rows = [("t:m0", {"elements": "attention;dropout"})]
    assert coding.annotate(coded, "a", rows) == 1
    assert coding.annotate(coded, "a", [("t:m0", {"elements": "dropout; attention"})]) == 0, "a set has no order"
    assert coding.annotate(coded, "a", [("t:m0", {"elements": "dropout"})]) == 1
    assert coding.read_units(coded)[coded.get("t:m0").id, "elements"] == {"a": ["dropout"]}
    with pytest.raises(ConfigurationError, match="two people"):
        coding.measure_agreement(coding.read_units(coded))
    with pytest.raises(UnknownName):
        coding.annotate(coded, "a", [("t:m1", {"year": "2016"}), ("t:m1", {"colour": "red"})])
    assert all(unit[1] == "elements" for unit in coding.read_units(coded)), "one wrong code, and nothing is stored"


def test_annotation_files(tmp_path: Path) -> None:
    path = tmp_path / "alice.csv"
    path.write_text("entry,topic_category,year\nt:m0,natural,2016\nt:m1,,2017\n")
    assert read_annotations(path) == {
        "alice": [("t:m0", {"topic_category": "natural", "year": "2016"}), ("t:m1", {"year": "2017"})]
    }
    path.write_text("entry,coder,year\nt:m0,bob,2016\nt:m0,carol,2017\n")
    assert set(read_annotations(path)) == {"bob", "carol"}
    for text, message in {"name,year\n": "no column", "entry,year\na\n": "line 2"}.items():
        path.write_text(text)
        with pytest.raises(TableError, match=message):
            read_annotations(path)


def test_validation_of_entries() -> None:
    def trouble(**codes: Any) -> list[tuple[str, str]]:
        entry = CatalogEntry(**{"key": "t:a", "source": "t", "name": "a", "head": "classifier", **codes})
        return [(finding.severity, finding.code) for finding in check_entry(entry)]

    assert trouble(dataset="CIFAR-10", classes=10, claimed_accuracy=0.9, claimed_top5=0.99) == []
    assert trouble(dataset="CIFAR-10", classes=100) == [("error", "classes")]
    assert trouble(dataset="CIFAR-10", classes=10, training_size=45000) == [("warning", "training_size")]
    assert trouble(classes=10, claimed_accuracy=0.01) == [("error", "claimed_accuracy")]
    assert trouble(classes=10, claimed_accuracy=0.9, claimed_top5=0.8) == [("error", "claimed_top5")]
    assert trouble(classes=10, extra_data=False, pretraining=("JFT-300M",)) == [("error", "extra_data")]
    assert trouble(classes=10, paper_link="https://nodots/x") == [("error", "paper_link")]
    assert trouble(dataset="ImageNet-1k", head="none", task_type="feature extraction") == []
    with pytest.raises(ValueError, match="claimed_accuracy"):
        CatalogEntry(key="t:a", source="t", name="a", claimed_accuracy=91.7)


@pytest.fixture
def links_server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response({"/there": 200, "/gone": 404, "/no-head": 405}[self.path])
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            del args

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_validation_online(sqlite_catalog: Catalog, links_server: str) -> None:
    for name in ("there", "gone", "no-head"):
        sqlite_catalog.add({"name": name, "paper_link": f"{links_server}/{name}"})
    sqlite_catalog.add({"name": "nobody", "paper_link": "http://127.0.0.1:9/x"})
    assert list(validate_entries(sqlite_catalog.database, sqlite_catalog.query())) == []
    found = {
        finding.entry: finding
        for finding in validate_entries(sqlite_catalog.database, sqlite_catalog.query(), online=True)
    }
    assert set(found) == {"manual:gone", "manual:nobody"}
    assert found["manual:gone"].severity == "error" and "404" in found["manual:gone"].message
    assert found["manual:nobody"].severity == "warning", "a server that does not answer may be back tomorrow"
