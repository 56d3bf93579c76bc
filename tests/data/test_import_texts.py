"""Which columns of one's own tables become the item text, and which are left out."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from recbole_genrec.data.preparation.own.columns import Columns, item_column
from recbole_genrec.data.preparation.own.importing import ImportedData, import_tables
from recbole_genrec.data.preparation.own.tables import read_table
from recbole_genrec.errors import DataError


def write(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def clicks(**columns) -> list[dict]:
    """40 clicks of 4 users on 5 items; each column is a function of the click and the item."""
    rows = []
    for click in range(40):
        item = click % 5
        row = {"user": f"u{click % 4}", "sku": f"S{item}", "time": click}
        row.update({name: value(click, item) for name, value in columns.items()})
        rows.append(row)
    return rows


def imported(folder: Path, events: list[dict], texts=None, items=None) -> ImportedData:
    files = [write(folder / "clicks.csv", events)]
    if items is not None:
        files.append(write(folder / "items.csv", items))
    columns = Columns(texts=texts)
    return import_tables(files, "shop", columns, data_path=folder / "dataset")


def shown(result: ImportedData, start: str) -> str:
    """The note that begins so."""
    return next(note for note in result.notes if note.startswith(start))


def test_columns_of_single_clicks_are_no_item_text(tmp_path):
    events = clicks(
        type=lambda click, item: ("view", "buy")[click % 2],
        device=lambda click, item: ("mobile", "desktop")[click % 3 == 0],
        channel=lambda click, item: "web",
    )
    result = imported(tmp_path, events)
    assert result.texts == [] and result.described == 0
    assert not (tmp_path / "dataset/shop/shop.item").exists()
    note = shown(result, "not in the item text: ")
    assert "type (several values in 5 of 5 items)" in note
    assert "device (several values in 5 of 5 items)" in note
    assert "channel (the same for all items); --text=COLUMN" in note


def test_columns_with_one_value_an_item_are_its_text(tmp_path):
    events = clicks(
        event=lambda click, item: ("view", "buy")[click % 2],
        label=lambda click, item: "" if click < 7 else f"lamp {item}",
        title=lambda click, item: f"lamp {item}" if click else "lamp of old",
    )
    result = imported(tmp_path, events)
    assert result.texts == ["label"] and result.described == 5
    assert "title (several values in 1 of 5 items)" in shown(result, "not in the item text: ")


def test_a_column_that_is_asked_for_is_taken_and_its_values_counted(tmp_path):
    events = clicks(
        event=lambda click, item: ("view", "buy")[click % 2],
        label=lambda click, item: f"lamp {item}",
    )
    result = imported(tmp_path, events, texts=["event", "label"])
    assert result.texts == ["event", "label"]
    assert [note for note in result.notes if note.startswith("text: ")] == [
        "text: event has several values in 5 of 5 items; the first of them counts"
    ]


def items(**columns) -> list[dict]:
    return [
        {"sku": f"S{item}", **{name: value(item) for name, value in columns.items()}}
        for item in range(5)
    ]


IDS = {
    "asin": (lambda item: f"BXQZ{item}", "ids"),
    "parentSku": (lambda item: "PAR", "ids"),
    "vendor_code": (lambda item: "ACME", "ids"),
    "movieid": (lambda item: "abc", "ids"),
    "lot": (lambda item: f"lot-{item}", "ids"),
    "picture": (lambda item: f"https://img.example.com/{item}.jpg", "addresses"),
    "pictures": (lambda item: f"//a.b/{item}.jpg {item}b.png", "addresses"),
    "stock": (lambda item: str(item), "no words"),
}


@pytest.mark.parametrize("name", IDS)
def test_ids_and_addresses_are_no_item_text(tmp_path, name):
    cell, why = IDS[name]
    result = imported(tmp_path, clicks(), items=items(**{name: cell}))
    assert result.texts == []
    assert shown(result, "not in the item text: ").startswith(
        f"not in the item text: {name} ({why}); --text="
    )
    assert imported(tmp_path, clicks(), [name], items(**{name: cell})).texts == [name]


def test_words_are_item_text(tmp_path):
    table = items(
        product=lambda item: f"red lamp {item}",
        material=lambda item: "wood",
        asin=lambda item: f"B{item}",
    )
    assert imported(tmp_path, clicks(), items=table).texts == ["product", "material"]
    table = items(brand=lambda item: f"ac_me{item}", color=lambda item: "https://x.example/1")
    result = imported(tmp_path, clicks(), items=table)
    assert result.texts == ["brand"]
    assert "color (addresses)" in shown(result, "not in the item text: ")


def test_a_table_of_items_with_another_column_of_ids(tmp_path):
    table = read_table(write(tmp_path / "items.csv", [{"number": "1", "title": "a"}]))
    with pytest.raises(DataError, match=r"columns are number, title\. Say --item=COLUMN\.$"):
        item_column(table, Columns())
    with pytest.raises(DataError, match="none is called 'sku', as in the interactions"):
        item_column(table, Columns(item="sku"))
