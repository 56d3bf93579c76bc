"""Times of one's own tables: read in every common form, and refused where their order is unsure."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pandas as pd
import pytest

from recbole_genrec.data.preparation.own.times import read_times
from recbole_genrec.errors import DataError

DAY = datetime(2024, 5, 31, 12, 30, 15, tzinfo=timezone.utc)
SECONDS = DAY.timestamp()


@pytest.mark.parametrize(
    "written",
    [
        *(int(SECONDS), int(SECONDS * 1e3), int(SECONDS * 1e6), int(SECONDS) * 10**9),
        *(f"{SECONDS}", "20240531123015", 20240531123015, 20240531123015.0),
        *("2024-05-31T12:30:15", "2024-05-31 12:30:15Z", "2024-05-31T14:30:15+02:00"),
        *("2024-05-31T05:30:15.000-0700", "2024-05-31 12:30:15 UTC", "20240531T123015Z"),
        *("31.05.2024 12:30:15", "05/31/2024 12:30:15 PM", "Fri, 31 May 2024 12:30:15 GMT"),
        *("May 31, 2024 12:30:15", DAY, DAY.replace(tzinfo=None)),
    ],
)
def test_times(written):
    assert read_times([written, written]).tolist() == [SECONDS] * 2


def test_times_that_are_unsure():
    with pytest.raises(DataError, match="mix milliseconds and seconds"):
        read_times([1_700_000_000, 1_700_000_000_000])
    with pytest.raises(DataError, match="can be read as .* Say which: --time_format"):
        read_times(["01/02/2024", "03/04/2024"])
    assert read_times(["01/02/2024"], "%d/%m/%Y").tolist() == [1706745600.0]
    assert read_times(["13/02/2024", "03/04/2024"])[0] == 1707782400.0
    assert read_times([20240531, 20240601])[1] - read_times([20240531])[0] == 86400
    assert read_times([3, 1, 2]).tolist() == [3, 1, 2]  # positions
    days = read_times(["2024-05-31", None, "never", "2024-06-01"])
    assert np.isnan(days).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("days", "form"),
    [
        (["31012023", "15062023", "01022024", "02032024"], "%d%m%Y"),
        (["01312023", "06152023", "02012024", "03022024"], "%m%d%Y"),
        ([31012023.0, 15062023, 11022024, None], "%d%m%Y"),
        (["31012023.0", "15062023.0"], "%d%m%Y"),
        (["310120231530", "010220240900"], "%d%m%Y%H%M"),
        (["12312023153000", "01022024090000"], "%m%d%Y%H%M%S"),
        (["01012024", "02022024"], "%d%m%Y"),  # both forms give the same days
        (["20240531", "20240601"], "%Y%m%d"),
    ],
)
def test_dates_as_digits(days, form):
    texts = [None if day is None else str(day).removesuffix(".0") for day in days]
    wanted = [
        np.nan if text is None else datetime.strptime(f"{text} +0000", f"{form} %z").timestamp()
        for text in texts
    ]
    np.testing.assert_array_equal(read_times(days), wanted)
    np.testing.assert_array_equal(read_times(days, form), wanted)


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (["01022024", "03042024"], "can be read as %d%m%Y and as %m%d%Y. Say which: --time_format"),
        ([31012023, 15062023, 1022024, 2032024], "'1022024' has 7 digits; with a zero in front"),
        ([1022024, 2032024], "Write '01022024', or all times as ISO dates"),
        ([10220240930, 310120231530], "'10220240930' has 11 digits"),
        (["31012023", "12312023"], "no form of dates fits all 2 .*1 as %d%m%Y, 1 as %m%d%Y"),
        (["31012023", "30012023", "0"], "no form of dates fits all 3 .*2 as %d%m%Y.*--time_format"),
        (["31012023", "20240131"], "1 as %d%m%Y, 1 as %Y%m%d"),
        (["20240531", "202405311230"], "1 as %Y%m%d, 1 as %Y%m%d%H%M"),
    ],
)
def test_dates_as_digits_that_are_unsure(days, said):
    with pytest.raises(DataError, match=said):
        read_times(days)


def test_a_named_form_of_digits_takes_all_its_digits():
    assert read_times(["31012023", "0", "01022024"], "%d%m%Y")[2] == 1706745600.0
    assert np.isnan(read_times(["31012023", "0"], "%d%m%Y")[1])
    for form, day in (("%d%m%Y", 1022024), ("%m%d%Y", 1022024), ("%d%m%y", 10224)):
        with pytest.raises(DataError, match=f"'{day}' has . digits; with a zero in front"):
            read_times([day], form)


@pytest.mark.parametrize(
    "numbers",
    [
        *([1_700_000_000, 1_600_000_000], [874724710, 874724711], [10000001, 10000002, 10000003]),
        *([1.5, 2.5], [0, 0], [-5, 3], [20240531, 20240231]),
    ],
)
def test_numbers_that_are_no_dates(numbers):
    assert read_times(numbers).tolist() == numbers


@pytest.mark.parametrize(
    "time",
    [
        *("2024-05-31 01:00 EST", "2024-05-31 01:00EST", "2024-05-31T01 EST"),
        *("2024-05-31 01:00 PM EST", "2024-05-31 01:00 EST-0500", "2024-05-31 01:00 A"),
        *(
            "2024-05-31 01:00 Europe/Berlin",
            "Fri, 31 May 2024 12:00:00 CET",
            "31.05.2024 12:30 CET",
        ),
    ],
)
def test_names_of_zones_are_refused(time, recwarn):
    with pytest.raises(DataError, match="cannot be read: .* does not say .* Write the distance"):
        read_times([time, time])
    known = "2024-05-31 01:00-05:00"
    assert np.isnan(read_times([known, known, time])).tolist() == [False, False, True]
    assert not recwarn.list
    with pytest.raises(DataError, match="how far from UTC"):
        read_times(["2024-05-31 01:00 EST"], "%Y-%m-%d %H:%M %Z")


@pytest.mark.parametrize(
    ("time", "day"),
    [
        ("2024-05-31 01:00 UTC+2", "2024-05-30 23:00"),
        ("2024-05-31 01:00 GMT+0200", "2024-05-30 23:00"),
        ("2024-05-31 01:00:00 +0200 CEST", "2024-05-30 23:00"),
        ("2024-05-31T01:00+02:00[Europe/Berlin]", "2024-05-30 23:00"),
        ("2024-05-31 01:00 PM", "2024-05-31 13:00"),
        ("May 31, 2024 01:00:00 PM", "2024-05-31 13:00"),
        ("Fri, 31 May 2024 12:00:00 EST", "2024-05-31 17:00"),
    ],
)
def test_words_of_times_that_are_sure(time, day):
    assert read_times([time]).tolist() == [pd.Timestamp(day, tz="UTC").timestamp()]
