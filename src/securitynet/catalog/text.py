"""How text becomes search terms, the same for both databases and for what users type."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

_WORD = re.compile(r"[^\W_]+")
_PARTS = re.compile(r"\d+|[^\W\d_]+")


def split_words(text: str) -> Iterator[str]:
    """Lower-case words of letters and digits, without accents: ``ResNet-50`` gives ``resnet``, ``50``."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    yield from _WORD.findall(plain)


def list_index_terms(texts: Iterable[str]) -> list[str]:
    """The distinct terms under which texts are found: their words, and the letters and digits of mixed ones.

    ``resnet50.a1_in1k`` is found as ``resnet50`` and as ``resnet``.
    """
    terms: dict[str, None] = {}
    for text in texts:
        for word in split_words(text):
            terms[word] = None
            if not (word.isdigit() or word.isalpha()):
                terms.update(
                    dict.fromkeys(part for part in _PARTS.findall(word) if not part.isdigit() or len(part) > 1)
                )
    return list(terms)


def parse_words(text: str) -> list[tuple[list[str], bool]]:
    """The words of a search: of each its parts, and whether its last part is a beginning (``resn*``)."""
    return [(list(split_words(part)), part.endswith("*")) for part in text.split()]


def make_code_term(code: str, value: object) -> str:
    """The term under which a whole value of a code is found: ``dataset=cifar10``, ``tasktype=classification``.

    The equals sign keeps it apart from the words of free text.
    """
    text = str(value)
    return f"{code.replace('_', '')}={''.join(split_words(text)) or text.encode().hex()}"
