"""Dataset preparation: every kind of source, what is written, and errors. The network is never
touched.
"""

import gzip
import json
import urllib.request
import zipfile

import pandas as pd
import pytest

from recbole_genrec.cli import main
from recbole_genrec.data.items.item_table import read_item_table
from recbole_genrec.data.items.item_text import read_item_texts
from recbole_genrec.data.known_datasets import RECIPES
from recbole_genrec.data.preparation import prepare, sources
from recbole_genrec.data.preparation.prepare import prepare_dataset
from recbole_genrec.errors import DataError

INTER_HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM_HEADER = (
    "item_id:token\ttitle:token\tsales_rank:float\tcategories:token_seq\tprice:float\tbrand:token\n"
)
BASE_TIME = 1_400_000_000


# A complete 5-core of 6 users x 5 items, later items first in the file, plus a weak user, a weak
# item and repeated pairs.
CORE_USERS, CORE_ITEMS = [f"U{n}" for n in range(6)], [f"B{n}" for n in range(5)]


def interactions():
    rows = [
        (user, item, BASE_TIME + 100 - n)
        for user in CORE_USERS
        for n, item in enumerate(CORE_ITEMS)
    ]
    rows += [
        ("U0", "B4", BASE_TIME + 200),
        ("U1", "B0", BASE_TIME),
    ]  # repeated pairs: the first stays, in time
    rows += [("WEAK", "B0", BASE_TIME), ("U0", "RARE", BASE_TIME)]
    return rows


def atomic_files(folder, stem="Amazon_Beauty"):
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{user}\t{item}\t5.0\t{time}\n" for user, item, time in interactions())
    (folder / f"{stem}.inter").write_text(INTER_HEADER + lines)
    (folder / f"{stem}.item").write_text(
        ITEM_HEADER
        + "B0\tRed &amp; Blue\t1\t'Beauty', 'Hair Care'\t3.5\tOPI\n"
        + 'B1\t"Say ""Hi"" 12"""\t\t"\'Beauty\', ""Women\'s Care"""\t\t\n'
        + "B3\tFour\t\t\t\t\nRARE\tNot kept\t\t\t\t\nNEVER\tNot bought\t\t\t\t\n"
    )
    return folder


def expected_frame():
    rows = []
    for user in CORE_USERS:
        order = ["B0", "B4", "B3", "B2", "B1"] if user == "U1" else ["B4", "B3", "B2", "B1", "B0"]
        rows += [(user, item, position) for position, item in enumerate(order, start=1)]
    return pd.DataFrame(rows, columns=["user_id:token", "item_id:token", "timestamp:float"])


def assert_prepared(data_path, name="amazon-beauty"):
    written = pd.read_csv(data_path / name / f"{name}.inter", sep="\t", dtype={0: str, 1: str})
    pd.testing.assert_frame_equal(written, expected_frame())
    assert sorted(path.name for path in (data_path / name).iterdir()) == [
        f"{name}.inter",
        f"{name}.item",
    ]


def test_atomic_folder(tmp_path):
    result = prepare_dataset("amazon-beauty", tmp_path / "data", atomic_files(tmp_path / "raw"))
    assert_prepared(tmp_path / "data")
    assert (result.users, result.items, result.interactions, result.text_items) == (6, 5, 30, 3)
    assert result.fields == ("title", "brand", "categories", "price")
    table = read_item_table(result.folder / "amazon-beauty.item")
    assert list(table.rows) == [
        "B3",
        "B1",
        "B0",
    ]  # order of the interactions, only items that are in them
    assert table.kinds == {
        "item_id": "token",
        "title": "token_seq",
        "brand": "token",
        "categories": "token_seq",
        "price": "token",
    }
    assert list(table.rows["B0"].values()) == ["B0", "Red & Blue", "OPI", "Beauty Hair_Care", "3.5"]
    assert list(table.rows["B1"].values()) == ["B1", "Say Hi 12", "", "Beauty Women's_Care", ""]
    texts = read_item_texts(
        result.folder / "amazon-beauty.item", ["title", "categories"], ["[PAD]", "B0", "B2"]
    )
    assert texts.texts[1:] == ["title: Red & Blue, categories: Beauty Hair Care", "item"]


def test_running_again_gives_the_same_files(tmp_path):
    raw = atomic_files(tmp_path / "raw")
    folder = prepare_dataset("amazon-beauty", tmp_path / "data", raw).folder
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    prepare_dataset("amazon-beauty", tmp_path / "data", raw)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_single_inter_file_and_folder_with_several(tmp_path):
    raw = atomic_files(tmp_path / "raw")
    atomic_files(raw, "Amazon_Sports")
    for source in (raw / "Amazon_Beauty.inter", raw):
        prepare_dataset("amazon-beauty", tmp_path / "data", source)
        assert_prepared(tmp_path / "data")
    with pytest.raises(
        DataError, match=r"several files.*Amazon_Beauty\.inter, Amazon_Sports\.inter.*one of them"
    ):
        prepare_dataset("amazon-toys", tmp_path / "data", raw)


def zip_of(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"inside/{file.name}")
    return path


def test_zip_as_source(tmp_path):
    archive = zip_of(atomic_files(tmp_path / "raw"), tmp_path / "mine.zip")
    prepare_dataset("amazon-beauty", tmp_path / "data", archive)
    assert_prepared(tmp_path / "data")
    archive.write_bytes(archive.read_bytes()[:60])
    with pytest.raises(DataError, match="no readable zip archive"):
        prepare_dataset("amazon-beauty", tmp_path / "data", archive)


def amazon_files(folder, python_literals, described=CORE_ITEMS):
    folder.mkdir()
    with gzip.open(folder / "reviews_Beauty_5.json.gz", "wt") as stream:
        for user, item, time in interactions():
            stream.write(
                json.dumps(
                    {"reviewerID": user, "asin": item, "unixReviewTime": time, "reviewText": "x"}
                )
                + "\n"
            )
    with gzip.open(folder / "meta_Beauty.json.gz", "wt") as stream:
        for item in described:
            record = {
                "asin": item,
                "title": f"It's {item}",
                "description": ["One", "<b>two</b>"],
                "price": 3.5,
                "extra": None,
            }
            record |= (
                {"categories": [["Beauty", "Hair Care"]]}
                if python_literals
                else {"category": ["Beauty", "Hair Care"]}
            )
            stream.write((repr(record) if python_literals else json.dumps(record)) + "\n")
    return folder


@pytest.mark.parametrize("python_literals", [True, False], ids=["2014", "2018"])
def test_amazon_reviews_and_metadata(tmp_path, python_literals):
    raw = amazon_files(tmp_path / "raw", python_literals)
    for source in (raw, raw / "reviews_Beauty_5.json.gz"):
        result = prepare_dataset("amazon-beauty", tmp_path / "data", source)
        assert_prepared(tmp_path / "data")
        assert result.fields == ("title", "categories", "price", "description")
        row = read_item_table(result.folder / "amazon-beauty.item").rows["B2"]
        assert list(row.values()) == ["B2", "It's B2", "Beauty Hair_Care", "3.5", "One two"]


def test_instruments_keep_only_items_with_metadata_before_the_core(tmp_path):
    raw = amazon_files(tmp_path / "raw", False, described=[*CORE_ITEMS, "RARE"])
    assert prepare_dataset("amazon-instruments", tmp_path / "data", raw).interactions == 30
    fewer = amazon_files(tmp_path / "fewer", False, described=CORE_ITEMS[:4])
    assert prepare_dataset("amazon-beauty", tmp_path / "data", fewer).interactions == 30
    with pytest.raises(DataError, match="nothing is left after the 5-core filter"):
        prepare_dataset("amazon-instruments", tmp_path / "data", fewer)


def test_source_without_item_text_warns_and_leaves_no_stale_item_file(tmp_path, caplog):
    raw = atomic_files(tmp_path / "raw")
    prepare_dataset("amazon-beauty", tmp_path / "data", raw)
    (raw / "Amazon_Beauty.item").unlink()
    result = prepare_dataset("amazon-beauty", tmp_path / "data", raw)
    assert [path.name for path in result.folder.iterdir()] == ["amazon-beauty.inter"]
    assert "no item text" in caplog.text and "use a tokenizer that needs no text" in result.report()


def test_ml_100k_comes_from_recbole_and_has_the_published_counts(tmp_path):
    result = prepare_dataset("ml-100k", tmp_path)
    assert (result.users, result.items, result.interactions) == (943, 1682, 100_000)
    assert result.as_published and result.report().endswith(
        "OK: the counts are the published ones."
    )
    raw = pd.read_csv(
        sources.recbole_folder() / "dataset_example/ml-100k/ml-100k.inter", sep="\t", dtype=str
    )
    raw.columns = ["user", "item", "rating", "time"]
    written = pd.read_csv(tmp_path / "ml-100k/ml-100k.inter", sep="\t", dtype=str)
    for user in ("196", "943"):
        reference = (
            raw[raw.user == user]
            .assign(time=lambda frame: frame.time.astype(int))
            .sort_values("time", kind="stable")
        )
        own = written[written["user_id:token"] == user]
        assert list(own["item_id:token"]) == list(reference.item)
        assert list(own["timestamp:float"]) == [str(n) for n in range(1, len(own) + 1)]
    texts = read_item_texts(
        tmp_path / "ml-100k/ml-100k.item", ["movie_title", "release_year", "class"], ["[PAD]", "1"]
    )
    assert (
        texts.texts[1]
        == "movie_title: Toy Story, release_year: 1995, class: Animation Children's Comedy"
    )


def test_download_goes_through_recbole_helpers(tmp_path, monkeypatch):
    archive = zip_of(atomic_files(tmp_path / "raw"), tmp_path / "Amazon_Beauty.zip")
    monkeypatch.setattr(
        prepare, "recbole_url", lambda name: {"amazon-beauty": archive.as_uri()}[name]
    )
    prepare_dataset("amazon-beauty", tmp_path / "data")
    assert_prepared(tmp_path / "data")


@pytest.mark.parametrize("failure", ["offline", "truncated"])
def test_failed_download_says_what_to_fetch_and_leaves_nothing(tmp_path, monkeypatch, failure):
    def no_network(*_):
        raise OSError("Name or service not known")

    if failure == "offline":
        monkeypatch.setattr(urllib.request, "urlopen", no_network)
        address = r"https://recbole\.s3-accelerate\.amazonaws\.com/.*Amazon_Beauty\.zip"
    else:
        archive = zip_of(atomic_files(tmp_path / "raw"), tmp_path / "Amazon_Beauty.zip")
        archive.write_bytes(archive.read_bytes()[:80])
        monkeypatch.setattr(prepare, "recbole_url", lambda _: archive.as_uri())
        address = "file://.*zip"
    with pytest.raises(
        DataError, match=address + r".*recbole-genrec prepare amazon-beauty --source=<that file>"
    ):
        prepare_dataset("amazon-beauty", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_every_recipe_is_in_recboles_table():
    for recipe in RECIPES.values():
        assert sources.recbole_url(recipe.recbole_name).endswith(".zip")


OWN = r".* Data of your own need no preparation: put NAME\.inter, .* into .*NAME\.$"
NEAR = r".* Did you mean amazon-beauty\?" + OWN


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("../evil", OWN),
        ("/etc", OWN),
        ("", OWN),
        ("amazon-beauty/../x", NEAR),
        ("amazon-beuaty", NEAR),
    ],
)
def test_unknown_names_and_paths_are_refused(tmp_path, name, advice):
    with pytest.raises(
        DataError, match=f"no dataset that can be prepared: amazon-beauty, {advice}"
    ):
        prepare_dataset(name, tmp_path / "data", atomic_files(tmp_path / "raw"))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            INTER_HEADER + "u\ti\t5\tyesterday\n",
            r"interaction 1 .*'yesterday'.*number as its time \(1 such rows\)",
        ),
        (
            INTER_HEADER + "u\ti\t5\t7\nu\t\t5\t7\n",
            "interaction 2 .*needs a user id and an item id",
        ),
        (INTER_HEADER + 'u\ti\t5\t7\nu\t"i\t5\t7\n', "interaction 2 .*without quotes"),
        (INTER_HEADER + "u\ti\n", "interaction 1 "),
        (
            "user_id:token\titem_id:token\nu\ti\n",
            "line 1 has no column timestamp; its columns are user_id, item_id",
        ),
        ("", "no tab separated file"),
        (INTER_HEADER, "nothing is left after the 5-core"),
    ],
)
def test_malformed_interactions(tmp_path, lines, message):
    path = tmp_path / "raw.inter"
    path.write_text(lines)
    with pytest.raises(DataError, match=message):
        prepare_dataset("amazon-beauty", tmp_path / "data", path)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"reviewerID": "u", "asin": "i"', "line 2 is neither JSON nor a Python dictionary"),
        ("__import__('os').getcwd()", "line 2 is neither JSON nor a Python dictionary"),
        ("[1]", "line 2 is no record but list"),
        ('{"user": "u"}', "interaction 2 "),
    ],
)
def test_malformed_reviews(tmp_path, line, message):
    path = tmp_path / "reviews.json"
    path.write_text(
        json.dumps({"reviewerID": "u", "asin": "i", "unixReviewTime": 1}) + "\n" + line + "\n"
    )
    with pytest.raises(DataError, match=message):
        prepare_dataset("amazon-beauty", tmp_path / "data", path)


def test_cells_at_the_end_of_every_line_do_not_shift_the_columns(tmp_path):
    raw = atomic_files(tmp_path / "raw")
    path = raw / "Amazon_Beauty.inter"
    path.write_text(
        path.read_text().replace("\n", "\t\n").replace("timestamp:float\t", "timestamp:float")
    )
    prepare_dataset("amazon-beauty", tmp_path / "data", raw)
    assert_prepared(tmp_path / "data")


def test_unusable_sources(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "broken.json.gz").write_bytes(gzip.compress(b"{}" * 999)[:-9])
    inside = atomic_files(tmp_path / "data" / "amazon-beauty")
    for source, message in [
        (tmp_path / "absent", "does not exist"),
        (tmp_path / "absent.zip", "no readable zip archive"),
        (tmp_path / "empty", "holds neither a .inter file"),
        (tmp_path / "notes.txt", "must be a .inter file"),
        (tmp_path / "broken.json.gz", "cannot be read"),
        (inside, "where the prepared files are written"),
        (inside / "Amazon_Beauty.inter", "where the prepared files are written"),
    ]:
        with pytest.raises(DataError, match=message):
            prepare_dataset("amazon-beauty", tmp_path / "data", source)


def test_command_prints_counts_beside_the_published_ones(tmp_path, capsys):
    raw = atomic_files(tmp_path / "raw")
    assert main(["prepare", "amazon-beauty", f"--data_path={tmp_path}", f"--source={raw}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["amazon-beauty", "prepared", "published", "difference"]
    assert lines[1].split() == ["users", "6", "22,363", "-22,357"]
    assert lines[3].split() == ["interactions", "30", "198,502", "-198,472"]
    assert lines[-1].startswith("WARNING: the counts differ")
