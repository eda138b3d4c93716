"""Names of datasets: one vocabulary with the catalog, and suggestions for a reference that names none."""

from __future__ import annotations

from pathlib import Path

from securitynet.catalog.known import find_dataset_facts
from securitynet.datasets.known_files import recognize_file, recognize_files
from securitynet.datasets.registry import DATASETS
from securitynet.errors import ConfigurationError, DatasetError
from securitynet.files import expand_home, make_printable

FOLDER_SCHEMES = ("folder", "parquet")
"""Schemes of references that name a folder."""

_REMOTE = ("hf:", "huggingface:", "kaggle:", "tfds:", "s3:", "gs:")
_TABLES = (".csv", ".npz", ".tsv")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


def name_for_loading(text: str) -> str:
    """The name by which a dataset is loaded, if ``text`` is how the catalog writes it (``CIFAR-10``); else ``text``."""
    if text in DATASETS or ":" in text:
        return text
    facts = find_dataset_facts(text)
    return facts.reference if facts and facts.reference else text


def strip_location(reference: str) -> str:
    """A reference without the folders of this machine: of a path, its last part.

    Args:
        reference: A reference to a dataset.
    """
    scheme, _, path = reference.partition(":")
    return f"{scheme}:{Path(path).name}" if scheme in FOLDER_SCHEMES else reference


def suggest_reference(text: str) -> None:
    """Raise an error that shows the correct form if ``text`` is the path of a dataset; else do nothing.

    Raises:
        DatasetError: If it is the path of a folder or a file, or looks like a path that does not exist; or if the
            catalog knows a dataset of this name, which cannot be loaded by it.
        ConfigurationError: If it starts with ``~`` and a user that does not exist.
    """
    path = expand_home(text)
    shown = make_printable(text)
    if text.startswith(_REMOTE) or "://" in text:
        raise DatasetError(
            f"{shown} is an address; datasets are not fetched from any.",
            hint="Download it, and write folder:PATH or parquet:PATH; a Hugging Face dataset can also be given in "
            "Python: securitynet.assess(model, datasets.load_dataset(NAME)).",
        )
    if path.is_dir():
        raise DatasetError(f"{shown} is a folder, not the name of a dataset.", hint=_about_folder(path, shown))
    if path.is_file():
        raise DatasetError(f"{shown} is a file, not the name of a dataset.", hint=describe_file(path))
    if shown.startswith(("~", ".", "/")) or "/" in shown:
        raise DatasetError(
            f"There is no folder {shown}, and no dataset of this name.",
            hint="Write folder:PATH for a folder of images, or a name from `securitynet list datasets`.",
        )
    facts = find_dataset_facts(text)
    if facts is not None:
        raise DatasetError(
            f"{facts.name} is known to the catalog, but cannot be loaded by name.",
            hint="Download it, and write folder:PATH or parquet:PATH.",
        )


def suggest_other_scheme(root: Path, scheme: str) -> str | None:
    """A hint for a folder in which a scheme finds nothing: the one that suits it, or what its files are."""
    try:
        likely = _scheme(root) if root.is_dir() else scheme
    except (OSError, ConfigurationError):
        return None
    if likely == "parquet" and scheme != likely:
        return f"Write parquet:{make_printable(str(root))}."
    known = recognize_files(root) if root.is_dir() else None
    if known is not None or likely == scheme:
        return known
    return f"Write {likely}:{make_printable(str(root))}."


def _about_folder(path: Path, shown: str) -> str:
    scheme = _scheme(path)
    known = None if scheme == "parquet" or _may_hold_images(path) else recognize_files(path)
    return known or f"Write {scheme}:{shown}."


def _may_hold_images(path: Path) -> bool:
    """Whether the parts of a folder are named as usual, so that it is not looked at any further."""
    return any((path / name).is_dir() for name in ("train", "Train", "training"))


def _scheme(folder: Path) -> str:
    return "parquet" if any(any(place.glob("*.parquet")) for place in (folder, folder / "data")) else "folder"


def describe_file(path: Path) -> str:
    """What to write instead of a file that is given as a dataset."""
    suffix = path.suffix.lower()
    known = recognize_file(path)
    if known is not None:
        return known
    if suffix == ".parquet":
        return (
            f"Write parquet:{make_printable(str(path.parent))}: the folder that holds train.parquet and test.parquet."
        )
    if suffix in _TABLES:
        return f"Recorded outputs are given in place of the model: outputs:{make_printable(str(path))}."
    if suffix in _ARCHIVES:
        return "Unpack it, and write folder:PATH of the folder that comes out."
    return "Write folder:PATH for a folder of images."
