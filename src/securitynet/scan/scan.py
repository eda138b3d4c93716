"""`scan`: walk folders, read what holds weights, and propose entries."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from securitynet.catalog.known import find_dataset_facts
from securitynet.errors import ConfigurationError, SecurityNetError
from securitynet.files import expand_home, file_checksum, make_printable
from securitynet.models.sources.preprocessing import Normalization
from securitynet.models.sources.tensor_names import separate_normalizer
from securitynet.models.sources.weight_digests import digest_tensors
from securitynet.models.sources.weights import StateDict, read_weights
from securitynet.scan.candidates import Candidate, Evidence
from securitynet.scan.class_names import find_dataset_of
from securitynet.scan.constants import choose
from securitynet.scan.dataset_names import list_named_datasets
from securitynet.scan.read_code import MAX_FILES, TrainingCode, read_code_files
from securitynet.scan.read_config import SUFFIXES as CONFIGS
from securitynet.scan.read_config import read_beside, read_config_file
from securitynet.scan.read_history import RepositoryHistory, read_training_history
from securitynet.scan.read_models import READERS, describe_model_file
from securitynet.scan.recognise_network import EXACT, IN_ORDER, describe_network

SUFFIXES = (
    ".pth", ".pt", ".th", ".tar", ".ckpt", ".bin", ".safetensors", ".pkl", ".model", ".t7", ".chkpt", ".checkpoint",
    ".weights",
)  # fmt: skip
"""Suffixes of files that may hold weights for a torch network; what a file is, its content decides."""

_READMES = ("readme.md", "readme.txt", "readme.rst", "readme")
_README_BYTES = 1 << 17
MAX_NAMED = 20
"""Networks of libraries, named by a repository's code, that weights are compared with."""

MAX_SIZE = 1 << 30
_LEAST_BYTES = 512
_SKIPPED = frozenset({".git", ".svn", ".hg", "node_modules", "__pycache__", ".venv", "venv", "site-packages", ".tox"})
_CODE = (".py", ".ipynb", *CONFIGS)
_WRAPPERS = re.compile(r"^((module|_orig_mod|_orig_module)\.)+")
"""What wrappers for several devices and compilers put before the names of tensors."""

STATED, NEAR, IN_NAME, MENTIONED, USUAL = 0.95, 0.7, 0.85, 0.6, 0.5
"""Confidence in a dataset: the code that names the file loads it; other code of the repository does; the path names it;
code mentions it, as in a path or a comment; it is what such a network is usually trained on."""

DOUBTED = 0.45
"""Confidence in a network of which weights have the shapes, while a class of the repository's code has their names."""

_TUTORIAL = "arch:tutorial-cnn"


@dataclass
class ScanReport:
    """What a scan found.

    Attributes:
        candidates: One for each set of weights, the surest first.
        refused: File -> why it was not read: another format, damaged, too large, or code to execute.
        files: How many files of a suffix of weights there were.
    """

    candidates: list[Candidate] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    files: int = 0


@dataclass(frozen=True)
class _Weights:
    """A file of weights, of which names and shapes are kept, and what a layer in it says about normalisation."""

    folder: Path
    path: Path
    shapes: StateDict
    notes: tuple[str, ...]
    stated: Normalization | None


@dataclass
class _Repository:
    """A folder with its own history, or a folder directly below the scanned one."""

    root: Path
    code: list[TrainingCode]
    history: RepositoryHistory
    readme: str

    def find_naming(self, names: set[str]) -> list[TrainingCode]:
        """Files of code in which one of these names of files stands."""
        return [code for code in self.code if any(name in code.text for name in names)]


def scan(
    folders: Iterable[str | Path],
    *,
    max_size: int = MAX_SIZE,
    report_progress: Callable[[str, int, int], object] | None = None,
) -> ScanReport:
    """Find weights in folders and say what is known about each; nothing that is found is run.

    Args:
        folders: Folders of cloned repositories, or one repository.
        max_size: Largest file in bytes that is read.
        report_progress: Called with (what, done, total).

    Raises:
        ConfigurationError: If a folder does not exist.
    """
    report = ScanReport()
    files: list[tuple[Path, Path]] = []
    for given in folders:
        folder = expand_home(given)
        if not folder.is_dir():
            raise ConfigurationError(f"There is no folder {make_printable(str(folder))}.", hint="Name folders to scan.")
        files += [(folder.resolve(), path) for path in _walk(folder.resolve())]
    report.files = len(files)
    repositories: dict[Path, _Repository] = {}
    found: dict[str, list[_Weights]] = {}
    whole: list[tuple[Path, Path, list[Evidence]]] = []
    for number, (folder, path) in enumerate(files):
        shown = make_printable(str(path.relative_to(folder)))
        if report_progress:
            report_progress("reading files", number, len(files))
        try:
            size = path.stat().st_size
            if size > max_size:
                report.refused[shown] = f"it is larger than {max_size >> 20} MiB (--max-size)"
                continue
            if path.suffix.lower() in READERS:
                whole.append((folder, path, describe_model_file(path)))
                continue
            weights = read_weights(path)
        except (SecurityNetError, OSError) as error:
            message = error.message if isinstance(error, SecurityNetError) else str(error)
            report.refused[shown] = message.replace(str(path), path.name)
            continue
        notes = tuple(note.replace(str(path), path.name) for note in weights.notes)
        # Of the tensors only names and shapes are needed from here on: a thousand files must not stay in memory.
        shapes = {name: tensor.to("meta") for name, tensor in weights.tensors.items()}
        stated = separate_normalizer(weights.tensors)[1]
        found.setdefault(digest_tensors(weights.tensors), []).append(_Weights(folder, path, shapes, notes, stated))
    for checksum, places in found.items():
        folder, path, state = places[0].folder, places[0].path, places[0].shapes
        repository = _open_repository(path, folder, repositories)
        naming = repository.find_naming({place.path.name for place in places})
        named = [reference for code in [*naming, *repository.code] for reference in code.libraries]
        evidence = describe_network(state, list(dict.fromkeys(named))[:MAX_NAMED])
        evidence += _describe_context(path, folder, naming, repository, evidence)
        evidence += [*read_beside(path), *_describe_normalizer(places[0].stated)]
        doubted = IN_ORDER if _fits_images(evidence, repository) else EXACT
        evidence = _prefer_names(evidence, list(_describe_class(state, naming, repository)), doubted)
        paths = tuple(make_printable(str(place.path.relative_to(place.folder))) for place in places)
        notes = places[0].notes
        report.candidates.append(
            Candidate(checksum=checksum, paths=paths, location=str(path), evidence=tuple(evidence), notes=notes)
        )
    report.candidates += _list_whole_models(whole, repositories)
    report.candidates.sort(key=lambda candidate: (-candidate.confidence, candidate.paths))
    return report


def _walk(folder: Path) -> Iterator[Path]:
    """Regular files with a suffix of weights, in order; links are not followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(names):
            path = Path(place) / name
            named_so = path.suffix.lower() in (*SUFFIXES, *READERS) and not path.is_symlink()
            if named_so and path.is_file() and path.stat().st_size >= _LEAST_BYTES:
                yield path


def _code_files(root: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        yield from (Path(place) / name for name in sorted(names) if Path(name).suffix in _CODE)


def _find_root(path: Path, folder: Path) -> Path:
    """The repository that a file belongs to: the nearest folder with a history, else the one below the scanned."""
    for parent in path.parents:
        if (parent / ".git").exists():
            return parent
        if parent == folder:
            break
    parts = path.relative_to(folder).parts
    return folder / parts[0] if len(parts) > 1 else folder


def _open_repository(path: Path, folder: Path, repositories: dict[Path, _Repository]) -> _Repository:
    """The repository that a file belongs to, read once."""
    root = _find_root(path, folder)
    if root not in repositories:
        files = list(_code_files(root))
        code = read_code_files([path for path in files if path.suffix not in CONFIGS])
        configs = [path for path in files if path.suffix in CONFIGS][:MAX_FILES]
        code += [item for path in configs if (item := read_config_file(path)) is not None]
        repositories[root] = _Repository(root, code, read_training_history(root), _read_readme(root))
    return repositories[root]


def _read_readme(root: Path) -> str:
    for path in sorted(root.iterdir()):
        if path.name.lower() in _READMES and path.is_file() and not path.is_symlink():
            with path.open("rb") as stream:
                return stream.read(_README_BYTES).decode("utf-8", "replace")
    return ""


def _list_whole_models(
    whole: Iterable[tuple[Path, Path, list[Evidence]]], repositories: dict[Path, _Repository]
) -> Iterator[Candidate]:
    """Candidates of files that hold a whole model; equal files are one."""
    places: dict[str, list[tuple[Path, Path, list[Evidence]]]] = {}
    for folder, path, evidence in whole:
        places.setdefault(f"sha256:{file_checksum(path)}", []).append((folder, path, evidence))
    for checksum, files in places.items():
        folder, path, evidence = files[0]
        repository = _open_repository(path, folder, repositories)
        naming = repository.find_naming({file.name for _, file, _ in files})
        evidence = [*evidence, *_describe_context(path, folder, naming, repository, evidence)]
        paths = tuple(make_printable(str(file.relative_to(base))) for base, file, _ in files)
        yield Candidate(checksum=checksum, paths=paths, location=str(path), evidence=tuple(evidence))


def _describe_context(
    path: Path, folder: Path, naming: list[TrainingCode], repository: _Repository, network: list[Evidence]
) -> Iterator[Evidence]:
    """What code, path, README and history say about weights, beside what their network says."""
    stated = [item for item in network if item.code == "classes"]
    classes = max(stated, key=lambda item: item.confidence).value if stated else None
    data = list(_describe_data(path, folder, naming, repository, classes))
    yield from data
    yield from _describe_normalization(naming, repository, [*network, *data])
    if any(item.value == _TUTORIAL for item in network) and classes == 10:
        reason = "PyTorch's tutorial trains this network on it"
        yield Evidence(code="dataset", value="CIFAR-10", reason=reason, confidence=USUAL)
    history = repository.history
    for code, value in (("license", history.license), ("code_link", history.address), ("revision", history.commit)):
        if value is not None:
            yield Evidence(code=code, value=value, reason="the repository's files", confidence=0.95)
    for code, count in (("year", history.year), ("authors", history.authors)):
        if count is not None:
            yield Evidence(code=code, value=count, reason="the repository's commits", confidence=0.9)


def _describe_data(
    path: Path, folder: Path, naming: list[TrainingCode], repository: _Repository, classes: int | None
) -> Iterator[Evidence]:
    """The dataset, from the code that names the file, other code, class names, README and path."""
    code = repository.code
    for group, confidence, reason in (
        (naming, STATED, "the code that names this file loads it"),
        (code, NEAR, "code of this repository loads it"),
    ):
        yield from _list_fitting((name for item in group for name in item.datasets), reason, confidence, classes)
    for name in _recognise_classes(names for item in code for names in item.class_names):
        yield from _dataset(name, "code of this repository lists its class names", IN_NAME, classes)
    for name in list_named_datasets(str(path.relative_to(folder.parent))):
        yield from _dataset(name, "the path names it", IN_NAME, classes)
    for name in _recognise_classes(_list_enumerations(repository.readme)):
        yield from _dataset(name, "the README lists its class names", NEAR, classes)
    yield from _list_fitting(list_named_datasets(repository.readme), "the README names it", NEAR, classes)
    mentioned = (name for item in code for name in item.mentioned)
    yield from _list_fitting(mentioned, "code of this repository mentions it", MENTIONED, classes)


def _describe_normalization(
    naming: list[TrainingCode], repository: _Repository, evidence: list[Evidence]
) -> Iterator[Evidence]:
    """Constants of the code that names the file, else of other code, as far as they fit the dataset and the network."""
    surest = {item.code: item.value for item in sorted(evidence, key=lambda item: item.confidence)}
    # Where nothing is normalised, a mean and a deviation are of something else, such as accuracies.
    normalises = any("ormalize" in item.text for item in repository.code)
    for group, confidence, reason in (
        (naming, STATED, "the code that names this file normalises so"),
        (repository.code, NEAR, "code of this repository normalises so"),
    ):
        stating = [item for item in group if normalises or item.path.suffix in CONFIGS]
        constants = (constant for item in stating for constant in item.normalizations)
        chosen = choose(constants, surest.get("dataset"), surest.get("image_channels"))
        if chosen is not None:
            value = {"mean": list(chosen.mean), "std": list(chosen.std)}
            yield Evidence(code="preprocessing", value=value, reason=reason, confidence=confidence)


def _describe_normalizer(stated: Normalization | None) -> Iterator[Evidence]:
    """Constants of a layer that was saved with the network."""
    if stated is not None and stated.mean:
        value = {"mean": list(stated.mean), "std": list(stated.std)}
        reason = "a layer in the file normalises so"
        yield Evidence(code="preprocessing", value=value, reason=reason, confidence=EXACT)


def _recognise_classes(lists: Iterable[tuple[str, ...]]) -> list[str]:
    """Datasets that have one of these lists of classes, each once."""
    return sorted({name for names in lists if (name := find_dataset_of(names)) is not None})


def _list_enumerations(text: str) -> Iterator[tuple[str, ...]]:
    """Names that a text enumerates, between commas in one line."""
    for line in text.splitlines():
        parts = re.split(r"\s*[,;|]\s*(?:and\s+)?|\s+and\s+", line.rpartition(":")[2].strip(" .|"))
        if len(parts) > 2:
            yield tuple(part.strip("`*\"' ") for part in parts)


def _list_fitting(names: Iterable[str], reason: str, confidence: float, classes: int | None) -> Iterator[Evidence]:
    """Evidence for each dataset whose class count agrees with the weights; half as sure if several do."""
    fitting = [item for name in sorted(set(names)) for item in _dataset(name, reason, confidence, classes)]
    for item in fitting:
        yield item if len(fitting) == 1 else item.model_copy(update={"confidence": confidence / 2})


def _dataset(name: str, reason: str, confidence: float, classes: int | None) -> Iterator[Evidence]:
    """Evidence for a dataset, unless its class count contradicts the weights."""
    facts = find_dataset_facts(name)
    known = facts.codes.get("classes") if facts else None
    if classes is None or known is None or known == classes:
        yield Evidence(code="dataset", value=name, reason=reason, confidence=confidence)


def _fits_images(evidence: list[Evidence], repository: _Repository) -> bool:
    """Whether the network can have been trained on images of the dataset's size, as far as both are known."""
    surest = {item.code: item for item in sorted(evidence, key=lambda item: item.confidence)}
    reference, size, dataset = (surest.get(code) for code in ("reference", "image_height", "dataset"))
    if reference is None or not str(reference.value).startswith("arch:"):
        return True  # networks of libraries are for images of a size of their own
    facts = find_dataset_facts(dataset.value) if dataset is not None and dataset.confidence >= NEAR else None
    own = facts.codes.get("image_height") if facts else None
    resized = any(word in code.text for code in repository.code for word in ("esize", "Pad(", "Crop"))
    return size is None or own is None or size.value == own or resized


def _prefer_names(evidence: list[Evidence], of_class: list[Evidence], doubted: float) -> list[Evidence]:
    """All evidence; a class of the repository goes before a network that the weights fit by their shapes only.

    So it does before one whose names they bear, too, if it takes images of another size than the dataset has.

    Args:
        evidence: Of the network and of what is around it.
        of_class: Of the class.
        doubted: Confidence up to which a network that the tensors fit is doubted.
    """
    apart = {"reference", "architecture", "image_height", "image_width"}
    if doubted < EXACT and not any(item.code == "reference" for item in of_class):
        return evidence + of_class
    doubts = (item.code in apart and item.confidence <= doubted and "tensors" in item.reason for item in evidence)
    return of_class + [
        item.model_copy(update={"confidence": DOUBTED}) if doubt else item
        for item, doubt in zip(evidence, doubts, strict=True)
    ]


def _describe_class(state: StateDict, naming: list[TrainingCode], repository: _Repository) -> Iterator[Evidence]:
    """The class of the repository's code whose layers bear the names of the tensors."""
    layers = {_WRAPPERS.sub("", name).partition(".")[0] for name in state}
    for code in dict.fromkeys([item.path for item in naming] + [item.path for item in repository.code]):
        item = next(known for known in repository.code if known.path == code)
        for name, made in item.networks.items():
            if layers <= made:
                reason = f"class {name} in {code.name} makes layers of these names"
                makers = item.factories[name]
                # One of several may be meant, and a class that needs arguments cannot be loaded by its name.
                if len(makers) == 1 and code.suffix == ".py":
                    yield Evidence(code="reference", value=f"python:{code}:{makers[0]}", reason=reason, confidence=0.6)
                maker = makers[0] if len(makers) == 1 else name
                yield Evidence(code="architecture", value=maker, reason=reason, confidence=0.5)
                return
