"""Published results: the packaged tables against their sources, and importers of newer checkouts."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

import securitynet.catalog.catalog as catalog_module
from securitynet.catalog.catalog import Catalog
from securitynet.catalog.collectors import robustbench as robustbench_collector
from securitynet.catalog.collectors.base import LibraryCollector
from securitynet.catalog.importers.base import TableError
from securitynet.catalog.importers.published import count_authors, read_robustbench, read_timm_results
from securitynet.catalog.published import (
    ROBUST_TRANSFER,
    ROBUSTBENCH,
    TIMM,
    choose_at_size,
    describe_source,
    load_packaged,
)
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.stats import measure_coverage
from securitynet.catalog.store import Item
from securitynet.errors import UnknownName

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "published-results"

AUTHORS = {
    "Chen2020Efficient": 5,
    "Cui2020Learnable_34_10": 4,
    "Cui2020Learnable_34_20": 4,
    "Erichson2022NoisyMix": 6,
    "Erichson2022NoisyMix_new": 6,
    "Kundu2020Tunable": 4,
    "Pang2020Bag": 5,
    "Peng2023Robust": 9,
    "Rade2021Helper_R18_ddpm": 2,
    "Rade2021Helper_R18_extra": 2,
    "Rade2021Helper_ddpm": 2,
    "Rade2021Helper_extra": 2,
    "Sitawarin2020Improving": 3,
    "Sridhar2021Robust": 4,
    "Sridhar2021Robust_34_15": 4,
    "Wu2020Do": 5,
}
"""Authors, counted by hand, of the models whose lists of authors are not separated by commas alone."""


@pytest.fixture(scope="module")
def published() -> Path:
    if not PUBLISHED.is_dir():
        pytest.skip("the published results are not beside the repository")
    return PUBLISHED


@pytest.fixture(scope="module")
def robustbench() -> Catalog:
    catalog = Catalog("sqlite://")
    with pytest.MonkeyPatch.context() as patch:  # its own package, where installed, lists other models too
        patch.setattr(robustbench_collector, "_zoo", lambda: None)
        catalog.collect("robustbench")
    return catalog


def test_every_table_states_its_source() -> None:
    for table in (TIMM, ROBUSTBENCH, ROBUST_TRANSFER):
        source = describe_source(table)
        assert source.address.startswith("https://github.com/") and source.license and source.read >= "2026"


def test_fifty_rows_agree_with_the_files_of_timm(published: Path) -> None:
    rows = list(csv.DictReader((published / "timm" / "results-imagenet.csv").open(encoding="utf-8")))
    other = {
        (row["model"], row["img_size"]): row
        for row in csv.DictReader((published / "timm" / "results-imagenet-a.csv").open(encoding="utf-8"))
    }
    for row in random.Random(0).sample(rows, 50):
        model = choose_at_size(load_packaged(TIMM)[row["model"]], int(row["img_size"]))
        assert model is not None and model.facts["size"] == row["img_size"]
        assert model.values["accuracy.test"] == pytest.approx(float(row["top1"]) / 100)
        assert model.values["accuracy.top5"] == pytest.approx(float(row["top5"]) / 100)
        hard = other[row["model"], row["img_size"]]
        assert model.values["accuracy.imagenet-a"] == pytest.approx(float(hard["top1"]) / 100)


def test_every_entry_agrees_with_the_files_of_robustbench(published: Path, robustbench: Catalog) -> None:
    spelled = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "ImageNet-1k": "imagenet"}
    folder = published / "robustbench" / "model_info"
    frame = robustbench.to_frame(robustbench.query(duplicates=True))
    assert len(frame) == len(list(folder.glob("*/*/*.json"))) == 236
    for row in frame.to_dict("records"):
        _, dataset, threat, name = row["key"].split(":", 3)
        stated = json.loads((folder / spelled[dataset] / threat / f"{name}.json").read_text(encoding="utf-8"))
        assert row["accuracy.test"] == pytest.approx(float(stated["clean_acc"]) / 100)
        assert row["dataset"] == dataset
        if row["purpose"] == "security":
            assert row["authors"] == AUTHORS.get(name, stated["authors"].count(",") + 1)
            assert row["paper_title"] == " ".join(stated["name"].split())
            assert str(int(row["year"])) in stated["venue"] and stated["venue"].startswith(row["venue"])
        if threat in ("Linf", "L2"):
            lowest = min(float(stated["autoattack_acc"]), float(stated.get("external") or 100))
            assert row[f"accuracy.threat={threat}.best-known"] == pytest.approx(lowest / 100)
        else:
            assert row["accuracy.corruptions"] == pytest.approx(float(stated["corruptions_acc"]) / 100)


def test_published_values_are_no_columns_and_name_their_source(robustbench: Catalog) -> None:
    details = robustbench.details("robustbench:CIFAR-10:Linf:Standard")
    assert details.entry.purpose == "benchmark" and details.entry.paper_title == "Wide Residual Networks"
    assert {m.name for m in details.measured} >= {"accuracy.test", "accuracy.threat=Linf.best-known"}
    assert {(m.measured_by, m.source) for m in details.measured} == {
        ("published", describe_source(ROBUSTBENCH).address)
    }
    counted = robustbench.query(purpose="security", duplicates=True).count()
    assert counted == 230


def test_reading_the_sources_again_makes_the_packaged_tables(published: Path) -> None:
    for kind, reader in ((TIMM, read_timm_results), (ROBUSTBENCH, read_robustbench)):
        models, problems = reader(published / kind.removesuffix("-results"))
        assert not problems
        again = {(model.name, model.facts.get("size")): model for model in models}
        carried = {(m.name, m.facts.get("size")): m for rows in load_packaged(kind).values() for m in rows}
        assert again.keys() == carried.keys()
        for key, model in again.items():
            assert model.facts == carried[key].facts
            assert model.values == pytest.approx(carried[key].values)


def test_a_newer_checkout_changes_values_and_keeps_the_old_ones(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published / "robustbench", tmp_path / "checkout")
    file = tmp_path / "checkout" / "model_info" / "cifar10" / "Linf" / "Standard.json"
    file.chmod(0o644)
    with Catalog("sqlite://") as catalog:
        catalog.collect("robustbench")
        again = catalog.import_published(ROBUSTBENCH, tmp_path / "checkout")
        assert (again.entries.added, again.entries.changed, again.entries.measurements) == (0, 0, 0)
        file.write_text(file.read_text(encoding="utf-8").replace('"94.78"', '"93.00"'), encoding="utf-8")
        (file.parent / "Bad.json").write_text("{", encoding="utf-8")
        newer = catalog.import_published(ROBUSTBENCH, tmp_path / "checkout")
        assert newer.entries.measurements == 1 and "Bad.json" in str(newer.problems[0])
        values = [m.value for m in catalog.details("robustbench:CIFAR-10:Linf:Standard").measured]
        assert 0.93 in values and 0.9478 not in values


def test_timm_results_are_for_the_models_that_the_catalog_holds(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results-imagenet.csv").write_text(
        "model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation\n"
        'net.a1_in1k,288,71.5,28.5,90.1,9.9,"1,013.01",1.0,bicubic\n'
        "net.a1_in1k,224,70.5,29.5,89.1,10.9,1013.01,1.0,bicubic\n"
        "unknown.a1_in1k,224,70.5,29.5,89.1,10.9,11.69,1.0,bicubic\n"
        "net.a1_in1k,224,170.5,29.5,89.1,10.9,11.69,1.0,bicubic\n"
    )
    with Catalog("sqlite://") as catalog:
        catalog.add({"source": "timm", "name": "net.a1_in1k", "key": "timm:net.a1_in1k", "image_height": 224})
        report = catalog.import_published(TIMM, tmp_path)
        details = catalog.details("timm:net.a1_in1k")
        assert (details.entry.claimed_accuracy, details.entry.claimed_top5) == (0.705, 0.891)
        assert details.measured[0].source.endswith("(224 px)")
        assert ["170.5" in str(problem) for problem in report.problems] == [True]
        assert ["unknown.a1_in1k" in str(warning) for warning in report.warnings] == [True]
        with pytest.raises(TableError, match="no results-imagenet"):
            catalog.import_published(TIMM, tmp_path / "absent")
        with pytest.raises(UnknownName, match="timm-resultz"):
            catalog.import_published("timm-resultz", tmp_path)


def test_coverage_by_hand() -> None:
    with Catalog("sqlite://") as catalog:
        catalog.add({"source": "a", "name": "1", "year": "2016", "claimed_accuracy": "0.9"})
        catalog.add({"source": "a", "name": "2", "countries": "USA"})
        catalog.add({"source": "b", "name": "3"})
        shares = measure_coverage(catalog.to_frame())
    assert list(shares.columns) == ["all", "a", "b"]
    assert shares.loc["year"].tolist() == pytest.approx([1 / 3, 0.5, 0.0])
    assert shares.loc["countries"].tolist() == pytest.approx([1 / 3, 0.5, 0.0])
    assert shares.loc["accuracy"].tolist() == pytest.approx([1 / 3, 0.5, 0.0])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Ada Lovelace", 1),
        ("Ada Lovelace, Alan Turing", 2),
        ("Ada Lovelace and Alan Turing", 2),
        ("Ada Lovelace, Alan Turing, and Kurt Gödel", 3),
        ("Lovelace, Ada and Turing, Alan M and Gödel, Kurt", 3),
        ("Fernando Morales, Ferdinand Orlando", 2),
        ("", 0),
    ],
)
def test_authors_are_counted_however_they_are_separated(text: str, count: int) -> None:
    assert count_authors(text) == count


def test_security_models_without_the_published_table_are_more_than_the_papers(robustbench: Catalog) -> None:
    with Catalog("sqlite://") as catalog:
        report = catalog.collect("robust-transfer")
        assert report.entries.added == 64 and not report.gone
        frame = catalog.to_frame()
        strong = catalog.get("robust-transfer:resnet50_l2_eps3")
        assert (strong.threat, strong.claimed_accuracy, strong.architecture) == ("L2", 0.6283, "resnet50")
        assert (strong.venue, strong.year, strong.authors, strong.countries) == ("NeurIPS", 2020, 5, ("USA",))
        standard = catalog.get("robust-transfer:resnet50_l2_eps0")
        assert (standard.purpose, standard.claimed_accuracy, standard.venue) == ("benchmark", 0.758, "CVPR")
    security = robustbench.query(purpose="security").count() + int((frame["purpose"] == "security").sum())
    assert security >= 245
    assert frame["claimed_accuracy"].notna().all()


def test_affiliations_of_security_papers_name_their_table(robustbench: Catalog) -> None:
    frame = robustbench.to_frame(robustbench.query(purpose="security"))
    assert frame["countries"].map(bool).mean() >= 0.95
    details = robustbench.details("robustbench:CIFAR-10:Linf:Huang2021Exploring")
    assert details.entry.countries == ("Australia", "China", "USA")
    assert details.sources["countries"] == "curated:security_papers.csv"


def test_a_collection_says_what_is_new_changed_and_gone() -> None:
    class Library(LibraryCollector):
        library = "somelib"
        models: ClassVar[dict[str, int]] = {"a": 1, "b": 2}

        def source(self) -> str:
            return "somelib 1"

        def collect(self) -> Iterator[Item]:
            for name, parameters in self.models.items():
                codes = {"key": f"somelib:{name}", "source": "somelib", "name": name, "parameters": parameters}
                yield Item(CatalogEntry(**codes), {})

    with Catalog("sqlite://") as catalog, pytest.MonkeyPatch.context() as patch:
        catalog.add({"name": "own", "source": "manual"})
        patch.setattr(catalog_module.COLLECTORS, "get", lambda name: Library)
        first = catalog.collect("somelib")
        assert (first.added, first.changed, first.gone) == (("somelib:a", "somelib:b"), (), ())
        Library.models = {"b": 3, "c": 4}
        second = catalog.collect("somelib")
        assert (second.added, second.changed, second.gone) == (("somelib:c",), ("somelib:b",), ("somelib:a",))
        assert catalog.get("somelib:a").parameters == 1  # it stays
