"""Queries of the database that read one page at a time; `securitynet.catalog.filters` has the filter language."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from securitynet.catalog.codebook import CodeInfo, find_code_or_measured, load_codebook
from securitynet.catalog.database import Database
from securitynet.catalog.filters import Filter, Range, parse_filter
from securitynet.catalog.store import Row, read_entry
from securitynet.catalog.tables import entries, measurements
from securitynet.catalog.text import parse_words
from securitynet.errors import ConfigurationError, UnknownName

if TYPE_CHECKING:
    import pandas

    from securitynet.catalog.schema import CatalogEntry

PAGE = 50
_SORTED = "_sorted"
"""Column of a page's rows with the value that they are sorted by."""

# Fewer matches than this are looked up and sorted; more are found by walking the sorted index.
_SMALL_MATCH = 2000


@dataclass
class Condition:
    """A filter on one code, made ready: search terms that must (not) occur, and conditions on the column.

    Attributes:
        terms: Groups of terms; of each group, one must be there.
        where: Conditions on columns.
    """

    terms: list[list[str]] = field(default_factory=list)
    where: list[sa.ColumnElement[bool]] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """A part of a query's answer.

    Attributes:
        entries: The entries, in order.
        duplicates: Entry id -> id of the entry that stands for it, where one does.
        after: What to pass as ``after`` for the next page; None if this is the last.
    """

    entries: list[CatalogEntry]
    duplicates: dict[str, str]
    after: str | None


class Query:
    """Entries that match a text and filters, in an order. Nothing is read until it is asked for.

    Args:
        database: Where.
        text: Words that must all occur; a word that ends in ``*`` is a beginning.
        filters: Code or measured name -> filter text (`securitynet.catalog.filters`), or a value or list of values.
        sort: Code or measured name to sort by, with ``-`` before it for descending; entries without it come last.
        duplicates: Whether to include entries for which another one stands.
        withdrawn: Whether to include entries that were withdrawn.
    """

    def __init__(
        self,
        database: Database,
        text: str = "",
        filters: Mapping[str, Any] | None = None,
        *,
        sort: str | None = None,
        duplicates: bool = False,
        withdrawn: bool = False,
    ) -> None:
        self._database = database
        self.duplicates = duplicates
        self._condition = Condition()
        for name, value in (filters or {}).items():
            if value is not None and value != "":
                _add(self._condition, parse_filter(find_code_or_measured(name), value), self._column(name))
        if not duplicates:
            self._condition.where.append(entries.c.duplicate_of.is_(None))
        if not withdrawn:
            self._condition.where.append(entries.c.withdrawn.is_(False))
        self._words = parse_words(text)
        self._descending = bool(sort) and str(sort).startswith("-")
        self._sort = find_code_or_measured(str(sort).lstrip("-")) if sort else None
        if self._sort is not None and not self._sort.ordered:
            known = ", ".join(info.name for info in load_codebook().values() if info.ordered)
            raise ConfigurationError(
                f"Entries cannot be sorted by {self._sort.name}.", hint=f"Sort by one of: {known}."
            )

    def _column(self, name: str) -> sa.ColumnElement[Any]:
        """What holds the values of a code, or of a measured name.

        Raises:
            UnknownName: If nothing of this name was measured.
        """
        info = find_code_or_measured(name)
        if info.name in entries.c:
            return entries.c[info.name]
        with self._database.read() as connection:
            named = sa.select(measurements.c.name).where(measurements.c.ended.is_(None)).distinct()
            if connection.execute(named.where(measurements.c.name == name).limit(1)).first() is None:
                raise UnknownName("measured value", name, sorted(connection.execute(named).scalars()))
        return _measured(name)

    def page(self, limit: int = PAGE, after: str | None = None) -> Page:
        """One page; only its rows are read.

        Args:
            limit: Most entries to give.
            after: From the page before.
        """
        with self._database.read() as connection:
            rows = self._rows(connection, limit + 1, _decode(after, self._sort))
        more = len(rows) > limit
        rows = rows[:limit]
        return Page(
            entries=[read_entry(row) for row in rows],
            duplicates={row["id"]: row["duplicate_of"] for row in rows if row["duplicate_of"]},
            after=self._encode(rows[-1]) if more and rows else None,
        )

    def __iter__(self) -> Iterator[CatalogEntry]:
        """All entries, read page by page."""
        after: str | None = None
        while True:
            page = self.page(1000, after)
            yield from page.entries
            after = page.after
            if after is None:
                return

    def count(self) -> int:
        """How many entries match; all of them are looked at."""
        with self._database.read() as connection:
            statement = sa.select(sa.func.count()).select_from(entries).where(*self._where(connection))
            return int(connection.execute(statement).scalar_one())

    def to_frame(self) -> pandas.DataFrame:
        """One row an entry, one column a code; see `Catalog.to_frame` for measurements."""
        import pandas

        return pandas.DataFrame(
            [entry.model_dump() | {"id": entry.id} for entry in self], columns=["id", *load_codebook()]
        )

    def numbers(self) -> sa.Select[Any]:
        """A selection of the matching rows' numbers, to build upon."""
        with self._database.read() as connection:
            if self._database.sqlite and self._has_terms and not self._condition.where:
                # The index alone answers: none of the rows it finds need be looked up.
                beginnings = bool(self._words) and self._taken_as_beginnings(connection)
                exact, begun = self._groups(beginnings=beginnings)
                if exact or begun:
                    return sa.select(self._in_index(exact, begun).subquery().c.rowid.label("number"))
            return sa.select(entries.c.number).where(*self._where(connection))

    def _rows(self, connection: Connection, limit: int, after: tuple[Any, int] | None) -> list[Row]:
        matching = self._matching(connection)
        number = entries.c.number
        if self._sort is None:
            past = matching.where(number > after[1]) if after else matching
            return list(connection.execute(past.order_by(number).limit(limit)).mappings())
        column = self._column(self._sort.name)
        matching = matching.add_columns(column.label(_SORTED))
        rows: list[Row] = []
        if after is None or after[0] is not None:
            known = matching.where(column.is_not(None))
            if after:
                here = sa.tuple_(column, number)
                mark = sa.tuple_(sa.literal(after[0], column.type), sa.literal(after[1], number.type))
                known = known.where(here < mark if self._descending else here > mark)
            # Both columns in one direction: so the index (column, number) gives the order, and a page needs no sorting.
            order = [column.desc(), number.desc()] if self._descending else [column.asc(), number.asc()]
            rows += connection.execute(known.order_by(*order).limit(limit)).mappings()
        if len(rows) < limit:
            # Those without a value come last, in the order of their numbers.
            last = after[1] if after and after[0] is None else -1
            rest = matching.where(column.is_(None), number > last)
            rows += connection.execute(rest.order_by(number).limit(limit - len(rows))).mappings()
        return rows

    def _matching(self, connection: Connection) -> sa.Select[Any]:
        """The selection of matching entries, put so that the database takes the quick way.

        Few matches are best looked up and sorted; with many it is quicker to walk the sorted index and keep what
        matches, for the first page is soon full. Neither database knows beforehand how many there will be.
        """
        statement = sa.select(entries)
        if not self._has_terms:
            return statement.where(*self._where(connection))
        where = [self._match(beginnings=False), *self._condition.where]
        hits = self._first_hits(connection, where)
        if not hits and self._words and self._taken_as_beginnings(connection):
            where = [self._match(beginnings=True), *self._condition.where]
            hits = self._first_hits(connection, where)
        if len(hits) < _SMALL_MATCH:
            matches: sa.BindParameter[Any] = sa.bindparam("hits", hits, expanding=True, literal_execute=True)
            return statement.where(entries.c.number.in_(matches))
        if self._database.sqlite and self._sort is not None and self._sort.name in entries.c:
            statement = statement.with_hint(entries, f"INDEXED BY ix_entries_{self._sort.name}", "sqlite")
        return statement.where(*where)

    def _first_hits(self, connection: Connection, where: list[sa.ColumnElement[bool]]) -> list[int]:
        """Numbers of the first matches, in no order; all of them, if they are fewer than `_SMALL_MATCH`."""
        hits = _apart(sa.select(entries.c.number).where(*where))
        return list(connection.execute(sa.select(hits.c.number).limit(_SMALL_MATCH)).scalars())

    def _where(self, connection: Connection) -> list[sa.ColumnElement[bool]]:
        if not self._has_terms:
            return self._condition.where
        beginnings = bool(self._words) and self._taken_as_beginnings(connection)
        return [self._match(beginnings=beginnings), *self._condition.where]

    @property
    def _has_terms(self) -> bool:
        return bool(self._words or self._condition.terms)

    def _taken_as_beginnings(self, connection: Connection) -> bool:
        """Whether nothing has these words as they stand: then they are beginnings (`resn` for `resnet`)."""
        if any(prefix for _, prefix in self._words):
            return False
        words_ = [[term] for parts, _ in self._words for term in parts]
        if not words_:
            return False
        matches = _apart(sa.select(entries.c.number).where(self._terms(words_, [])))
        return connection.execute(sa.select(matches.c.number).limit(1)).first() is None

    def _match(self, *, beginnings: bool) -> sa.ColumnElement[bool]:
        """The condition on search terms; with ``beginnings``, words may go on."""
        exact, begun = self._groups(beginnings=beginnings)
        return self._terms(exact, begun) if exact or begun else sa.true()

    def _groups(self, *, beginnings: bool) -> tuple[list[list[str]], list[str]]:
        """Groups of terms, of each of which one must be there, and beginnings of terms that must."""
        exact, begun = list(self._condition.terms), []
        for parts, prefix in self._words:
            whole = [] if beginnings else parts[:-1] if prefix else parts
            exact += [[term] for term in whole]
            begun += parts if beginnings else parts[-1:] if prefix else []
        return exact, begun

    def _terms(self, groups: list[list[str]], beginnings: list[str]) -> sa.ColumnElement[bool]:
        if self._database.sqlite:
            return entries.c.number.in_(self._in_index(groups, beginnings))
        parts = ["(" + " | ".join(f"'{term}'" for term in group) + ")" for group in groups]
        parts += [f"'{term}':*" for term in beginnings]
        vector = sa.func.array_to_tsvector(sa.func.string_to_array(entries.c.search_text, sa.literal_column("' '")))
        return vector.op("@@")(sa.cast(" & ".join(parts), sa.dialects.postgresql.TSQUERY))

    @staticmethod
    def _in_index(groups: list[list[str]], beginnings: list[str]) -> sa.TextualSelect:
        """SQLite's search index, asked for row numbers."""
        parts = ["(" + " OR ".join(f'"{term}"' for term in group) + ")" for group in groups]
        parts += [f'"{term}" *' for term in beginnings]
        match = sa.text("SELECT rowid FROM entry_text WHERE entry_text MATCH :match")
        return match.bindparams(match=" AND ".join(parts)).columns(sa.column("rowid", sa.Integer))

    def _encode(self, row: Row) -> str:
        value = row[_SORTED] if self._sort is not None else None
        return base64.urlsafe_b64encode(json.dumps([value, row["number"]]).encode()).decode()


def _apart(statement: sa.Select[Any]) -> sa.CTE:
    """A part that PostgreSQL plans on its own: else a LIMIT makes it hope for early matches, and read all rows."""
    return statement.cte("hits").prefix_with("MATERIALIZED", dialect="postgresql")


def _decode(after: str | None, info: CodeInfo | None) -> tuple[Any, int] | None:
    """Value of the code that is sorted by, and number, of the last entry of the page before."""
    if after is None:
        return None
    try:
        value, number = json.loads(base64.urlsafe_b64decode(after.encode()))
        if info is not None and value is not None:
            value = info.check(value)
        if (info is None and value is not None) or not 0 <= number < 2**63:
            raise ValueError
        return value, int(number)
    except (ValueError, TypeError, binascii.Error, ConfigurationError):
        raise ConfigurationError(
            f"{after!r} is no mark of a page.", hint="Give what the page before printed, with the same --sort."
        ) from None


def _measured(name: str) -> sa.ColumnElement[Any]:
    """The value of a measured name for each entry: the latest, ours before published ones, as in data frames.

    A measured value of a duplicate counts for the entry that stands for it.
    """
    stands = entries.alias()
    order = (measurements.c.measured_by == "trial").desc(), measurements.c.number.desc()
    ranked = (
        sa.select(
            sa.func.coalesce(stands.c.duplicate_of, stands.c.id).label("id"),
            measurements.c.value,
            sa.func.row_number()
            .over(partition_by=sa.func.coalesce(stands.c.duplicate_of, stands.c.id), order_by=order)
            .label("place"),
        )
        .join(stands, stands.c.number == measurements.c.entry)
        .where(measurements.c.name == name, measurements.c.ended.is_(None))
        .cte()
    )
    value = sa.select(ranked.c.value).where(ranked.c.id == entries.c.id, ranked.c.place == 1)
    return value.scalar_subquery()


def _add(condition: Condition, wanted: Filter, column: sa.ColumnElement[Any]) -> None:
    """Add a filter on one code or measured name."""
    info = wanted.info
    if wanted.known is not None:
        condition.where.append(column.is_not(None) if wanted.known else column.is_(None))
    elif info.numeric:
        inside = sa.or_(*(_inside(column, part) for part in wanted.ranges))
        condition.where.append(column.is_(None) | ~inside if wanted.negated else inside)
    elif info.categorical and not wanted.negated:
        condition.terms.append(list(wanted.terms))
    elif info.several:
        # The list is kept as JSON; its items stand there in quotation marks.
        listed = sa.cast(column, sa.Text)
        items = (json.dumps(item, ensure_ascii=False) for item in wanted.values)
        condition.where.append(column.is_(None) | sa.and_(*(~listed.contains(item, autoescape=True) for item in items)))
    elif info.kind == "text":
        inside = sa.func.lower(column).in_([value.lower() for value in wanted.values])
        condition.where.append(column.is_(None) | ~inside if wanted.negated else inside)
    else:
        values = list(wanted.values)
        condition.where.append(column.is_(None) | column.not_in(values) if wanted.negated else column.in_(values))


def _inside(column: sa.ColumnElement[Any], part: Range) -> sa.ColumnElement[bool]:
    if part.low is not None and part.low == part.high:
        return column == part.low
    ends: list[sa.ColumnElement[bool]] = [column.is_not(None)]
    if part.low is not None:
        ends.append(column > part.low if part.above else column >= part.low)
    if part.high is not None:
        ends.append(column < part.high if part.below else column <= part.high)
    return sa.and_(*ends)
