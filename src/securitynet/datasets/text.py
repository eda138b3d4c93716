"""Tables written by hand or with a spreadsheet: any Unicode encoding; commas, semicolons, tabs or blanks."""

from __future__ import annotations

import codecs
import csv
import io
import re

from securitynet.escaping import unescape_formula

_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MOST_ROWS = 2_000_000
"""More than ImageNet has images: rows take a hundred times the memory of short lines."""

_LONGEST_LINE = 1 << 22
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")

_DELIMITERS = ",;\t|"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*')  # what Excel puts first to say how the rest is divided
_DECIMAL_COMMA = re.compile(r"\s*\"?-?\d+,\d+\"?\s*")


def decode(data: bytes, *, errors: str = "strict") -> str:
    """Decode text in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    Args:
        data: Content of a file.
        errors: Handling of bytes that are not UTF-8, as for `bytes.decode`.

    Raises:
        ValueError: If it is not text.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None and len(data) >= 4 and not len(data) % 2:
        # Without a mark, Latin letters and digits leave every second byte of UTF-16 zero.
        low, high = data[0:1024:2].count(0), data[1:1024:2].count(0)
        half = min(len(data), 1024) // 2
        if max(low, high) > 0.6 * half and min(low, high) < 0.1 * half:
            encoding = "utf-16-le" if high > low else "utf-16-be"
    if encoding in (None, "utf-8-sig"):
        text = data.decode(encoding or "utf-8", errors)
    else:
        text = data.decode(encoding or "utf-8", "strict")
    if "\0" in text:
        raise ValueError("it holds zero bytes, as no text does")
    return text


class TextTable:
    """Rows of text, split into cells.

    Attributes:
        delimiter: Separator of cells.
        decimal_comma: Whether numbers are written like ``0,5``.
        rows: Cells without surrounding blanks, and the number of their line, from 1; without empty lines.
        header: The first row; empty if there is none.

    Raises:
        ValueError: If a text cannot be split into cells, or has millions of rows.
    """

    def __init__(self, text: str) -> None:
        if text.count("\n") > _MOST_ROWS:
            raise ValueError(f"it has more than {_MOST_ROWS:,} rows")
        lines = _LINE.findall(text)
        long = next((number for number, line in enumerate(lines, start=1) if len(line) > _LONGEST_LINE), None)
        if long is not None:
            raise ValueError(f"line {long} has more than {_LONGEST_LINE:,} characters")
        first = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
        stated = _SEPARATOR_LINE.fullmatch(lines[first].strip("\r\n")) if first < len(lines) else None
        if stated:
            first += 1
        header = lines[first] if first < len(lines) else ""
        self.delimiter: str = stated[1] if stated else _most_frequent(header)
        reader = csv.reader(lines[first:], delimiter=self.delimiter, skipinitialspace=True)
        self.rows: list[tuple[int, list[str]]] = []
        try:
            for cells in reader:
                stripped = [unescape_formula(cell.strip()) for cell in cells]
                if any(stripped):
                    self.rows.append((first + reader.line_num, stripped))
        except csv.Error as error:
            raise ValueError(f"line {first + reader.line_num}: {error}") from error
        self.header: list[str] = self.rows[0][1] if self.rows else []
        if self.header and self.header[0].startswith("#"):  # as written by numpy.savetxt
            self.header[0] = self.header[0].lstrip("# ")
        self.decimal_comma = self.delimiter != "," and any(
            _DECIMAL_COMMA.fullmatch(cell) for _, cells in self.rows[1:3] for cell in cells
        )

    def to_csv(self) -> str:
        """The table as plain CSV: commas, decimal points, lower-case names, no blanks."""
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([name.casefold() for name in self.header])
        for _, cells in self.rows[1:]:
            writer.writerow([_with_point(cell) for cell in cells] if self.decimal_comma else cells)
        return stream.getvalue()


def read_text_table(data: bytes, *, errors: str = "strict") -> TextTable:
    """Read the table in a file's content.

    Raises:
        ValueError: If it is not text, or cannot be split into cells.
    """
    return TextTable(decode(data, errors=errors))


def _most_frequent(header: str) -> str:
    outside = re.sub(r'"[^"]*"', "", header)
    counts = {delimiter: outside.count(delimiter) for delimiter in _DELIMITERS}
    best = max(counts, key=lambda delimiter: counts[delimiter])
    return best if counts[best] else ","


def _with_point(cell: str) -> str:
    return cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell
