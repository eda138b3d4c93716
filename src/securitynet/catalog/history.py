"""Reading what was: the changes of an entry, and its state at an earlier time."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from securitynet.catalog.details import Details
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.tables import changes, revisions
from securitynet.errors import ConfigurationError

_REVISIONS = (
    sa.select(revisions.c.version, revisions.c.change, revisions.c.state)
    .where(revisions.c.subject == "entry", revisions.c.id == sa.bindparam("id"))
    .order_by(revisions.c.version)
)
_CHANGES = sa.select(changes).where(changes.c.number.in_(sa.bindparam("numbers", expanding=True)))


@dataclass(frozen=True)
class EntryState:
    """An entry as it was from one change to the next.

    Attributes:
        version: 1 for the first state.
        time: When the change was made, UTC, ISO 8601.
        kind: What kind of change it was (``import``, ``collect``, ``edit``, ...).
        source: Where it came from.
        actor: Who made it.
        note: Why, if somebody said.
        entry: The entry.
        sources: Code -> where its value comes from.
        withdrawn: Whether the entry was out of searches.
        duplicate_of: Id of the entry that stood for it, if any.
        differences: Code -> (before, after), against the state before.
    """

    version: int
    time: str
    kind: str
    source: str
    actor: str
    note: str | None
    entry: CatalogEntry
    sources: dict[str, str]
    withdrawn: bool
    duplicate_of: str | None
    differences: dict[str, tuple[Any, Any]]


def read_history(connection: Connection, details: Details) -> list[EntryState]:
    """All states of an entry, the first one first."""
    earlier = connection.execute(_REVISIONS, {"id": details.entry.id}) if details.version > 1 else ()
    states = [{"version": version, "change": change, **state} for version, change, state in earlier]
    present = {name: getattr(details, name) for name in ("version", "change", "sources", "withdrawn", "duplicate_of")}
    states.append({**present, "entry": details.entry.known()})
    numbers = sorted({state["change"] for state in states})
    made = {row["number"]: row for row in connection.execute(_CHANGES, {"numbers": numbers}).mappings()}
    entry_states: list[EntryState] = []
    before: dict[str, Any] = {}
    for state in states:
        change = made[state["change"]]
        flat = _flat(state)
        entry_states.append(
            EntryState(
                version=state["version"],
                **{name: change[name] for name in ("time", "kind", "source", "actor", "note")},
                entry=CatalogEntry(**state["entry"]),
                sources=state["sources"],
                withdrawn=bool(state["withdrawn"]),
                duplicate_of=state["duplicate_of"],
                differences={
                    name: (before.get(name), flat.get(name))
                    for name in {**before, **flat}
                    if before.get(name) != flat.get(name)
                },
            )
        )
        before = flat
    return entry_states


def state_at(states: list[EntryState], when: str) -> EntryState | None:
    """The state at a time (ISO 8601; a date means its end, no zone means UTC), or None if it was not there yet.

    Raises:
        ConfigurationError: If the time cannot be read.
    """
    try:
        moment = datetime.datetime.fromisoformat(when.replace("Z", "+00:00"))
    except ValueError:
        raise ConfigurationError(f"{when!r} is no time.", hint="Write 2026-03-31 or 2026-03-31T12:00.") from None
    if len(when) <= len("2026-03-31"):
        moment = moment.replace(hour=23, minute=59, second=59, microsecond=999_999)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    past = [state for state in states if datetime.datetime.fromisoformat(state.time) <= moment]
    return past[-1] if past else None


def _flat(state: Mapping[str, Any]) -> dict[str, Any]:
    system = {"withdrawn": state["withdrawn"] or None, "duplicate_of": state["duplicate_of"]}
    return {**state["entry"], **{name: value for name, value in system.items() if value is not None}}
