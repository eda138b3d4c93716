"""The full-text index of the catalog in SQLite, which triggers keep up to date."""

from __future__ import annotations

# The search terms are made by `securitynet.catalog.text`: words of letters and digits, and `code=value` terms.
SQLITE_SEARCH = (
    """CREATE VIRTUAL TABLE entry_text USING fts5(
        search_text, content='entries', content_rowid='number', detail=none, tokenize="unicode61 tokenchars '='"
    )""",
    """CREATE TRIGGER entries_inserted AFTER INSERT ON entries BEGIN
        INSERT INTO entry_text(rowid, search_text) VALUES (new.number, new.search_text);
    END""",
    """CREATE TRIGGER entries_updated AFTER UPDATE OF search_text ON entries BEGIN
        INSERT INTO entry_text(entry_text, rowid, search_text) VALUES ('delete', old.number, old.search_text);
        INSERT INTO entry_text(rowid, search_text) VALUES (new.number, new.search_text);
    END""",
)
