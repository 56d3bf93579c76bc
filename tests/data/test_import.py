"""Tables of one's own: read in every form, counted, and run without further flags."""

from __future__ import annotations

import csv
import json
import random
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_genrec.cli import main
from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.choices import histories
from recbole_genrec.data.dataset import create_dataset
from recbole_genrec.data.preparation.own.columns import Columns
from recbole_genrec.data.preparation.own.importing import ImportOptions, import_tables
from recbole_genrec.data.preparation.own.times import read_times
from recbole_genrec.errors import ConfigError, DataError

TITLES = [
    'Lamp, "warm", oil dark',
    "Soap; soft\ttab",
    "Comb 'x'",
    '"Quoted" mirror',
    "Crème brûlée",
]
START = 1_700_000_000


def shop(n_users: int = 30, n_items: int = 24, seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Clicks in no order, seconds apart, and items with titles that need quotes."""
    draw = random.Random(seed)
    clicks = []
    for user in range(n_users):
        start = draw.randrange(n_items)
        for step in range(draw.randrange(5, 9)):
            item = (start + step) % n_items
            clicks.append(
                {"customer": f"c{user}", "sku": f"00{item}", "ts": START + 60 * step + user}
            )
    draw.shuffle(clicks)
    items = [
        {
            "sku": f"00{item}",
            "title": f"{TITLES[item % len(TITLES)]} {item}",
            "brand": f"brand {item % 3}",
            "price": f"{item}.50",
        }
        for item in range(n_items)
    ]
    return clicks, items


def write(path: Path, rows: list[dict]) -> Path:
    """The rows in the form that the ending names."""
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        path.write_text(text, encoding="utf-8")
    else:
        sign = {".csv": ",", ".tsv": "\t", ".txt": ";"}[path.suffix]
        with open(path, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter=sign)
            writer.writeheader()
            writer.writerows(rows)
    return path


def read_back(name: str = "shop", data_path: str = "dataset") -> dict[str, list[str]]:
    config = GenRecConfig("TIGER", name, config_dict={"data_path": data_path, "state": "error"})
    return histories(create_dataset(config))


def wanted(clicks: list[dict]) -> dict[str, list[str]]:
    by_user: dict[str, list[dict]] = {}
    for click in clicks:
        by_user.setdefault(click["customer"], []).append(click)
    return {
        user: [click["sku"] for click in sorted(rows, key=lambda click: click["ts"])]
        for user, rows in by_user.items()
    }


@pytest.mark.parametrize("ending", ["csv", "tsv", "txt", "parquet", "jsonl"])
def test_every_form_gives_the_same_dataset(tmp_path, ending):
    clicks, items = shop()
    files = [write(tmp_path / f"c.{ending}", clicks), write(tmp_path / f"i.{ending}", items)]
    done = import_tables(files, "shop", Columns("customer", "sku", "ts", None, ["title", "brand"]))
    assert done.rows == done.interactions == len(clicks) and not done.dropped
    assert read_back() == wanted(clicks)
    config = GenRecConfig("TIGER", "shop")
    assert config["item_text_fields"] == ["title", "brand"]
    from recbole_genrec.data.content import ItemContent

    content = ItemContent.from_dataset(create_dataset(config), config)
    titles = dict(zip(content.tokens, content.titles, strict=True))
    for item in items:
        if item["sku"] in titles:
            assert titles[item["sku"]] == " ".join(item["title"].split())


def test_columns_are_guessed_and_said(tmp_path, capsys):
    clicks, items = shop()
    files = [write(tmp_path / "items.csv", items), write(tmp_path / "clicks.csv", clicks)]
    assert main(["import", *map(str, files), "--name=shop"]) == 0
    shown = capsys.readouterr().out
    assert "user: customer (guessed; --user names another)" in shown
    assert "text: title,brand,price (guessed" in shown
    assert read_back() == wanted(clicks)


def test_what_cannot_be_guessed_is_asked_for(tmp_path, capsys):
    rows = [{"a": "u1", "b": "i1", "c": 1}]
    file = write(tmp_path / "x.csv", rows)
    assert main(["import", str(file), "--name=shop"]) == 2
    assert "No file has a column of users" in capsys.readouterr().err
    assert main(["import", str(file), "--name=shop", "--user=a"]) == 2
    assert "which column holds the items? Its columns are a, b, c" in capsys.readouterr().err
    assert main(["import", str(file), "--name=shop", "--user=a", "--item=d"]) == 2
    assert "has no column 'd', which --item names" in capsys.readouterr().err
    assert not Path("dataset").exists()


def test_dropped_rows_are_counted(tmp_path):
    rows = [
        {"user": f"u{n % 4}", "item": f"i{n % 6}", "time": n, "stars": n % 5} for n in range(40)
    ]
    rows += [
        {"user": "", "item": "i1", "time": 50, "stars": 5},
        {"user": "u1", "item": "NA", "time": 50, "stars": 5},
        {"user": "u1", "item": "i1", "time": "soon", "stars": 5},
    ]
    file = write(tmp_path / "x.csv", rows)
    with file.open("a") as stream:
        stream.write("u1,i1\n")
    columns = Columns(rating="stars")
    options = ImportOptions(k_core=2, repeated="first", min_rating=1)
    done = import_tables([file], "shop", columns, options)
    assert done.rows == 44
    assert done.dropped["no user"] == 1
    assert done.dropped["item_id that means a missing value"] == 1
    assert done.dropped["no time that can be read"] == 1
    assert done.dropped["stars below 1, or none"] == 8
    assert done.dropped["malformed row (it has 2 cells, the header has 4)"] == 1
    assert sum(done.dropped.values()) + done.interactions == done.rows
    assert "x.csv, line 45: u1,i1" in done.report()
    for items in read_back().values():
        assert len(items) == len(set(items)) >= 2


def test_a_folder_that_no_import_wrote_stays(tmp_path):
    clicks, items = shop()
    files = [write(tmp_path / "c.csv", clicks), write(tmp_path / "i.csv", items)]
    import_tables(files, "shop")
    import_tables(files, "shop")  # again is fine
    Path("dataset/shop/shop.yaml").unlink()
    with pytest.raises(DataError, match="holds files that no import wrote"):
        import_tables(files, "shop")
    with pytest.raises(ConfigError, match="must be the name of one folder"):
        import_tables(files, "../shop")
    with pytest.raises(ConfigError, match="prepare makes"):
        import_tables(files, "ml-100k")


def test_the_settings_of_a_dataset_lie_in_its_folder(tmp_path):
    clicks, items = shop()
    files = [write(tmp_path / "c.csv", clicks), write(tmp_path / "i.csv", items)]
    import_tables(files, "shop", data_path=tmp_path / "data")
    settings = tmp_path / "data" / "shop" / "shop.yaml"
    settings.write_text(settings.read_text() + "MAX_ITEM_LIST_LENGTH: 7\nTIGER: {epochs: 3}\n")
    changes = {"data_path": str(tmp_path / "data")}
    config = GenRecConfig("TIGER", "shop", config_dict=changes)
    assert config["MAX_ITEM_LIST_LENGTH"] == 7 and config["epochs"] == 3
    config = GenRecConfig("TIGER", "shop", config_dict={**changes, "epochs": 4})
    assert config["epochs"] == 4
    assert GenRecConfig("SASRec", "shop", config_dict=changes)["epochs"] != 3


def test_files_that_are_no_tables(tmp_path):
    for name, said in (("x.xlsx", "save the sheet as CSV"), ("x.parquet", "is no Parquet file")):
        (tmp_path / name).write_bytes(b"PK not a table")
        with pytest.raises(DataError, match=said):
            import_tables([tmp_path / name], "shop")
    (tmp_path / "x.jsonl").write_text('{"user": "a"\n')
    with pytest.raises(DataError, match="is no file of JSON lines"):
        import_tables([tmp_path / "x.jsonl"], "shop")
    (tmp_path / "x.json").write_text('["user", "item"]')
    with pytest.raises(DataError, match="entry 1 of the list must be a JSON object"):
        import_tables([tmp_path / "x.json"], "shop")
    (tmp_path / "x.json").write_bytes('{"user": "a", "item": "caf\u00e9"}'.encode("latin-1"))
    with pytest.raises(DataError, match="is not written in utf-8.*--encoding=latin-1"):
        import_tables([tmp_path / "x.json"], "shop")
    with pytest.raises(DataError, match="no encoding 'latin1000'"):
        import_tables([tmp_path / "x.json"], "shop", options=ImportOptions(encoding="latin1000"))
    with pytest.raises(DataError, match="does not exist"):
        import_tables([tmp_path / "nothing.csv"], "shop")


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


SMALL = ("--epochs=1", "--d_model=32", "--n_heads=2", "--codebook_sizes=[8,8]", "--beam_width=20")


def test_import_run_recommend_and_the_second_day(tmp_path, capsys):
    clicks, items = shop()
    files = [write(tmp_path / "clicks.csv", clicks), write(tmp_path / "items.csv", items)]
    command = ["import", *map(str, files), "--user=customer", "--item=sku", "--time=ts"]
    command += ["--text=title,brand,price", "--name=shop"]
    assert main(command) == 0
    assert main(["run", "--model=TimelineRec", "--dataset=shop", *SMALL]) == 0
    checkpoint = next(Path("saved").glob("TimelineRec-shop-*.pth"))
    recommend = ["recommend", f"--checkpoint={checkpoint}", "--top=5", "--exclude_seen"]
    assert main([*recommend, "--users=all", "--output=recs.parquet"]) == 0
    lists = pd.read_parquet("recs.parquet")
    assert lists.user_id.nunique() == 30
    seen = wanted(clicks)
    assert not any(row.item_id in seen[row.user_id] for row in lists.itertuples())

    # The second day: a new file of clicks, with a new item and a new customer.
    more = [{"customer": "c99", "sku": "0099", "ts": START + 9000}]
    more += [{"customer": "c99", "sku": "003", "ts": START + 9001}]
    more += [{"customer": "c1", "sku": "0099", "ts": START + 9002}]
    day = write(tmp_path / "day2.csv", more)
    new = [*items, {"sku": "0099", "title": "Lamp, new", "brand": "brand 1", "price": "1"}]
    write(tmp_path / "items.csv", new)
    assert main([*command, str(day)]) == 0
    assert main([*recommend, "--users=changed", "--output=recs.parquet"]) == 0
    assert "Lists of 2 users" in capsys.readouterr().out
    assert set(pd.read_parquet("recs.parquet").user_id) == {"c99", "c1"}
    assert main([*recommend, "--users=all", "--output=all.csv"]) == 0
    assert "0099" in set(pd.read_csv("all.csv", dtype=str).item_id)


def test_a_shop_without_texts(tmp_path):
    clicks, _ = shop()
    import_tables([write(tmp_path / "clicks.csv", clicks)], "bare")
    for model in ("TIGER", "TimelineRec"):
        assert GenRecConfig(model, "bare")["tokenizer"] == "cid"
    assert main(["run", "--model=TimelineRec", "--dataset=bare", *SMALL[:3], "--epochs=1"]) == 0
