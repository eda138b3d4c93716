"""How to load a model: the code that its page shows."""

from __future__ import annotations

import shlex

from securitynet.catalog.database import Database
from securitynet.catalog.known import find_dataset_facts
from securitynet.catalog.location import find_default_url
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.weights import locate_entry_weights, names_weights

DATASET = "folder:PATH"
"""What stands for a dataset that cannot be loaded by name."""

WEIGHTS = "FILE"
"""What stands for a file of weights that the entry does not state, or does not identify by a checksum."""


def describe_loading(entry: CatalogEntry, db: str | None = None) -> tuple[str, str] | None:
    """Write how to load a model in Python and on the command line; None if the entry does not say.

    Args:
        entry: The model.
        db: The database that holds it; None for the user's own.
    """
    if entry.reference is None or entry.head not in ("classifier", None):
        return None
    given = {} if db is None else {"db": db}
    if not names_weights(entry.reference) and (locate_entry_weights(entry) is None or entry.checksum is None):
        given["weights"] = WEIGHTS
    arguments = "".join(f", {name}={value!r}" for name, value in given.items())
    python = f'import securitynet\n\ntarget = securitynet.load_target("catalog:{entry.id}"{arguments})\n'
    facts = find_dataset_facts(entry.dataset) if entry.dataset else None
    dataset = facts.reference if facts and facts.reference else DATASET
    options = [word for name, value in given.items() for word in (f"--{name}", value)]
    command = ["securitynet", "assess", f"catalog:{entry.id}", *options, "--dataset", dataset, "--out", "report"]
    return python, shlex.join(command)


def name_database(database: Database) -> str | None:
    """What ``--db`` must say for this database, without a password; None if it is the user's own."""
    url = database.engine.url
    shown = url.render_as_string(hide_password=True)
    return None if shown == find_default_url() else shown
