"""HDF5 files may refer to other files: through links, external storage and virtual datasets. Such files are refused."""

from __future__ import annotations

from typing import Any

from securitynet.errors import UnsafeFile


def check_self_contained(file: Any, reference: str) -> None:
    """Refuse an HDF5 file of which a part lies in another file: opening it would read whatever the path names.

    Soft links, which name another place in the same file, are in order.

    Args:
        file: An open ``h5py.File``.
        reference: Of the model, for messages.

    Raises:
        UnsafeFile: If it refers to another file.
    """
    import h5py

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group):
            for key in item:
                _check_link(item, key, reference)
        elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            kind = "external storage" if item.external else "a virtual dataset"
            raise _refused(reference, f"the array {name} is {kind}")

    visit("/", file)
    file.visititems(visit)


def _check_link(group: Any, key: str, reference: str) -> None:
    import h5py

    try:
        link = group.get(key, getlink=True)
    except TypeError as error:
        raise _refused(reference, f"{key} is a link of an unknown kind") from error
    if isinstance(link, h5py.ExternalLink):
        raise _refused(reference, f"{key} is a link to {link.filename}")


def _refused(reference: str, what: str) -> UnsafeFile:
    return UnsafeFile(
        f"{reference} refers to another file: {what}. Other files are not read.",
        hint="Save the whole model into one file where it was made.",
    )
