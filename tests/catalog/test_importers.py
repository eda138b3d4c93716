"""The published tables, and tables that are broken in every way."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from securitynet.catalog.catalog import Catalog
from securitynet.catalog.export import export
from securitynet.catalog.importers.base import TableError
from securitynet.catalog.importers.markdown import link, strip_markup
from securitynet.catalog.importers.read import read_published_table
from securitynet.errors import UnknownName

HEADER = (
    "| Model Name | Model Type | Data Name | Data Category | Num Class | Training Size | Train Accuracy | Test Accuracy"
    " | Overfit Gap | Model Stealing Accuracy | Conference | Conference Type | Year | Country | Num Authors | Purpose "
    "| Paper Link | Weights |"
)
RULE = "|" + " --- |" * 18
ROW = (
    "| {name} | resnet | CIFAR-10 | natural | 10 | 50000 | {train} | {test} | {gap} | 0.7 | CVPR | CV | 2016 | USA, "
    "Korea | 4 | benchmark | [Link](https://arxiv.org/abs/1512.03385) | [Link](https://github.com/osmr/imgclsmob) |"
)


def row(name: str = "resnet20_cifar10", train: str = "0.99", test: str = "0.94", gap: str = "0.05") -> str:
    return ROW.format(name=name, train=train, test=test, gap=gap)


def page(*rows: str, header: str = HEADER) -> str:
    return "\n".join(
        ["# Title", "", "Some words | with a bar.", "", "## Models", header, RULE, *rows, "", "More words."]
    )


def write(folder: Path, text: str | bytes, name: str = "table.md") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_published_tables_counts_and_correlations(catalog: Catalog, published: Path) -> None:
    report = catalog.import_table(published)
    assert report.by_purpose == {"benchmark": 437, "security": 92}
    assert (report.entries.added, report.papers.added, report.problems) == (529, 102, [])
    assert [problem.line for problem in report.warnings] == [566], "one paper's link is no link"
    table = catalog.to_frame()
    benchmark = table[table["purpose"] == "benchmark"].dropna(subset=["stealing.accuracy", "accuracy.test"])
    expected = {"CIFAR-10": -0.703, "CIFAR-100": -0.780, "SVHN": -0.579, "CUB-200-2011": -0.637}
    for dataset, correlation in expected.items():
        rows = benchmark[benchmark["dataset"] == dataset]
        assert round(rows["stealing.accuracy"].corr(rows["accuracy.test"]), 3) == correlation
    for dataset, ratio in {"CIFAR-10": 0.791, "SVHN": 0.950}.items():
        rows = benchmark[benchmark["dataset"] == dataset]
        assert round(rows["stealing.accuracy"].mean() / rows["accuracy.test"].mean(), 3) == ratio
    again = catalog.import_table(published)
    assert (again.entries.added, again.entries.changed, again.entries.measurements) == (0, 0, 0)
    assert (again.papers.added, again.papers.changed) == (0, 0)
    assert {state.version for state in catalog.history("securitynet:benchmark:resnet20_cifar10@CIFAR-10")} == {1}


def test_zero_in_a_measured_column_is_not_measured(published: Path) -> None:
    items = read_published_table(published).items
    medical = next(item for item in items if item.entry.name == "resnet18_acs_1.pth")
    assert {m.name for m in medical.measured} == {"accuracy.test", "stealing.accuracy", "stealing.agreement"}
    values = [m.value for item in items for m in item.measured]
    assert 0.0 not in values and all(-1 <= value <= 1 for value in values)
    # 20 security models have `nan` for stealing.
    assert (
        sum(any(m.name == "stealing.accuracy" for m in i.measured) for i in items if i.entry.purpose == "security")
        == 72
    )


def test_repeated_names_stay_apart_and_links_are_kept(published: Path) -> None:
    items = read_published_table(published).items
    assert len({item.entry.key for item in items}) == 529
    seeds = [i for i in items if i.entry.name == "resnet_plain_const_eps8_wd1e-3_200"]
    assert [i.entry.key.partition("#")[2] for i in seeds] == ["", "2", "3"]
    assert len({i.entry.dataset for i in items if i.entry.name == "resnet18_28_1"}) == 11
    assert all(i.entry.paper_link and i.entry.weights_link for i in items)
    loadable = [i.entry for i in items if i.entry.reference]
    assert len(loadable) == 263 and loadable[0].reference == f"pytorchcv:{loadable[0].name}"


def test_codes_of_a_row(tmp_path: Path) -> None:
    (item,) = read_published_table(write(tmp_path, page(row()))).items
    entry = item.entry
    assert (entry.dataset, entry.classes, entry.training_size, entry.year, entry.authors) == (
        "CIFAR-10",
        10,
        50000,
        2016,
        4,
    )
    assert (entry.venue, entry.venue_type, entry.countries) == ("CVPR", "computer vision", ("USA", "South Korea"))
    assert (entry.architecture, entry.family, entry.architecture_type) == ("resnet20", "ResNet", "cnn")
    assert item.sources["granularity"] == "curated:datasets.csv (CIFAR-10)"


def test_bad_rows_are_named_and_do_not_stop_the_rest(tmp_path: Path, sqlite_catalog: Catalog) -> None:
    path = write(
        tmp_path,
        page(
            row(), row("high", test="94"), "| too | few |", row("word", test="good"), row("", test="0.9"), row("fine")
        ),
    )
    report = sqlite_catalog.import_table(path)
    assert report.entries.added == 2
    lines = {problem.line: problem.reason for problem in report.problems}
    assert sorted(lines) == [9, 10, 11, 12]
    assert (
        "outside [0, 1]" in lines[9]
        and "cells" in lines[10]
        and "'good' is no number" in lines[11]
        and "no model name" in lines[12]
    )


def test_strict_writes_nothing(tmp_path: Path, sqlite_catalog: Catalog) -> None:
    path = write(tmp_path, page(row(), row("high", test="94")))
    with pytest.raises(TableError, match="line 9"):
        sqlite_catalog.import_table(path, strict=True)
    assert sqlite_catalog.query().count() == 0


def test_html_entities_bars_and_unicode(tmp_path: Path) -> None:
    cell = r"r&eacute;sn<b>et</b>20 \| <script>alert(1)</script>模型 🦊"
    text = page(row(cell)).replace(
        "[Link](https://arxiv.org/abs/1512.03385)", "<a href='https://arxiv.org/abs/1512.03385'>Link</a>"
    )
    (item,) = read_published_table(write(tmp_path, text)).items
    assert item.entry.name == "résnet20 | alert(1)模型 🦊"
    assert item.entry.paper_link == "https://arxiv.org/abs/1512.03385"
    assert strip_markup("[a](b) <br> c") == "a c"
    with pytest.raises(ValueError, match="no web address"):
        link("[x](javascript:alert(1))")


def test_link_that_is_none_is_left_out_with_a_warning(tmp_path: Path) -> None:
    table = read_published_table(
        write(tmp_path, page(row()).replace("https://arxiv.org/abs/1512.03385", "javascript:alert(1)"))
    )
    assert table.items[0].entry.paper_link is None and table.warnings[0].line == 8 and not table.problems


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("words.md", "no table here\njust words | and a bar", "no table"),
        ("columns.md", page(row(), header=HEADER.replace("Data Name", "Data")), "lacks the columns Data Name"),
        ("picture.md", b"\x89PNG\r\n\x1a\n\xff\xfe", "UTF-8"),
        ("zeros.csv", b"name\0source", "binary"),
        ("empty.csv", "", "no rows"),
        ("empty.jsonl", "\n\n", "no rows"),
        ("columns.csv", "name,source,colour\na,b,red\n", "colour"),
        ("nothing.csv", "name,source\n,\n", "no usable row"),
        ("list.jsonl", "[1, 2]\n", "no JSON object"),
        ("broken.parquet", b"PAR1 but not really PAR1", "no Parquet"),
        ("table.xlsx", "x", "not read"),
    ],
)
def test_files_that_are_no_tables(
    tmp_path: Path, sqlite_catalog: Catalog, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises((TableError, UnknownName), match=message):
        sqlite_catalog.import_table(write(tmp_path, content, name))
    assert sqlite_catalog.query().count() == 0


def test_missing_file(sqlite_catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="No such file"):
        sqlite_catalog.import_table(tmp_path / "nowhere.md")


def test_csv_rows_one_by_one(tmp_path: Path, sqlite_catalog: Catalog) -> None:
    text = (
        "source,name,dataset,year,elements,claimed_accuracy,measured:accuracy.test\n"
        "me,a,cifar10,2016,attention;dropout,0.9,0.89\n"
        "me,b,cifar10,twenty,,,\n"
        "me,c,cifar10,2016,,1.5,\n"
        "me,d,cifar10,2016,attentoin,,\n"
        "me,e\n"
        "me,a,SVHN,,,,\n"
        ",g,,,,,\n"
    )
    report = sqlite_catalog.import_table(write(tmp_path, text, "mine.csv"))
    assert report.entries.added == 2
    assert [problem.line for problem in report.problems] == [3, 4, 5, 6, 8]
    assert "Did you mean attention" in report.problems[2].reason
    details = sqlite_catalog.details("me:a@CIFAR-10")
    assert details.entry.elements == ("attention", "dropout") and details.measured[0].value == 0.89


def test_json_lines_bad_lines(tmp_path: Path, sqlite_catalog: Catalog) -> None:
    lines = [
        '{"source": "me", "name": "a"}',
        '{"source": "me", "name": ',
        '{"source": "me", "name": "n", "year": NaN}',
        '{"source": "me", "name": "b"}',
    ]
    report = sqlite_catalog.import_table(write(tmp_path, "\n".join(lines), "mine.jsonl"))
    assert report.entries.added == 2 and [problem.line for problem in report.problems] == [2, 3]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_what_export_writes_import_reads(tmp_path: Path, sqlite_catalog: Catalog, suffix: str) -> None:
    import securitynet.catalog

    sqlite_catalog.import_table(write(tmp_path, page(row(), row('quote " ; comma , 模型'))))
    sqlite_catalog.edit("resnet20_cifar10", {"preprocessing": '{"mean": [0.5]}', "notes": "two\nlines"})
    path = tmp_path / f"out{suffix}"
    assert export(sqlite_catalog.database, sqlite_catalog.query(), path) == 2
    again = sqlite_catalog.import_table(path)
    assert (again.entries.unchanged, again.entries.measurements, again.problems) == (2, 0, [])
    with securitynet.catalog.open("sqlite://") as fresh:
        fresh.import_table(path)
        assert list(fresh.query()) == list(sqlite_catalog.query())
        key = "securitynet:benchmark:resnet20_cifar10@CIFAR-10"
        assert fresh.details(key).sources == sqlite_catalog.details(key).sources
        assert fresh.details(key).measured == sqlite_catalog.details(key).measured


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    write(tmp_path, page(row()), "table.md")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            del args

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_import_by_url(server: str, sqlite_catalog: Catalog) -> None:
    assert sqlite_catalog.import_table(f"{server}/table.md?raw=1").entries.added == 1
    with pytest.raises(TableError, match="404"):
        sqlite_catalog.import_table(f"{server}/nowhere.md")
    with pytest.raises(TableError, match="cannot be fetched"):
        sqlite_catalog.import_table("http://127.0.0.1:9/table.md")


def test_rows_that_lost_their_bars_or_their_table_are_named(tmp_path: Path, sqlite_catalog: Catalog) -> None:
    broken = row("b").replace("|", ";")
    text = page(row("a"), broken, row("c"), "", row("d"), row("e"))
    report = sqlite_catalog.import_table(write(tmp_path, text))
    assert report.entries.added == 2, "what follows a broken row is read"
    assert [(p.line, p.reason[:22]) for p in report.problems] == [
        (9, "1 cells where the head"), (12, "a row outside of any t"), (13, "a row outside of any t"),
    ]  # fmt: skip
    with pytest.raises(TableError, match="3 bad rows"):
        sqlite_catalog.import_table(write(tmp_path, text), strict=True)


def test_nul_characters_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    text = r"""{"source": "s", "name": "good"}
{"source": "s", "name": "b\u0000d"}
{"source": "s", "name": "x", "notes": "b\u0000d"}
{"source": "s", "name": "x", "weights_link": "https://example.org/\u0000"}
{"source": "s", "name": "x", "preprocessing": {"crop": "\u0000"}}
{"source": "s", "name": "x", "sources": {"name": "\u0000"}}
{"source": "s", "name": "x", "measurements": [{"name": "a", "value": 1, "measured_by": "trial", "source": "\u0000"}]}
"""
    report = catalog.import_table(write(tmp_path, text, "table.jsonl"))
    assert report.entries.added == 1 and [problem.line for problem in report.problems] == [2, 3, 4, 5, 6, 7]
    assert all("NUL" in problem.reason for problem in report.problems)
