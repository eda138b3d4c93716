"""Measured values are codes: entries are sorted and filtered by them, in the catalog and on the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from securitynet.catalog.catalog import Catalog
from securitynet.catalog.store import Measured
from securitynet.cli.main import app
from securitynet.errors import UnknownName

ROBUST = "accuracy.threat=Linf.autoattack"


@pytest.fixture()
def catalog(tmp_path: Path):
    with Catalog(f"sqlite:///{tmp_path}/catalog.sqlite") as catalog:
        for name, published, ours in (("a", 0.9, None), ("b", 0.7, 0.95), ("c", 0.8, None), ("d", None, None)):
            identifier = catalog.add({"key": f"mine:{name}", "source": "mine", "name": name})
            entry = catalog.get(f"mine:{name}")
            assert identifier is not None
            values = [Measured("accuracy.test", published, "published", "paper")] if published else []
            values += [Measured("accuracy.test", ours, "trial", "t1")] if ours else []
            values += [Measured(ROBUST, 0.5, "published", "paper")] if name == "c" else []
            catalog.record(entry.id, values)
        yield catalog


def names(query) -> list[str]:
    return [entry.name for entry in query]


def test_our_value_goes_before_the_published_one_and_none_comes_last(catalog: Catalog) -> None:
    assert names(catalog.query(sort="-accuracy.test")) == ["b", "a", "c", "d"]
    assert names(catalog.query(sort="accuracy.test")) == ["c", "a", "b", "d"]


def test_pages_go_on_where_the_last_one_ended(catalog: Catalog) -> None:
    query, seen, after = catalog.query(sort="-accuracy.test"), [], None
    while True:
        page = query.page(1, after)
        seen += [entry.name for entry in page.entries]
        after = page.after
        if after is None:
            break
    assert seen == ["b", "a", "c", "d"]


def test_filters(catalog: Catalog) -> None:
    assert sorted(names(catalog.query(filters={"accuracy.test": ">=0.9"}))) == ["a", "b"]
    assert names(catalog.query(filters={"accuracy.test": "none"})) == ["d"]
    assert names(catalog.query(filters={ROBUST: "0.4..0.6"})) == ["c"]
    with pytest.raises(UnknownName, match=r"accuracy\.tset"):
        catalog.query(filters={"accuracy.tset": "0.5.."})


def test_the_command_prints_what_it_sorts_by(catalog: Catalog, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    words = ["catalog", "search", "--sort", "-accuracy.test", "--measured", f"{ROBUST}=>=0.4", "--db", url]
    done = CliRunner().invoke(app, [*words, "--output", "json"])
    assert done.exit_code == 0, done.output
    assert '"accuracy.test": 0.8' in done.output and f'"{ROBUST}": 0.5' in done.output
