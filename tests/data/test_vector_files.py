"""Files of vectors: every form gives the same ids and numbers, and bad files are named."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.vectors.item_vectors import ItemVectors, item_vectors_identity
from recbole_genrec.data.vectors.vector_files import (
    files_of_vectors,
    has_other_columns,
    read_vectors,
)
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.storage.digests import digest, file_digest

IDS = ["i1", "007", "x y"]
ROWS = np.array([[1, 2.5], [-3, 0], [0.125, 4]], dtype=np.float32)


def lines(rows, separator=" ") -> str:
    texts = [separator.join(map(str, row)) for row in rows]
    return "\n".join(f"{token}\t{text}" for token, text in zip(IDS, texts, strict=True)) + "\n"


def frame() -> pd.DataFrame:
    columns = {"item_id": IDS, "d0": ROWS[:, 0], "d1": ROWS[:, 1]}
    return pd.DataFrame(columns)


def write(folder, form: str):
    """The vectors in one of the forms."""
    name, _, rest = form.partition(" ")
    file = folder / f"emb.{name}"
    if name == "npy":
        np.save(file, ROWS.astype(np.float64))
        ids = "\n".join(IDS)
        if rest.endswith("json"):
            ids = json.dumps(IDS)
        (folder / rest).write_text(ids)
    elif form == "parquet lists":
        pd.DataFrame({"item_id": IDS, "vector": ROWS.tolist()}).to_parquet(file)
    elif name == "parquet":
        frame().to_parquet(file)
    elif name == "csv":
        frame().to_csv(file, index=False)
    elif rest == "header":
        file.write_text("item_id:token\tvector:float_seq\n" + lines(ROWS))
    else:
        file.write_text(lines(ROWS, "\t" if rest == "tabs" else " "))
    return file


FORMS = ["npy emb.ids.txt", "npy emb.ids", "npy emb.txt", "npy emb.json"]
FORMS += ["parquet lists", "parquet columns", "csv", "tsv", "tsv header", "tsv tabs"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(tmp_path, form):
    ids, vectors = read_vectors(write(tmp_path, form))
    assert ids == IDS
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, ROWS)


def test_whole_numbers_are_ids(tmp_path):
    table = pd.DataFrame({"vector": ROWS.tolist(), "asin": [3, 1, 2]})
    table.to_parquet(tmp_path / "emb.parquet")
    assert read_vectors(tmp_path / "emb.parquet", "asin")[0] == ["3", "1", "2"]


# a file of RecBole's form beside other columns, its ids anywhere
@pytest.mark.parametrize(
    ("header", "row", "left_out"),
    [
        ("item_id:token\tvec:float_seq\tprice:float", "{id}\t{vector}\t99", "price"),
        ("price:float\tvec:float_seq\titem_id:token", "\t{vector}\t{id}", "price"),
        (
            "title:token_seq\titem_id:token\tvec:float_seq",
            "big 7 lamp\t{id}\t{vector}",
            "title",
        ),
        ("item_id:token\tx:float\tbrand:token\ty:float", "{id}\t{x}\t7\t{y}", "brand"),
        ('"item_id:token"\t"vec:float_seq"', '"{id}"\t{vector}', None),
    ],
)
def test_other_columns_are_no_part_of_the_vectors(tmp_path, caplog, header, row, left_out):
    caplog.set_level("INFO")
    written = [
        row.format(id=token, vector=f"{x} {y}", x=x, y=y)
        for token, (x, y) in zip(IDS, ROWS.tolist(), strict=True)
    ]
    file = tmp_path / "toy.item"
    file.write_text("\n".join([header, *written]) + "\n")
    ids, vectors = read_vectors(file)
    assert ids == IDS
    np.testing.assert_array_equal(vectors, ROWS)
    assert (f"left out: {left_out}." in caplog.text) == (left_out is not None)


def test_what_earlier_versions_made_of_other_columns_has_another_key(tmp_path):
    file = tmp_path / "toy.item"
    file.write_text("item_id:token\tvec:float_seq\tprice:float\ni1\t1 2\t3\n")
    assert has_other_columns(file)
    assert item_vectors_identity(str(file)) != digest([file_digest(file)])
    file.write_text("item_id:token\tvec:float_seq\ni1\t1 2\n")
    assert item_vectors_identity(str(file)) == digest([file_digest(file)])


V = {"v0": ROWS[:, 0].tolist(), "v1": ROWS[:, 1].tolist()}
IN_ORDER = {"item_id": IDS, **V}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("columns", "left_out"),
    [
        (IN_ORDER, None),
        ({"Unnamed: 0": [0, 1, 2], **IN_ORDER}, "Unnamed: 0"),
        ({**IN_ORDER, "price": [9, 8, 7], "title": ["a", "b", "c"]}, "price, title"),
        ({"v0": V["v0"], "asin": IDS, "v1": V["v1"]}, None),
        ({"index": [2, 0, 1], "0": V["v0"], "1": V["v1"], "item": IDS}, "index"),
        ({"item_id": IDS, "x": V["v0"], "y": V["v1"]}, None),
        ({"item_id": IDS, "v": V["v0"], "v1": V["v1"]}, None),
        ({"v": V["v0"], "v.1": V["v1"], "price": [9, 8, 7], "item": IDS}, "price"),
    ],
)
def test_other_columns_of_a_table_are_no_part_of_the_vectors(
    tmp_path, caplog, ending, columns, left_out
):
    caplog.set_level("INFO")
    file = tmp_path / f"emb.{ending}"
    table = pd.DataFrame(columns)
    if ending == "csv":
        table = table.rename(columns={"Unnamed: 0": ""})
        table.to_csv(file, index=False)
    else:
        table.to_parquet(file)
    ids, vectors = read_vectors(file)
    assert ids == IDS
    np.testing.assert_array_equal(vectors, ROWS)
    assert (f"left out: {left_out}." in caplog.text) == (left_out is not None)
    assert ("the vectors are all columns of numbers, x, y" in caplog.text) == ("x" in columns)
    assert has_other_columns(file) == (left_out is not None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item_id,img_0,img_1,txt_0,txt_1\na,1,2,3,4\n", "groups.*img_0, img_1; txt_0, txt_1"),
        ("item_id,v0,v1,v0,v1\na,1,2,3,4\n", r"groups.*v0, v0\.1; v1, v1\.1"),
        (",asin,v0,v1\n0,a,1,2\n", "in column asin or in the first one.*of the ids item_id"),
        ("item_id,,\na,1,2\n", "no columns with names beside the ids"),
    ],
)
def test_unsure_columns_of_a_table_are_named(tmp_path, text, message):
    (tmp_path / "emb.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_vectors(tmp_path / "emb.csv", "item_id")


def test_ids_of_a_table_may_be_its_index(tmp_path):
    by_id = pd.DataFrame(ROWS, index=IDS, columns=["0", "1"])
    by_id.to_csv(tmp_path / "emb.csv")
    by_id.to_parquet(tmp_path / "emb.parquet")
    numbers = pd.DataFrame(ROWS, index=pd.Index([3, 1, 2], name="asin"), columns=["0", "1"])
    numbers.to_parquet(tmp_path / "numbers.parquet")
    assert read_vectors(tmp_path / "emb.csv")[0] == IDS
    assert read_vectors(tmp_path / "emb.parquet")[0] == IDS
    assert read_vectors(tmp_path / "numbers.parquet")[0] == ["3", "1", "2"]
    chosen = frame().set_index(pd.Index([7, 8, 9]))  # what a filter leaves of row numbers
    chosen.to_parquet(tmp_path / "chosen.parquet")
    ids, vectors = read_vectors(tmp_path / "chosen.parquet")
    assert ids == IDS
    np.testing.assert_array_equal(vectors, ROWS)


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("ids", [[3, 1, 2], IDS])
def test_named_row_numbers_do_not_take_the_place_of_ids(tmp_path, lists, ids):
    vectors = {"vector": ROWS.tolist()} if lists else V
    table = pd.DataFrame({"movieId": ids, **vectors})
    file = tmp_path / "emb.parquet"
    table.set_index(pd.Index([0, 1, 2], name="row")).to_parquet(file)
    assert read_vectors(file)[0] == list(map(str, ids))
    np.testing.assert_array_equal(read_vectors(file)[1], ROWS)
    other = table.set_index(pd.Index([7, 8, 9], name="row"))
    other.to_parquet(file)
    with pytest.raises(DataError, match=r"in the index, row, or in column movieId.*ids item_id"):
        read_vectors(file)
    other.rename_axis("item_id").to_parquet(file)
    assert read_vectors(file)[0] == ["7", "8", "9"]


@pytest.mark.parametrize("name", ["emb", "dim2"])
def test_a_header_may_repeat_one_name(tmp_path, name):
    file = tmp_path / "emb.csv"
    file.write_text(f"asin,{name},{name},{name}\na,1,2,3\nb,4,5,6\n")
    ids, vectors = read_vectors(file)
    assert ids == ["a", "b"]
    np.testing.assert_array_equal(vectors, [[1, 2, 3], [4, 5, 6]])
    assert not has_other_columns(file)


def test_lists_may_stand_before_the_ids_and_beside_other_columns(tmp_path, caplog):
    caplog.set_level("INFO")
    table = pd.DataFrame({"vector": ROWS.tolist(), "asin": IDS, "price": [1, 2, 3]})
    table.to_parquet(tmp_path / "emb.parquet")
    ids, vectors = read_vectors(tmp_path / "emb.parquet")
    assert ids == IDS
    np.testing.assert_array_equal(vectors, ROWS)
    assert "the vectors are vector; left out: price." in caplog.text
    assert not has_other_columns(tmp_path / "emb.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item_id:token\ta:float_seq\tb:float_seq\ni1\t1 2\t3\n", r"float_seq \(a, b\)"),
        ("item_id:token\ta:token\tb:token\ni1\tx\ty\n", "no column of type float_seq"),
        ("item_id:token\tv:float_seq\tp:float\ni1\t1\t2\t3\n", "line 2: it has 4 cells"),
        ("p:float\titem_id:token\tv:float_seq\n1\ti1\n", "line 2: it has 2 cells"),
    ],
)
def test_unsure_columns_are_named(tmp_path, text, message):
    file = tmp_path / "toy.item"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_vectors(file)


@pytest.mark.parametrize(
    ("header", "id_column"),
    [("item_id,v0,v1", None), ("v0,item_id,v1", None), ("v0,v1,asin", "asin"), ("x,v0,v1", None)],
)
def test_ids_of_a_csv_file_keep_their_zeros_in_any_column(tmp_path, header, id_column):
    place = [not name.startswith("v") for name in header.split(",")].index(True)
    lines = [header]
    for token, row in zip(("007", "08"), ROWS.tolist(), strict=False):
        cells = list(map(str, row))
        lines.append(",".join([*cells[:place], token, *cells[place:]]))
    (tmp_path / "emb.csv").write_text("\n".join(lines) + "\n")
    ids, vectors = read_vectors(tmp_path / "emb.csv", id_column)
    assert ids == ["007", "08"]
    np.testing.assert_array_equal(vectors, ROWS[:2])


@pytest.mark.parametrize("text", ["v0,v1\n007,0.1,0.2\n", "item_id,v0\n007,0.1,0.2,0.3\n", ""])
def test_a_csv_file_without_a_whole_header_is_refused(tmp_path, text):
    (tmp_path / "emb.csv").write_text(text)
    with pytest.raises(DataError, match=r"emb\.csv .*header"):
        read_vectors(tmp_path / "emb.csv")


def bad_npy(folder, array, ids=IDS):
    np.save(folder / "emb.npy", array)
    (folder / "emb.ids").write_text("\n".join(ids))
    return folder / "emb.npy"


@pytest.mark.parametrize(
    ("array", "ids", "message"),
    [
        (ROWS[0], IDS, r"array of shape \[2\]"),
        (np.array([["a"]]), IDS[:1], "type <U1"),
        (ROWS, IDS[:2], "has 3 vectors, but there are 2 ids"),
        (ROWS, ["a", "b", "a"], "two vectors for 'a'"),
        (np.array([[1, np.inf]]), ["a"], "the vector of 'a' holds values"),
    ],
)
def test_a_bad_array_is_refused(tmp_path, array, ids, message):
    with pytest.raises(DataError, match=message):
        read_vectors(bad_npy(tmp_path, array, ids))


def test_an_array_without_ids_says_how_they_are_given(tmp_path):
    np.save(tmp_path / "emb.npy", ROWS)
    with pytest.raises(DataError, match=r"without the ids.*one id a line.*emb\.ids\.txt, emb\.ids"):
        read_vectors(tmp_path / "emb.npy")


def test_objects_in_an_array_are_never_unpickled(tmp_path):
    np.save(tmp_path / "emb.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "emb.ids").write_text("a")
    with pytest.raises(DataError, match="array of numbers that numpy.save wrote"):
        read_vectors(tmp_path / "emb.npy")


@pytest.mark.parametrize("name", ["emb.pkl", "emb.pt", "emb.npz"])
def test_pickles_are_refused_unread(tmp_path, name):
    with pytest.raises(DataError, match="vectors are not read from"):
        read_vectors(tmp_path / name)


@pytest.mark.parametrize("name", ["emb.npy", "emb.parquet", "emb.csv", "emb.tsv"])
def test_a_missing_file_is_named(tmp_path, name):
    (tmp_path / "emb.ids").write_text("a")
    with pytest.raises(DataError, match=rf"{name} cannot be read"):
        read_vectors(tmp_path / name)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item_id": ["a", "b"], "v": [[1.0], [1.0, 2.0]]}, "between 1 and 2 numbers"),
        ({"item_id": ["a", "b"], "v": [[1.0], [2.0]], "w": [[1.0], [2.0]]}, "several columns of l"),
        ({"item_id": ["a", "b"], "v": [1.0, 2.0], "title": ["x", "y"]}, "columns title hold no n"),
        ({"item_id": ["a", "b"]}, "Expected a column of ids"),
        ({"item_id": [0.5, 1.0], "v": [1.0, 2.0]}, "column item_id is taken for the ids"),
        ({"item_id": ["a", "a"], "v": [1.0, 2.0]}, "two vectors for 'a'"),
        ({"item_id": ["a", "b"], "v": [["x"], ["y"]]}, "column v cannot be used"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, columns, message):
    pd.DataFrame(columns).to_parquet(tmp_path / "emb.parquet")
    with pytest.raises(DataError, match=message):
        read_vectors(tmp_path / "emb.parquet")


@pytest.mark.parametrize("name", ["emb.parquet", "emb.npy"])
def test_a_damaged_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    (tmp_path / "emb.ids").write_text("a")
    with pytest.raises(DataError, match=f"{name} cannot be used"):
        read_vectors(tmp_path / name)


# --- items of the data ----------------------------------------------------------------------------


def test_items_without_a_vector_are_named_and_take_the_mean(tmp_path, caplog):
    vectors = ItemVectors(write(tmp_path, "tsv"))
    aligned = vectors.aligned(["[PAD]", "x y", "new", "i1"])
    assert "has no vector for 1 of 3 items (new). They take the mean" in caplog.text
    np.testing.assert_array_equal(aligned[[0, 1, 3]], [[0, 0], ROWS[2], ROWS[0]])
    np.testing.assert_allclose(aligned[2], (ROWS[0] + ROWS[2]) / 2)


def test_whole_ids_may_be_written_as_floats(tmp_path):
    (tmp_path / "emb.csv").write_text("item_id,v0,v1\n7.0,1,2\n8.0,3,4\n")
    vectors = ItemVectors(tmp_path / "emb.csv")
    np.testing.assert_array_equal(vectors.aligned(["[PAD]", "8", "7"])[1:], [[3, 4], [1, 2]])
    np.testing.assert_array_equal(vectors.aligned(["[PAD]", "8.0"])[1:], [[3, 4]])


def test_a_file_for_other_items_is_refused(tmp_path):
    vectors = ItemVectors(write(tmp_path, "tsv"))
    with pytest.raises(DataError, match=r"for 2 of 3 items \(a, b\); it has vectors for i1, 007"):
        vectors.aligned(["[PAD]", "a", "i1", "b"])


def test_read_vectors_are_kept_under_the_digest_of_the_file(tmp_path, monkeypatch):
    file = write(tmp_path, "npy emb.ids")
    make = {"id_column": "item_id", "cache_dir": tmp_path / "cache"}
    first = ItemVectors(file, **make).aligned(["[PAD]", *IDS])

    def refuse(*_):
        raise AssertionError("read again")

    with monkeypatch.context() as patched:
        patched.setattr("recbole_genrec.data.vectors.item_vectors.read_vectors", refuse)
        np.testing.assert_array_equal(ItemVectors(file, **make).aligned(["[PAD]", *IDS]), first)
    files_of_vectors(file)[1].write_text("\n".join(reversed(IDS)))
    changed = ItemVectors(file, **make).aligned(["[PAD]", *IDS])
    np.testing.assert_array_equal(changed[1:], ROWS[::-1])


def test_new_items_take_vectors_that_are_given_or_in_the_file(tmp_path):
    vectors = ItemVectors(write(tmp_path, "csv"))
    np.testing.assert_array_equal(vectors.of_new_items(["007"]), ROWS[1:2])
    np.testing.assert_array_equal(vectors.of_new_items(["new"], [[1, 2]]), [[1, 2]])
    with pytest.raises(ConfigError, match=r"1 of 2 new items have no vector .*\(new\)"):
        vectors.of_new_items(["i1", "new"])
    with pytest.raises(ConfigError, match=r"shape \[1, 3\].*shape \[1, 2\]"):
        vectors.of_new_items(["new"], [[1, 2, 3]])


def test_a_file_of_another_width_than_the_checkpoint_is_refused(tmp_path):
    vectors = ItemVectors(write(tmp_path, "csv"), known_width=3)
    message = r"emb\.csv has vectors of 2 numbers, those of the checkpoint have 3"
    with pytest.raises(ConfigError, match=message):
        vectors.of_new_items(["007"])
    with pytest.raises(ConfigError, match=message):
        vectors.aligned(["[PAD]", *IDS])
    np.testing.assert_array_equal(vectors.of_new_items(["new"], [[1, 2, 3]]), [[1, 2, 3]])


def test_vectors_of_added_items_stay_theirs_in_another_order(tmp_path):
    content = ItemContent(["[PAD]", "x y", "i1"], ["", "b", "a"])
    content.item_vectors = ItemVectors(write(tmp_path, "csv"))
    content.extend(["c"], ["a new one"])
    content.add_vectors([[9, 9]])
    ordered = content.by_raw_id()
    assert ordered.tokens == ["[PAD]", "a new one", "i1", "x y"]
    expected = [[0, 0], [9, 9], ROWS[0], ROWS[2]]
    np.testing.assert_array_equal(ordered.embeddings(), expected)
