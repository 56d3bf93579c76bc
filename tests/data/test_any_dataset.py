"""Generated datasets: each is refused with file and line, or split as a short reference does."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone

from event_data import PARTS, split
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from recbole_genrec.errors import GenRecError

NAMES = ["user_id", "item_id", "timestamp"]
IDS = ["1", "01", "1.0", "a b", "é", "日本", "x,y", "a|b", "#", "-", "NA", "", '"', 'q"r', "[PAD]x"]
TIMES = ["0", "5", "5.5", "-3", "1e9", "1600000001", "1600000002", "20240105", "2024-01-05"]
TIMES += ["2024-01-05T10:00:00", "1600000000001", "soon", "", "nan", "16777216", "16777217"]

ids = st.one_of(st.integers(0, 6).map(lambda n: f"i{n}"), st.sampled_from(IDS[:10]))
odd_ids = st.one_of(ids, st.sampled_from(IDS))
numbers = st.one_of(st.integers(0, 30).map(str), st.integers(0, 2**40).map(str))
user_ids = st.integers(0, 3).map(lambda n: f"u{n}")


@st.composite
def datasets(draw):
    """A file of interactions, mostly well formed: header, rows, separator and settings."""
    clean = draw(st.integers(0, 9)) < 7
    times = draw(st.sampled_from([numbers, st.sampled_from(TIMES[:8]), st.just("7")]))
    if not clean:
        times = st.one_of(times, st.sampled_from(TIMES))
    kinds = ["token", "token", "float"]
    if not clean and draw(st.booleans()):
        place = draw(st.integers(0, 2))
        kinds[place] = draw(st.sampled_from(["token", "float", "token_seq", "int", ""]))
    row = st.tuples(user_ids if clean else odd_ids, ids if clean else odd_ids, times)
    rows = draw(st.lists(row, max_size=40))
    if rows and draw(st.booleans()):
        rows += draw(st.lists(st.sampled_from(rows), max_size=5))  # duplicates
    separator = draw(st.sampled_from(["\t", "|", ",", "::"]))
    header = [f"{name}:{kind}" if kind else name for name, kind in zip(NAMES, kinds, strict=True)]
    changes = draw(
        st.fixed_dictionaries(
            {"MAX_ITEM_LIST_LENGTH": st.integers(1, 8)},
            optional={
                "rm_dup_inter": st.sampled_from(["first", "last"]),
                "user_inter_num_interval": st.sampled_from(["[2,inf)", "[4,inf)"]),
            },
        )
    )
    return header, rows, separator, changes


def reference(rows, changes):
    """Leave-one-out as RecBole documents it: sort, drop repeated pairs, filter users, cut."""
    ordered = sorted(rows, key=lambda row: seconds(row[2]))
    keep = changes.get("rm_dup_inter")
    if keep:
        unique = {}
        for row in ordered if keep == "first" else ordered[::-1]:
            unique.setdefault(row[:2], row)
        ordered = list(unique.values())[:: 1 if keep == "first" else -1]
    least = int(changes.get("user_inter_num_interval", "[0,")[1])
    limit = changes["MAX_ITEM_LIST_LENGTH"]
    found = {part: [] for part in PARTS}
    for user in {row[0] for row in ordered}:
        items = [row[1] for row in ordered if row[0] == user]
        if len(items) < least:
            continue
        parts = ["train"] * (len(items) - 1)
        parts[-2:] = {0: [], 1: ["train"], 2: ["train", "test"]}.get(len(parts), ["valid", "test"])
        for place, part in enumerate(parts, start=1):
            history = tuple(items[max(0, place - limit) : place])
            found[part].append((user, history, items[place]))
    return {part: sorted(found[part]) for part in PARTS}


def seconds(time):
    """A time as a number, None where it is none."""
    try:
        return float(time) if math.isfinite(float(time)) else None
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(time).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return None


def readable(header, rows, separator):
    """Whether the file is as it should be: then only its split can be refused."""
    if header != ["user_id:token", "item_id:token", "timestamp:float"] or not rows:
        return False
    cells = [cell for row in rows for cell in row]
    if any(separator in cell or cell.startswith('"') or cell in ("NA", "") for cell in cells):
        return False
    dates = {"-" in time[1:] for _, _, time in rows}
    return len(dates) == 1 and all(seconds(time) is not None for _, _, time in rows)


outcomes = {"split": 0, "refused": 0}


@given(datasets())
@examples(
    max_examples=500, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
def test_split_rows_equal_the_reference_or_the_file_is_refused(tmp_path_factory, dataset):
    header, rows, separator, changes = dataset
    folder = tmp_path_factory.getbasetemp() / "any"
    path = folder / "toy" / "toy.inter"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [separator.join(cells) for cells in [header, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        found = split(folder, field_separator=separator, **changes)
    except GenRecError as error:
        outcomes["refused"] += 1
        text = str(error)
        assert not re.search("AttributeError|KeyError|unpack|concatenate", text)
        assert "toy" in text
        if readable(header, rows, separator):
            # nothing is wrong with the file: a part of the split is empty
            assert not all(reference(rows, changes).values()), text
        else:
            assert re.search(r"toy\.inter, line \d+: ", text), text
    else:
        outcomes["split"] += 1
        assert readable(header, rows, separator)
        assert found == reference(rows, changes)


def test_both_outcomes_were_met():
    assert outcomes["split"] > 50 and outcomes["refused"] > 50
