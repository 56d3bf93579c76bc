"""Tables of one's own: read in every form, counted, and run without further flags."""

from __future__ import annotations

import csv
import json
import random
import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from recbole_genrec.cli import main
from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.dataset import create_dataset
from recbole_genrec.data.histories.choices import histories
from recbole_genrec.data.preparation.own.columns import Columns
from recbole_genrec.data.preparation.own.importing import ImportOptions, import_tables
from recbole_genrec.data.preparation.own.tables import read_table
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.experiments.loading import load_model
from recbole_genrec.serving.new_items import columns_of_fields
from recbole_genrec.settings.parsing import read_yaml

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


@pytest.mark.parametrize("first", [START * 10**9, 20240105103000000])
def test_times_finer_than_float64_keep_their_order(tmp_path, first):
    """Nanoseconds, and milliseconds at the end of dates."""
    clicks, _ = shop()
    for click in clicks:
        click["ts"] = str(first + (click["ts"] - START) // 60)
    columns = Columns("customer", "sku", "ts", None, [])
    import_tables([write(tmp_path / "c.csv", clicks)], "shop", columns)
    assert read_back() == wanted(clicks)


def test_dates_down_to_nanoseconds_keep_their_order(tmp_path):
    clicks, _ = shop()
    for click in clicks:
        click["ts"] = f"2024-01-05T10:30:00.123456{click['ts'] - START:03d}"
    columns = Columns("customer", "sku", "ts", None, [])
    import_tables([write(tmp_path / "c.csv", clicks)], "shop", columns)
    assert read_back() == wanted(clicks)


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


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_two_columns_of_one_name_are_refused(tmp_path, ending):
    file = tmp_path / f"c.{ending}"
    if ending == "csv":
        file.write_text("user,item,item\nu,i,j\n")
    else:
        columns = [pa.array([cell]) for cell in "uij"]
        pq.write_table(pa.Table.from_arrays(columns, ["user", "item", "item"]), file)
    with pytest.raises(DataError, match=rf"c\.{ending}.*: there are several columns item"):
        import_tables([file], "shop")


def test_times_are_judged_file_by_file(tmp_path, capsys):
    days = [{"user": f"u{n}", "item": "i1", "time": f"{n + 10}.05.2024 10:00"} for n in range(9)]
    other = [{"user": "u1", "item": "i2", "time": "2024-05-30 10:00"}]
    files = [write(tmp_path / "a.csv", days), write(tmp_path / "b.csv", other)]
    for order in (files, files[::-1]):
        assert main(["import", *map(str, order), "--name=shop"]) == 2
        assert "1 of 1 times in time of" in capsys.readouterr().err
    empty = [{"user": "u1", "item": "i2", "time": ""}, {"user": "u1", "item": "i3", "time": ""}]
    write(tmp_path / "b.csv", [*empty, days[0]])
    assert main(["import", *map(str, files), "--name=shop"]) == 0
    assert re.search(r"no time that can be read +2\b", capsys.readouterr().out)
    write(tmp_path / "b.csv", [*empty * 6, days[0]])
    assert main(["import", *map(str, files), "--name=other"]) == 2
    assert "12 of 22 rows have no time in time" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_file_of_malformed_rows_is_refused(tmp_path, ending, capsys):
    file = tmp_path / f"x.{ending}"
    bad = {"csv": "u1,i1,more", "jsonl": "not json"}[ending]
    good = {"csv": "u2,i2", "jsonl": '{"user": "u2", "item": "i2"}'}[ending]
    head = ["user,item"] if ending == "csv" else []
    file.write_text("\n".join([*head, bad, good, bad]) + "\n")
    assert main(["import", str(file), "--name=shop"]) == 2
    assert "2 of 3 rows of" in capsys.readouterr().err
    file.write_text("\n".join([*head, bad, good, good]) + "\n")
    assert main(["import", str(file), "--name=shop"]) == 0
    shown = capsys.readouterr().out
    assert "malformed row" in shown
    assert "users have fewer than 3 interactions" in shown


def test_a_file_named_twice_is_refused(tmp_path, capsys):
    file = write(tmp_path / "x.csv", [{"user": "u1", "item": "i1"}])
    again = tmp_path / "." / "x.csv"
    assert main(["import", str(file), str(again), "--name=shop"]) == 2
    assert "x.csv is named twice" in capsys.readouterr().err


def renamed(rows: list[dict], **names: str) -> list[dict]:
    return [{names.get(key, key): value for key, value in row.items()} for row in rows]


def test_a_column_has_other_names_in_other_files(tmp_path, capsys):
    clicks, items = shop()
    half = len(clicks) // 2
    later = renamed(clicks[half:], customer="client", sku="code", ts="bought_on")
    files = [
        write(tmp_path / "clicks.csv", clicks[:half]),
        write(tmp_path / "orders.parquet", later),
        write(tmp_path / "products.jsonl", renamed(items, sku="code")),
    ]
    command = ["import", *map(str, files), "--name=shop", "--user=customer,client"]
    assert main([*command, "--item=sku,code", "--time=ts,bought_on", "--text=title"]) == 0
    assert read_back() == wanted(clicks)
    assert f"{'items with a text':<52}{24:>12,}" in capsys.readouterr().out

    both = [*command, "--item=sku,code", "--time=ts,bought_on", "--text=title,code"]
    assert main(both) == 0 and read_back() == wanted(clicks)
    assert main([*command, "--item=sku,cod", "--time=ts,bought_on"]) == 2
    assert "No file has a column 'cod', which --item names. The" in capsys.readouterr().err
    assert main(["import", *map(str, files), "--name=shop", "--user=customer,client"]) == 2
    assert "for two names of one say --item=sku,OTHER" in capsys.readouterr().err


def test_the_name_of_a_column_may_hold_a_comma(tmp_path):
    clicks, _ = shop()
    file = write(
        tmp_path / "clicks.csv",
        [
            {"SKU, internal" if key == "sku" else key: value for key, value in click.items()}
            for click in clicks
        ],
    )
    import_tables([file], "shop", Columns("customer", "SKU, internal", "ts"))
    assert read_back() == wanted(clicks)


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


@pytest.mark.parametrize("name", ["2024", "true", "None", "1e3", "1.5", "1_000", "0x10", "-5"])
def test_a_name_that_run_would_not_take_for_a_word(tmp_path, name, capsys):
    file = write(tmp_path / "c.csv", shop()[0])
    assert main(["import", str(file), f"--name={name}"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert f"--name={name} reads as" in shown and f"as in shop-{name}" in shown
    assert not Path("dataset").exists()
    import_tables([file], f"shop-{name}")
    assert main(["run", "--model=TIGER", f"--dataset={name}"]) == 2  # else any name may be imported
    assert GenRecConfig(argv=["--model=TIGER", f"--dataset=shop-{name}"]).dataset == f"shop-{name}"


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (["a", "b", "x0"], "Write one item a row; explode the list first"),
        ([], "Write one item a row; explode the list first"),
        ({"id": "a"}, "Write the id of the item into a column of its own"),
        (True, "Name the column of ids with --item"),
        (b"a", "Write the ids as texts"),
    ],
)
def test_an_id_is_one_text_or_number(tmp_path, ending, cell, said):
    if ending == "jsonl" and isinstance(cell, bytes):
        return
    rows = [{"user": "u1", "sku": cell}, {"user": "u1", "sku": cell}]
    file = write(tmp_path / f"x.{ending}", rows)
    with pytest.raises(DataError, match=rf"x\.{ending}, line 1: sku holds .* {said}"):
        import_tables([file], "shop")
    described = write(tmp_path / f"items.{ending}", [{"sku": cell, "title": "lamp"}])
    clicks = write(tmp_path / "c.csv", [{"user": "u1", "sku": "a"}])
    with pytest.raises(DataError, match=rf"items\.{ending}, line 1: sku holds .* {said}"):
        import_tables([clicks, described], "shop")


def test_the_line_of_a_list_in_place_of_an_id(tmp_path):
    rows = [{"user": "u1", "sku": "a"}, {"user": ["u1"], "sku": "b"}]
    with pytest.raises(DataError, match="line 2: user holds .*'u1'.* a list, .* one user a row"):
        import_tables([write(tmp_path / "x.jsonl", rows)], "shop")


def test_whole_numbers_and_texts_are_ids(tmp_path):
    ids = ["a b", 3, 3.0, "3.0", 10**17]
    rows = [{"user": "u1", "sku": sku} for sku in [*ids, None]]
    done = import_tables([write(tmp_path / "x.jsonl", rows)], "shop")
    assert done.dropped == {"no item": 1}
    assert read_back()["u1"] == ["a b", "3", "3", "3.0", str(10**17)]


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


def test_keys_of_the_user_stay_when_an_import_is_repeated(tmp_path):
    clicks, items = shop()
    files = [write(tmp_path / "c.csv", clicks), write(tmp_path / "i.csv", items)]
    settings = Path("dataset/shop/shop.yaml")
    import_tables(files[:1], "shop")
    written = settings.read_text().replace("cid", "cid\n  epochs: 3", 1)
    settings.write_text(f"{written}# the shop's own\nexclude_history: true\n")
    before = settings.read_text()
    assert "kept in shop.yaml: TIGER, exclude_history" in import_tables(files[:1], "shop").report()
    assert settings.read_text() == before

    import_tables(files, "shop")  # the items have texts by now
    fields = ["title", "brand", "price"]
    kept = {"TIGER": {"epochs": 3}, "exclude_history": True}
    assert read_yaml(settings) == {"item_text_fields": fields, **kept}
    settings.write_text(f"{settings.read_text()}topk: [\n")
    with pytest.raises(ConfigError, match=r"shop\.yaml cannot be read"):
        import_tables(files, "shop")


def test_files_that_are_no_tables(tmp_path):
    for name, said in (("x.xlsx", "save the sheet as CSV"), ("x.parquet", "is no Parquet file")):
        (tmp_path / name).write_bytes(b"PK not a table")
        with pytest.raises(DataError, match=said):
            import_tables([tmp_path / name], "shop")
    (tmp_path / "x.jsonl").write_text('{"user": "a"\n')
    with pytest.raises(DataError, match="1 of 1 rows of .*no JSON object"):
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


def test_add_items_finds_the_columns_that_import_renamed(tmp_path, capsys):
    clicks, items = shop()
    items = [
        {"sku": row["sku"], "Product Name": row["title"], "brand": row["brand"]} for row in items
    ]
    files = [write(tmp_path / "clicks.csv", clicks), write(tmp_path / "items.csv", items)]
    import_tables(files, "shop", Columns(texts=["Product Name", "brand"]))
    assert main(["run", "--model=TimelineRec", "--dataset=shop", *SMALL]) == 0
    checkpoint = next(Path("saved").glob("TimelineRec-shop-*.pth"))
    new = {"sku": "0099", "Product Name": "Lamp, new", "brand": "brand 1"}
    command = ["add-items", f"--checkpoint={checkpoint}", "--output=grown.pth"]
    assert main([*command, f"--items={write(tmp_path / 'new.csv', [new])}"]) == 0
    assert "has no column" not in capsys.readouterr().out
    content = load_model("grown.pth").model.content
    assert content.text[-1] == "Product_Name: Lamp, new, brand: brand 1"


def test_columns_of_new_items(tmp_path):
    def found(header: dict, fields: list[str]) -> dict[str, str | None]:
        return columns_of_fields(read_table(write(tmp_path / "new.csv", [header])), fields)

    fields = ["Product_Name", "timestamp_text", "brand"]
    row = {"sku": 1, "Product Name": "a", "timestamp": "b", "brand": "c"}
    assert list(found(row, fields).values()) == ["Product Name", "timestamp", "brand"]
    stored = {"item_id": 1, "Product_Name": "a", "timestamp_text": "b"}
    assert list(found(stored, fields).values()) == ["Product_Name", "timestamp_text", None]
    with pytest.raises(
        DataError, match="several columns .* Product_Name: 'Product Name', 'Product_"
    ):
        found({**row, "Product_Name": "d"}, fields)
    with pytest.raises(DataError, match="has none of the columns .* its columns are sku, Brand"):
        found({"sku": 1, "Brand": "c"}, fields)
