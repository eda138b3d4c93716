"""Texts that others wrote, made safe for where they are shown: on terminals and in spreadsheets."""

from __future__ import annotations

import re

_TEXT_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROLS = re.compile(f"[{_TEXT_CONTROLS}]")
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_FORMULA = re.compile(rf"(?!{_NUMBER}\Z)'*[=+\-@\t\r]")


def escape_controls(text: str) -> str:
    r"""A text whose control characters are visible: ``\x1b`` for an escape, ``\u202e`` for a change of direction.

    A terminal obeys such characters: they move the cursor, change earlier lines, set the clipboard, or show a name
    backwards. Tabs and line feeds stay.
    """
    return _CONTROLS.sub(_escape, text)


def escape_line(text: str) -> str:
    r"""A text of one line, in which line feeds are visible too (``\n``): a file's name may hold them."""
    return escape_controls(text).replace("\n", "\\n")


def escape_json_controls(document: str) -> str:
    r"""A JSON document with the same content, in which control characters are written ``\uNNNN``.

    Args:
        document: A JSON document. Control characters can only stand within its strings.
    """
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def escape_formula(cell: str) -> str:
    """The cell of a table with ``'`` before it if a spreadsheet would take it for a formula; numbers stay as they are.

    `unescape_formula` gives the original back for every text.
    """
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unescape_formula(cell: str) -> str:
    """The original of a cell that `escape_formula` wrote."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
