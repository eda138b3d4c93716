"""Files of weights, read without executing anything in them.

The format of a file is determined from its content, not from its name. Safetensors hold data only. Pickles are read by
torch's restricted reader (``weights_only=True``), which builds tensors and plain containers and refuses all else.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import pickletools
import re
import shlex
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from typing_extensions import override

from securitynet.errors import ModelError, RefusedFile, UnsafeFile
from securitynet.files import read_file_address
from securitynet.models.sources.safetensors_names import check_names
from securitynet.models.sources.storages import check_storages
from securitynet.models.sources.weight_sets import choose_set, list_other_parts
from securitynet.untrusted import bound_growth, check_archive, describe_size, open_regular

StateDict = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Weights:
    """The content of a file of weights.

    Attributes:
        tensors: Tensors on the CPU, by the names in the file.
        notes: Remarks for the reader of the report: which of several sets was used.
    """

    tensors: StateDict
    notes: tuple[str, ...] = ()


_MOST_ENTRIES = 50_000
_SHARE_OF_PICKLE = 64
"""A pickle, which torch reads byte by byte in Python, may have this share of the size to which a file may grow."""
_MOST_NAMED = 1_000_000
"""Opcodes that are looked through for what a refused pickle calls."""


def read_state_dict(path: str | Path) -> tuple[StateDict, str]:
    """Read the tensors of a file of weights, by name, and their digest.

    Nested checkpoints (``{"state_dict": {...}, "epoch": ...}``) are opened; floating-point tensors of any precision
    become float32. Names are as in the file: `securitynet.models.sources.state_dicts` removes prefixes.

    Returns:
        Tensors on the CPU by name, and their `state_checksum`, the same for the same weights in another kind of file.

    Raises:
        UnsafeFile: If reading it would execute code.
        ModelError: If it is missing, empty, damaged, or not a file of weights.
    """
    state = read_weights(path).tensors
    return state, state_checksum(state)


def read_weights(path: str | Path, weight_set: str | None = None, preferred: tuple[str, ...] = ()) -> Weights:
    """Read the tensors of a file of weights, with notes on its other sets of weights.

    Args:
        path: The file.
        weight_set: Which set, if it holds several; see `securitynet.models.sources.weight_sets.choose_set`.
        preferred: Names of sets, of which the first that is there is taken if none is named.

    Raises:
        UnsafeFile: If reading it would execute code.
        ModelError: If it is missing, empty, damaged, or not a file of weights.
        ConfigurationError: If there is no such set.
    """
    path = Path(path)
    chosen = choose_set(_read_mapping(path), weight_set, preferred)
    return Weights(_tensors(chosen.content, path), chosen.notes)


def read_weight_parts(path: Path, preferred: tuple[str, ...] = ()) -> list[StateDict]:
    """Read a file that may hold several parts of a model, each under its own names.

    Args:
        path: The file.
        preferred: See `read_weights`.

    Returns:
        The set that `read_weights` takes, then those that hold other layers.

    Raises:
        UnsafeFile: If reading it would execute code.
        ModelError: If it is missing, empty, damaged, or not a file of weights.
    """
    content = _read_mapping(path)
    chosen = choose_set(content, None, preferred).content
    return [_tensors(part, path) for part in (chosen, *list_other_parts(content, chosen))]


def _read_mapping(path: Path) -> Mapping[Any, Any]:
    content = _read(path)
    if isinstance(content, torch.Tensor):
        raise ModelError(f"{path} holds a single tensor, not the weights of a network by name.")
    if not isinstance(content, Mapping):
        raise ModelError(
            f"{path} holds a {type(content).__name__}, not the weights of a network by name.",
            hint="Save them with torch.save(model.state_dict(), FILE).",
        )
    return content


def state_checksum(state: Mapping[str, torch.Tensor], architecture: str = "") -> str:
    """SHA-256 over an architecture's name and the names, types, shapes and bytes of all tensors, in order of names.

    Counters of batch norms are left out: some files lack them, and they do not affect outputs.
    """
    digest = hashlib.sha256(architecture.encode())
    for key in sorted(state):
        if key.endswith("num_batches_tracked"):
            continue
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"\0{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> Any:
    if not path.exists():
        plain = read_file_address(str(path))
        hint = "Check the path given with --weights." if plain is None else f"Write --weights {shlex.quote(plain)}."
        raise ModelError(f"There is no file {path}.", hint=hint)
    if path.is_dir():
        files = sorted(
            p.name for p in path.iterdir() if p.suffix in (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt")
        )
        raise ModelError(
            f"{path} is a folder, not a file of weights.",
            hint=f"Name a file in it: {', '.join(files[:5])}." if files else "There is no file of weights in it.",
        )
    with open_regular(path) as stream:
        head = stream.read(512)
    kind = _sniff(head)
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind == "zip":
        _check_archive(path)
    elif kind != "pickle":
        raise ModelError(f"{path} is {kind}, not a file of weights.", hint=_advice(kind))
    content = _read_pickle(path)
    check_storages(content, path)
    return content


def _sniff(head: bytes) -> str:
    """``safetensors``, ``zip`` or ``pickle``; otherwise a description of what the file seems to be."""
    if not head:
        return "empty"
    if len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 100_000_000:
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    known = {
        b"version https://git-lfs": "a git-lfs pointer",
        b"<!doctype html": "a web page",
        b"<html": "a web page",
        b"<?xml": "an XML document",
        b"\x89hdf": "an HDF5 file (Keras)",
        b"\x1f\x8b": "a gzip archive",
        b"bzh": "a bzip2 archive",
        b"7z\xbc\xaf": "a 7-Zip archive",
        b"\xfd7zxz": "an xz archive",
        b"\x89png": "a picture",
        b"{": "a JSON document",
    }
    for start, words in known.items():
        if text.startswith(start):
            return words
    if head[257:262] == b"ustar":
        return "a tar archive"
    # torch writes pickles of protocol 2. Older protocols may start with any opcode, so the whole file is parsed.
    return "pickle" if head.startswith(b"\x80") or _parses(head) else "of an unknown kind"


def _parses(head: bytes) -> bool:
    """Whether a file starts like a pickle of protocol 0 or 1. Nothing is executed."""
    if head[:1] not in (b"(", b"c", b"}", b"]", b"I", b"S", b"V", b"F"):
        return False
    opcodes = 0
    try:
        for _ in pickletools.genops(head):
            opcodes += 1
    except (ValueError, UnicodeDecodeError, IndexError, struct.error):
        return opcodes > 2
    return True


def _advice(kind: str) -> str:
    if kind == "a git-lfs pointer":
        return "Fetch the content it points to: git lfs pull."
    if kind in ("a web page", "an XML document"):
        return "The download probably needs a login or another address; fetch the file again in a browser."
    if kind == "empty":
        return "Download it again."
    if "archive" in kind:
        return "Unpack it first and name the file of weights in it."
    return "Give a .safetensors file, or one written by torch.save."


def _read_safetensors(path: Path) -> StateDict:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys()
            _check_count(path, len(names))  # before each of them takes its time
            check_names(path)
            return {name: _check_kind(file.get_tensor(name), name, path) for name in names}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _check_archive(path: Path) -> None:
    """Refuse archives that torch did not write, and TorchScript, which is a program."""
    try:
        check_archive(path)
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickled = max(
                (member.file_size for member in archive.infolist() if member.filename.endswith(".pkl")), default=0
            )
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if pickled > _largest_pickle():
        raise _long_pickle(path)
    inner = [name.partition("/")[2] for name in names]
    if any(name == "constants.pkl" or name.startswith("code/") for name in inner):
        raise UnsafeFile(
            f"{path} is a TorchScript archive: a program, which is not run.",
            hint="Export its weights where you trust it: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth'), and name the network with arch: or python:.",
        )
    if "data.pkl" not in inner:
        numpy = any(name.endswith(".npy") for name in names)
        raise ModelError(
            f"{path} is {'an archive of NumPy arrays' if numpy else 'a zip archive'}, not a file of weights.",
            hint="Recorded outputs are given as outputs:FILE." if numpy else _advice("a zip archive"),
        )


def _read_pickle(path: Path) -> Any:
    try:
        # A stream, because torch would decide by the suffix of a path.
        with _PickleStream(path) as stream, warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            # Of protocols that torch does not write: where it cannot read one, that is an error.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.findall(r"GLOBAL ([\w.]+\w)", str(error))
        called = list(dict.fromkeys(named or sorted(_globals(path))))
        if not called and _is_cut(path):
            raise _damaged(path, error) from error
        what = f"{', '.join(called[:3])}" if called else "objects other than tensors"
        raise UnsafeFile(
            f"{path} is a pickle that holds {what}: reading it would execute code from the file, so it is refused.",
            hint="Ask who made it for the weights alone. Or, if you know all that it names as classes of a network "
            "(torch.serialization.get_unsafe_globals_in_checkpoint('FILE') lists them), allow these and no others, in "
            "Python: torch.serialization.add_safe_globals([Net, ...]); m = torch.load('FILE', weights_only=True); then "
            "safetensors.torch.save_model(m, 'weights.safetensors') for a whole model, or "
            "torch.save(m['state_dict'], 'weights.pth') for a checkpoint.",
        ) from error
    except (MemoryError, RefusedFile):
        raise
    except Exception as error:  # torch's reader raises almost any type of error on damaged files
        raise _damaged(path, error) from error


class _PickleStream(io.BufferedReader):
    """A file that is not read in too many steps: torch reads an old file's pickle opcode by opcode."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("rb", buffering=0))
        self._path, self._left = path, _largest_pickle()

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise _long_pickle(self._path)
        return super().read(size)


def _largest_pickle() -> int:
    return bound_growth(0) // _SHARE_OF_PICKLE


def _long_pickle(path: Path) -> RefusedFile:
    return RefusedFile(
        f"{path} holds a pickle of more than {describe_size(_largest_pickle())}, which would take minutes to read; a "
        "network needs far less.",
        hint="Save the weights alone, as safetensors; or allow more: securitynet --max-size GIB COMMAND.",
    )


def _harmless() -> list[Any]:
    """Types that checkpoints often hold beside weights; building them executes no code of the file."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    # Files written before NumPy 2 name the same function by its older module.
    return [argparse.Namespace, np.dtype, scalar, (scalar, "numpy.core.multiarray.scalar"), *kinds]


def _globals(path: Path) -> set[str]:
    """Names of functions and classes that a pickle requests, read without executing it."""
    names: set[str] = set()
    for stream in _pickles(path):
        strings: list[str] = []
        try:
            for opcode, argument, _ in islice(pickletools.genops(stream), _MOST_NAMED):
                if opcode.name in ("GLOBAL", "INST"):
                    names.add(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL" and len(strings) > 1:
                    names.add(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
        except (ValueError, UnicodeDecodeError, IndexError, struct.error, EOFError):
            continue
    return {name for name in names if not name.startswith(("torch._utils.", "collections.OrderedDict"))}


def _is_cut(path: Path) -> bool:
    """Whether a pickle ends before it is complete."""
    for stream in _pickles(path):
        try:
            for _ in islice(pickletools.genops(stream), _MOST_NAMED):
                pass
        except (ValueError, UnicodeDecodeError, IndexError, struct.error, EOFError):
            return True
    return False


def _pickles(path: Path) -> Iterator[BinaryIO]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    with archive.open(name) as stream:
                        yield stream  # type: ignore[misc]
    else:
        with path.open("rb") as stream:
            yield stream


def _damaged(path: Path, error: Exception) -> ModelError:
    detail = str(error).strip().splitlines()
    return ModelError(
        f"{path} is damaged or cut short" + (f" ({detail[0].rstrip('.')[:120]})." if detail else "."),
        hint="Download it again and compare its size or checksum with the source's.",
    )


def _check_count(path: Path, count: int) -> None:
    if count > _MOST_ENTRIES:
        raise ModelError(f"{path} holds {count:,} entries; no network has more than {_MOST_ENTRIES:,} tensors.")


def _check_kind(value: torch.Tensor, key: str, path: Path) -> torch.Tensor:
    """A tensor, if a network can take its values: torch would drop the imaginary part of complex ones."""
    if value.layout != torch.strided or value.is_quantized or value.is_complex():
        hint = (
            "Give the weights from before quantisation, or export the network to ONNX." if value.is_quantized else None
        )
        raise ModelError(f"{path}: {key} is a sparse, quantised or complex tensor, which is not supported.", hint=hint)
    return value


def _tensors(content: Mapping[Any, Any], path: Path) -> StateDict:
    _check_count(path, len(content))
    state: StateDict = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            continue
        value = _check_kind(value, key, path).detach()
        state[key] = value.float() if value.is_floating_point() else value
    if not state:
        held = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise ModelError(
            f"{path} holds no weights: its entries are {held}.",
            hint="Save them with torch.save(model.state_dict(), FILE).",
        )
    return state
