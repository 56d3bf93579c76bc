"""Ids that people type: a comma may be part of one."""

from __future__ import annotations

import pytest

from recbole_genrec.data.given_ids import IdText

KNOWN = {"7,4", "7", "4", "Smith, J. 3", 'Lamp, "big" 1'}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("7,4", ["7,4"]),
        ("Smith, J. 3", ["Smith, J. 3"]),
        ('Lamp, "big" 1', ['Lamp, "big" 1']),
        ("4, 7", ["4", "7"]),
        ('"7,4", "Smith, J. 3" ,7', ["7,4", "Smith, J. 3", "7"]),
        ('"Lamp, ""big"" 1",7', ['Lamp, "big" 1', "7"]),
        ('"7,4"', ["7,4"]),
        ('7" lamp,4', ['7" lamp', "4"]),
        ('"open,4', ['"open', "4"]),
        ("7,,4", ["7", "", "4"]),
        ("unknown", ["unknown"]),
    ],
)
def test_the_whole_text_is_tried_before_its_words(text, wanted):
    assert IdText(text).among(KNOWN.__contains__) == wanted
    assert set(wanted) <= set(IdText(text).possible)
