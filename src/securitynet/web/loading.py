"""How to load a model: the code that its page shows."""

from __future__ import annotations

from securitynet.catalog.schema import CatalogEntry


def describe_loading(entry: CatalogEntry, dataset: str | None) -> tuple[str, str] | None:
    """Write how to load a model in Python and on the command line; None if the entry does not say.

    Args:
        entry: The model.
        dataset: Name of the dataset to assess it on, if known.
    """
    if entry.reference is None or entry.head not in ("classifier", None):
        return None
    python = f'import securitynet\n\ntarget = securitynet.load_target("catalog:{entry.id}")\n'
    return python, f"securitynet assess catalog:{entry.id} --dataset {dataset or 'DATASET'} --out report"
