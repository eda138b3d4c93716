"""Which weights an entry means: digests, references that name a network only, and the file of weights."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from securitynet.catalog import links, store
from securitynet.catalog.catalog import Catalog
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.store import Item
from securitynet.catalog.tables import entries
from securitynet.catalog.weights import compare_checksums, locate_entry_weights, names_weights


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("sha256:f37072fd", "sha256:f37072fd8e1b0c5d", True),
        ("sha256:F37072FD8e1b0c5d", "sha256:f37072fd", True),
        ("sha256:f37072fd", "sha256:f37072fe8e1b0c5d", False),
        ("a" * 64, f"sha256:{'a' * 64}", True),
        ("sha256:f37072fd", "tensors:f37072fd", None),
        ("sha256:f370", "sha256:f37072fd8e1b0c5d", None),
        ("sha256:f37072fd", None, None),
        (None, None, None),
        ("crc32:1", "crc32:1", True),
    ],
)
def test_digests_are_compared_as_far_as_both_are_known(one: str | None, other: str | None, same: bool | None) -> None:
    assert compare_checksums(one, other) is same
    assert compare_checksums(other, one) is same


def _entry(number: int, **codes: object) -> CatalogEntry:
    return CatalogEntry(**{"key": f"repo:net{number:02}", "source": "repo", "name": f"net{number:02}", **codes})


def _put(catalog: Catalog, *given: CatalogEntry) -> int:
    with catalog.database.write() as connection:
        change = store.begin_change(connection, "collect", "test")
        tally = store.upsert_entries(connection, change, "test", map(Item, given))
        linked = links.link_duplicates(connection, change, tally.touched)
        store.end_change(connection, change, tally)
    return linked


@pytest.mark.parametrize("reference", ["arch:simple-cnn", "python:net.py:Net"])
def test_a_network_in_43_versions_is_43_entries(sqlite_catalog: Catalog, reference: str) -> None:
    given = [_entry(n, reference=reference, classes=10, checksum=f"sha256:{n:064x}") for n in range(43)]
    assert _put(sqlite_catalog, *given) == 0
    assert sqlite_catalog.query().count() == 43


def test_a_reference_that_names_weights_is_evidence_unless_a_digest_differs(sqlite_catalog: Catalog) -> None:
    same = {"reference": "timm:resnet18.a1_in1k", "classes": 1000}
    given = [
        _entry(0, **same, checksum="sha256:aaaaaaaa11112222"),
        _entry(1, **same),
        _entry(2, **same, checksum="sha256:bbbbbbbb11112222"),
        _entry(3, **same, checksum="sha256:aaaaaaaa"),
    ]
    for order in (given, given[::-1]):
        with Catalog("sqlite://") as catalog:
            _put(catalog, *order)
            stands = {entry.key: catalog.details(entry.key).duplicate_of for entry in given}
            assert stands["repo:net02"] is None, "its digest differs"
            assert sum(value is None for value in stands.values()) == 2
            assert stands["repo:net03"] == given[0].id


def test_the_link_of_two_others_does_not_join_different_digests(sqlite_catalog: Catalog) -> None:
    """One without a digest shares a reference with one network and a file with another: it joins only one of them."""
    file = "https://example.org/net.pth"
    _put(
        sqlite_catalog,
        _entry(0, reference="hf:a/net", checksum="sha256:aaaaaaaa"),
        _entry(1, reference="hf:a/net", weights_link=file),
        _entry(2, weights_link=file, checksum="sha256:bbbbbbbb"),
    )
    stands = [sqlite_catalog.details(f"repo:net{n:02}").duplicate_of for n in range(3)]
    assert stands.count(None) == 2 and stands[2] is None


def test_the_same_path_in_two_repositories_is_no_evidence(sqlite_catalog: Catalog) -> None:
    assert _put(sqlite_catalog, *(_entry(n, reference="arch:simple-cnn", weights_file="net.pth") for n in (0, 1))) == 0
    url = "https://example.org/net.pth"
    assert _put(sqlite_catalog, *(_entry(n, reference="arch:simple-cnn", weights_file=url) for n in (2, 3))) == 1


def test_a_catalog_of_an_earlier_version_loses_its_wrong_links(tmp_path: object) -> None:
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    with Catalog(url) as catalog:
        _put(catalog, _entry(0, reference="arch:simple-cnn"), _entry(1, reference="arch:simple-cnn"))
        _put(catalog, _entry(2, reference="hf:a/b"), _entry(3, reference="hf:a/b"))
        with catalog.database.write() as connection:
            wrong = {"duplicate_of": catalog.get("repo:net00").id, "duplicate_rule": "reference"}
            connection.execute(sa.update(entries).where(entries.c.key == "repo:net01").values(wrong))
            connection.execute(sa.text("DROP INDEX ix_entries_weights_file"))
            connection.execute(sa.text("ALTER TABLE entries DROP COLUMN weights_file"))
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    with Catalog(url) as catalog:
        assert catalog.details("repo:net01").duplicate_of is None
        assert catalog.details("repo:net03").duplicate_of == catalog.get("repo:net02").id
        assert catalog.edit("repo:net01", {"weights_file": "net.pth"}).weights_file == "net.pth"


def test_where_the_weights_are() -> None:
    assert names_weights("timm:resnet18") and not names_weights("arch:simple-cnn") and not names_weights(None)
    code = {"code_link": "https://github.com/someone/nets", "reference": "arch:simple-cnn"}
    raw = "https://raw.githubusercontent.com/someone/nets"
    assert locate_entry_weights(_entry(0, **code)) is None
    assert locate_entry_weights(_entry(0, weights_link="https://example.org/a.pth")) == "https://example.org/a.pth"
    assert locate_entry_weights(_entry(0, weights_link="https://example.org/page")) is None
    assert locate_entry_weights(_entry(0, **code, weights_file="w/a b.pth", revision="abc")) == f"{raw}/abc/w/a%20b.pth"
    assert locate_entry_weights(_entry(0, **code, weights_file="a.pth")) == f"{raw}/HEAD/a.pth"
    assert locate_entry_weights(_entry(0, **code, weights_file="/data/a.pth")) == "/data/a.pth"
