"""What is read into memory, and kept on disk, against the catalog itself, on both kinds of database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from securitynet.catalog.catalog import Catalog
from securitynet.catalog.store import Measured
from securitynet.web import reading
from securitynet.web.search import Search
from securitynet.web.state import State

ODD = (
    'a "quoted", one',
    "two\nlines",
    "tab\there",
    "comma,",
    '"',
    "%s %d",
    "ünï-cödé ß 漢字",
    "'",
    "\\",
    "x\r\ny",
    "None",
    "NULL",
)


def _odd(catalog: Catalog) -> list[str]:
    ids = []
    for number, text in enumerate(ODD):
        values = {"name": f"odd{number}", "dataset": text, "family": text, "parameters": str(2**53 - number)}
        if number % 2:
            values |= {"claimed_accuracy": repr(1 / (3 + number)), "countries": "USA;China"}
        ids.append(catalog.add(values).id)
    return ids


def test_every_value_arrives_as_it_is(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PART", 3)  # several parts, the last one not full
    ids = _odd(catalog)
    catalog.withdraw(ids[4], note="gone")
    catalog.record(ids[1], [Measured("accuracy.test", 0.1 + 0.2, "published", "paper")])
    catalog.record(ids[1], [Measured("accuracy.test", 1 / 3, "trial", "ours")])
    catalog.record(ids[2], [Measured("year", 3.0, "trial", "the name of a code is no name of a measured value")])
    catalog.record(ids[4], [Measured("accuracy.test", 0.5, "trial", "hidden")])
    frame, _ = reading.read_frames(catalog.database)
    expected = list(catalog.query())
    assert frame.height == len(expected) == len(ODD) - 1
    for name in ("dataset", "family"):
        assert frame[name].to_list() == [getattr(entry, name) for entry in expected]
    for name in ("parameters", "claimed_accuracy"):
        assert frame[name].fill_nan(None).to_list() == [getattr(entry, name) for entry in expected]
    assert [json.loads(text or "[]") for text in frame["countries"]] == [list(entry.countries) for entry in expected]
    assert frame["accuracy.test"].fill_nan(None).to_list()[:3] == [None, 1 / 3, None]
    assert "flops" not in frame.columns and "year" not in frame.columns


def test_a_duplicates_values_count_for_the_entry_that_stands_for_it(catalog: Catalog) -> None:
    ids = _odd(catalog)
    catalog.record(ids[5], [Measured("accuracy.test", 0.25, "trial", "ours")])
    catalog.record(ids[2], [Measured("accuracy.test", 0.75, "published", "paper")])
    catalog.link(ids[5], ids[2])
    frame, _ = reading.read_frames(catalog.database)
    assert frame.height == len(ODD) - 1 and frame["accuracy.test"].drop_nans().to_list() == [0.25]


@pytest.mark.parametrize("text", ["odd1", "odd", "od", "odd9 odd8", "2 odd2", "quoted one", "uni", "漢字", "nothing"])
def test_words_find_what_the_database_finds(catalog: Catalog, text: str) -> None:
    ids = _odd(catalog)
    catalog.withdraw(ids[9], note="gone")  # `odd9` is known, so it is no beginning, and finds nothing
    search = Search(catalog)
    for asked in (State(text=text), State(text=f"{text}*")):
        expected = [entry.id for entry in search.make_query(asked)]
        assert [row.id for row in search.read_rows(search.find_page(asked)[1])] == expected, asked


def test_a_file_in_the_cache_is_of_one_state(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECURITYNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reading, "FEWEST", 1)
    ids = _odd(catalog)
    first = reading.map_frames(catalog.database)
    columns, terms = sorted((tmp_path / "cache" / "web").iterdir())
    with monkeypatch.context() as unread:
        unread.setattr(reading, "read_frames", lambda database: pytest.fail("it is in the cache"))
        again = reading.map_frames(catalog.database)
    assert again.change == first.change and again.terms.equals(first.terms)
    assert again.columns.equals(first.columns) and again.columns.schema == first.columns.schema
    catalog.edit(ids[0], {"dataset": "MNIST"})
    assert Search(catalog).snapshot.match(State(filters={"dataset": ("MNIST",)})).total == 1
    newer, newer_terms = sorted((tmp_path / "cache" / "web").iterdir())  # the older ones are gone
    assert newer != columns and newer_terms != terms
    whole = newer.read_bytes()
    newer.unlink()  # not cut short in place: it is mapped
    newer.write_bytes(whole[: len(whole) // 2])
    assert Search(catalog).snapshot.match(State()).total == len(ODD)


def test_what_cannot_be_read_is_told(
    sqlite_catalog: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sqlite_catalog.add({"name": "net"})
    with monkeypatch.context() as broken:
        broken.setattr(reading, "read_frames", lambda database: 1 / 0)
        search = Search(sqlite_catalog)
        with pytest.raises(Exception, match="could not be read"):
            search.snapshot.match(State())
    monkeypatch.setattr("securitynet.web.search._LOOK_AGAIN", 0.0)
    search.refresh()
    assert search.snapshot.match(State()).total == 1
    caplog.clear()
    monkeypatch.setattr(reading, "map_frames", lambda database: 1 / 0)
    search.refresh()  # the older state serves on, so that only the log tells
    assert "could not be read: division by zero" in caplog.text and search._snapshot is not None
