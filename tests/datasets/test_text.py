"""Tables in the encodings and with the delimiters that spreadsheets write."""

from __future__ import annotations

import pytest

from securitynet.datasets.text import decode, read_text_table

BODY = "p0,p1,label,member\n0.6,0.4,0,1\n0.3,0.7,1,0\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_any_unicode_encoding(encoding: str) -> None:
    assert decode(BODY.encode(encoding)).lstrip("\ufeff") == BODY
    assert read_text_table(BODY.encode(encoding)).to_csv() == BODY


@pytest.mark.parametrize(
    "text",
    [
        "p0, p1, label , member\n0.6, 0.4, 0, 1\n0.3, 0.7, 1, 0\n",
        "P0;P1;Label;Member\n0,6;0,4;0;1\n0,3;0,7;1;0\n",
        BODY.replace(",", "\t"),
        "sep=;\r\n" + BODY.replace(",", ";").replace("\n", "\r\n"),
        '"p0" , "p1","label","member"\n"0.6","0.4","0","1"\n0.3,0.7,1,0',
        "# p0, p1, label, member\n0.6,0.4,0,1\n0.3,0.7,1,0\n",
        "\n\n" + BODY + "\n , , , \n",
        BODY.replace("\n", "\r"),
    ],
)
def test_one_table_in_many_hands(text: str) -> None:
    assert read_text_table(text.encode()).to_csv() == BODY


def test_lines_are_numbered_as_editors_do() -> None:
    rows = read_text_table(b"sep=,\n\na,b\n1,2\n\n3,4\n").rows
    assert rows == [(3, ["a", "b"]), (4, ["1", "2"]), (6, ["3", "4"])]


@pytest.mark.parametrize("data", [b"a,\0b\n", BODY.encode("utf-16")[:-1], b"a\n\xff\xfe\xfd", bytes(range(256))])
def test_what_is_no_text(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_text_table(data)


def test_bytes_of_file_names_survive() -> None:
    assert read_text_table(b"caf\xe9.png\n", errors="surrogateescape").header == ["caf\udce9.png"]
