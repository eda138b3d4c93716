"""Which weights an entry means: its digest, its file, and whether its reference names them already."""

from __future__ import annotations

import re
from urllib.parse import quote

from securitynet.catalog.schema import CatalogEntry

TENSORS = "tensors"
"""Kind of digest that is made of the tensors, whatever the file; the others are digests of the file."""

FILE_DIGESTS = ("sha256", "sha1", "md5", "sha512")
"""Kinds of digest of a file, as `hashlib` names them."""

SHORTEST = 8
"""Fewest hexadecimal digits that count as evidence: PyTorch's hub puts so many into a file's name."""

_NETWORKS_ONLY = ("arch:", "python:")
_DIGEST = re.compile(rf"({TENSORS}|{'|'.join(FILE_DIGESTS)}):([0-9a-f]{{{SHORTEST},128}})")
_BARE_SHA256 = re.compile(r"[0-9a-f]{64}")
_GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git|/.*)?")
_FILE = re.compile(
    r"drive\.google\.com/uc\?id=|\.(pth|pt|bin|npz|safetensors|tar|th|ckpt|onnx|zip)(\.tar|\.gz)?$", re.IGNORECASE
)


def split_digest(checksum: str) -> tuple[str, str] | None:
    """The kind and the lower-case digits of a checksum; None if its kind is not known or it is too short to compare."""
    text = checksum.strip().lower()
    match = _DIGEST.fullmatch(f"sha256:{text}" if _BARE_SHA256.fullmatch(text) else text)
    return (match[1], match[2]) if match else None


def compare_checksums(one: str | None, other: str | None) -> bool | None:
    """Whether two checksums are of the same weights; None if they cannot be compared.

    Digests of one kind are equal if one is the beginning of the other: some sources publish only the first digits.

    Args:
        one: A checksum, ``KIND:DIGITS``; None if there is none.
        other: Another one.
    """
    first, second = (split_digest(text) if text else None for text in (one, other))
    if first is None or second is None:
        return True if one is not None and one == other else None
    if first[0] != second[0]:
        return None
    return first[1].startswith(second[1]) or second[1].startswith(first[1])


def names_weights(reference: str | None) -> bool:
    """Whether a reference names weights. ``arch:`` and ``python:`` name a network, to be filled with any."""
    return reference is not None and not reference.startswith(_NETWORKS_ONLY)


def is_file_address(link: str) -> bool:
    """Whether a link is the address of one file, rather than of a page of many."""
    return _FILE.search(link) is not None


def locate_entry_weights(entry: CatalogEntry) -> str | None:
    """The URL or path of the weights file of an entry whose reference names a network only; None if it states none.

    A relative path is one in the repository of ``code_link``, at the commit ``revision``.
    """
    stated = entry.weights_file
    if stated is None:
        return entry.weights_link if entry.weights_link and is_file_address(entry.weights_link) else None
    if stated.startswith(("https://", "http://", "/", "~", "./", "../")):
        return stated
    repository = _GITHUB.fullmatch(entry.code_link or "")
    if repository is None:
        return stated
    commit = entry.revision or "HEAD"
    return f"https://raw.githubusercontent.com/{repository[1]}/{repository[2]}/{quote(commit)}/{quote(stated)}"
