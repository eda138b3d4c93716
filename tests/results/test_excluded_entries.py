"""Entries that a study left out."""

from __future__ import annotations

import pytest

from securitynet.results.excluded_entries import FILE, ExcludedEntry, read_excluded, write_excluded
from securitynet.results.root import open_root

ENTRY = ExcludedEntry(catalog="c", label="net", reason="it has no weights")


def test_what_was_left_out_is_read_again(tmp_path, caplog):
    root = open_root(tmp_path)
    assert read_excluded(root) == []
    write_excluded(root, [ENTRY])
    assert read_excluded(root) == [ENTRY] and not caplog.text


@pytest.mark.parametrize("text", ["[", "5", "[5]", '[{"label": 1}]'])
def test_a_list_that_cannot_be_read_is_told(text, tmp_path, caplog):
    (tmp_path / FILE).write_text(text)
    assert read_excluded(open_root(tmp_path)) == [] and FILE in caplog.text
