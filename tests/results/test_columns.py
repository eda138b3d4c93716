"""Frames of rows that come in blocks."""

import random

import pandas

from securitynet.results.columns import Rows, make_frame


def test_a_frame_is_that_of_the_plain_rows():
    blocks = [
        ({"model": "a", "tags": ["x"]}, [{"value": 1.0, "n": 3}, {"value": 2.0, "n": 4}]),
        ({"model": "b"}, []),  # nothing of it is in the frame
        ({"model": "c", "late": 1}, [{"value": None, "n": 5}, {"n": 6, "other": "z"}]),  # columns that differ
        ({}, [{"model": "d", "value": 3.0}]),  # what others share, in a row
    ]
    plain = [{**shared, **row} for shared, rows in blocks for row in rows]
    expected = pandas.DataFrame(plain)
    frame = make_frame(iter(blocks))
    assert len(frame) == 5 and set(frame) == set(expected)
    pandas.testing.assert_frame_equal(frame[list(expected)], expected)


def test_rows_are_sorted_as_pandas_sorts_them():
    draw = random.Random(0)
    texts = [None, "", "a", "B", "é", "zz", "z"]
    blocks = [
        ({"case": draw.choice(texts)}, [{"name": draw.choice(texts), "n": 10 * block + row} for row in range(3)])
        for block in range(50)
    ]
    blocks.append(({}, [{"n": 1000}]))
    order = ["case", "name"]
    expected = make_frame(blocks).sort_values(order, kind="stable", na_position="first", ignore_index=True)
    pandas.testing.assert_frame_equal(make_frame(blocks, order), expected)


def test_no_rows_are_an_empty_frame():
    assert make_frame([({"model": "a"}, [])]).empty


def test_numbers_stay_what_they_are():
    kinds = {
        "float": [0.5, None, 1.0, float("nan")],
        "whole": [1, 2, 3, 4],
        "large": [1, 2**70, 3, 4],
        "whole, then missing": [1, None, 3, 4],
        "whole, then float": [1, 2.5, 3, 4],
        "truth": [True, False, True, False],
        "float, then text": [0.5, "a", 1.0, 2.0],
        "missing first": [None, 0.5, 1.0, 2.0],
    }
    rows = [{name: values[number] for name, values in kinds.items()} for number in range(4)]
    pandas.testing.assert_frame_equal(make_frame([({}, rows[:1]), ({}, rows[1:])]), pandas.DataFrame(rows))


def test_frames_of_some_rows_are_together_that_of_all():
    draw = random.Random(1)
    blocks = [
        (
            {"case": draw.choice("abc"), "seed": draw.choice([1, 2]), "at": draw.choice([None, 0.5])},
            [
                {"name": draw.choice("xyz"), "value": draw.choice([0.1, None]), "n": 10 * block + row}
                for row in range(3)
            ],
        )
        for block in range(40)
    ]
    for order in ((), ("case", "name")):
        rows = Rows(blocks, order)
        assert len(rows) == 120
        parts = list(rows.make_frames(rows.find_values(), 50))
        assert [len(part) for part in parts] == [50, 50, 20]
        pandas.testing.assert_frame_equal(pandas.concat(parts, ignore_index=True), make_frame(blocks, order))
