"""What is read into memory, and kept on disk, against the catalog itself, on both kinds of database."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from securitynet.catalog.catalog import Catalog
from securitynet.catalog.store import Measured
from securitynet.web import columns, reading, snapshot
from securitynet.web.search import Search
from securitynet.web.state import State
from securitynet.web.terms import Builder

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
    catalog.record(ids[4], [Measured("accuracy.test", 0.5, "trial", "hidden")])
    found = reading.read(catalog.database)
    expected = list(catalog.query())
    assert len(found) == len(expected) == len(ODD) - 1
    for place, entry in enumerate(expected):
        for name in ("dataset", "family"):
            facet = found.facets[name]
            assert facet.values[facet.codes[place]] == getattr(entry, name)
        assert found.numeric["parameters"][place] == entry.parameters
        claimed = found.numeric["claimed_accuracy"][place]
        assert claimed == entry.claimed_accuracy if entry.claimed_accuracy else np.isnan(claimed)
    countries = found.facets["countries"]
    assert dict(zip(countries.values, countries.totals.tolist(), strict=True)) == {"": 5, "USA": 5, "China": 5}
    assert found.numeric["accuracy.test"][1] == 1 / 3 and np.isnan(found.numeric["accuracy.test"][2])
    assert found.known >= {"parameters", "claimed_accuracy", "accuracy.test"} and "flops" not in found.known


@pytest.mark.parametrize("text", ["odd1", "odd", "od", "odd9 odd8", "2 odd2", "quoted one", "uni", "漢字", "nothing"])
def test_words_find_what_the_database_finds(catalog: Catalog, text: str) -> None:
    ids = _odd(catalog)
    catalog.withdraw(ids[9], note="gone")  # `odd9` is known, so it is no beginning, and finds nothing
    search = Search(catalog)
    for asked in (State(text=text), State(text=f"{text}*")):
        expected = [entry.id for entry in search.query(asked)]
        assert [entry.id for entry in search.page(asked)[1]] == expected, asked


def test_terms_against_sets() -> None:
    draw = random.Random(1)
    words = ["ab", "abc", "abd", "b", "é", "éa", "漢", "a=b"]
    texts = [" ".join(dict.fromkeys(draw.choices(words, k=draw.randint(1, 5)))) for _ in range(200)]
    builder = Builder()
    for part in (texts[:1], texts[1:90], texts[90:]):
        builder.add(pa.array(part))
    terms = builder.done()
    sets = [set(text.split()) for text in texts]
    for word in [*words, "a", "zz", ""]:
        assert terms.of(word).tolist() == [n for n, has in enumerate(sets) if word in has]
        assert set(terms.begun(word)) == {n for n, has in enumerate(sets) if any(w.startswith(word) for w in has)}
    for first in words:
        for second in words:
            both = terms.having([([first], False), ([second], True)])
            assert both.tolist() == [first in has and any(w.startswith(second) for w in has) for has in sets]
    assert Builder().done().having([(["a"], False)]).tolist() == []


def test_a_snapshot_is_of_one_state(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECURITYNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(snapshot, "FEWEST", 1)
    ids = _odd(catalog)
    assert snapshot.load(catalog.database) is None
    read = reading.read(catalog.database)
    read.orders["name"] = columns.order(catalog.database, read, "name")
    snapshot.save(catalog.database, read)
    kept = snapshot.load(catalog.database)
    assert kept is not None and kept.change == read.change and kept.measured == read.measured
    assert (kept.numbers == read.numbers).all() and kept.numeric.keys() == read.numeric.keys()
    for name, values in read.numeric.items():
        assert np.array_equal(kept.numeric[name], values, equal_nan=True)
    for name, facet in read.facets.items():
        assert kept.facets[name].values == facet.values and (kept.facets[name].codes == facet.codes).all()
    assert all((a == b).all() for a, b in zip(kept.orders["name"], read.orders["name"], strict=True))
    asked = [(["odd1"], True)]
    assert (kept.terms.having(asked) == read.terms.having(asked)).all() and kept.terms.having(asked).sum() == 2
    catalog.edit(ids[0], {"dataset": "MNIST"})
    assert snapshot.load(catalog.database) is None
    assert Search(catalog).find(State(filters={"dataset": ("MNIST",)})).total == 1
    [folder] = (tmp_path / "cache" / "web").iterdir()  # the older one is gone
    assert snapshot.load(catalog.database) is not None
    whole = (folder / "numbers.npy").read_bytes()
    (folder / "numbers.npy").unlink()  # not cut short in place: it is mapped
    (folder / "numbers.npy").write_bytes(whole[:-8])
    assert snapshot.load(catalog.database) is None and Search(catalog).find(State()).total == len(ODD)


def test_what_cannot_be_read_is_told(sqlite_catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite_catalog.add({"name": "net"})
    with monkeypatch.context() as broken:
        broken.setattr(reading, "read", lambda database: 1 / 0)
        search = Search(sqlite_catalog)
        with pytest.raises(Exception, match="could not be read"):
            search.find(State())
    monkeypatch.setattr("securitynet.web.search._LOOK_AGAIN", 0.0)
    search.refresh()
    assert search.find(State()).total == 1
