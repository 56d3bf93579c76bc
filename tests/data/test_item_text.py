"""Item text: reading `.item` files that RecBole's own reader stumbles over, and rendering."""

from types import SimpleNamespace

import numpy as np
import pytest

from recbole_genrec.data.content import DEFAULT_CACHE, ItemContent
from recbole_genrec.data.files.atomic_files import FileFormat
from recbole_genrec.data.items.item_text import read_item_texts, render_item_text
from recbole_genrec.data.preparation.sources import recbole_folder
from recbole_genrec.data.vectors.text_encoding import TextEncoding
from recbole_genrec.errors import DataError

HEADER = "item_id:token\ttitle:token_seq\tbrand:token\tcategories:token_seq\n"


def write(tmp_path, content, name="toy.item"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_texts_follow_internal_ids_not_file_order(tmp_path):
    path = write(tmp_path, HEADER + "b\tSecond\tB\tX\na\tFirst\tA\tY\n")
    assert read_item_texts(path, ["title"], ["[PAD]", "a", "b"]).texts == ["", "First", "Second"]


def test_rendering_of_several_fields_skips_empty_ones_and_resolves_underscores(tmp_path):
    path = write(
        tmp_path, HEADER + "a\tOne  two\tsnake_case\tHair_Care Shampoo\nb\tOnly title\t\t\n"
    )
    result = read_item_texts(path, ["categories", "title", "brand"], ["[PAD]", "a", "b"])
    assert result.texts[1] == "categories: Hair Care Shampoo, title: One two, brand: snake_case"
    assert result.texts[2] == "title: Only title"
    assert read_item_texts(path, "title", ["[PAD]", "a"]).texts == ["", "One two"]


def test_a_new_item_is_rendered_by_the_types_of_the_file(tmp_path):
    path = write(tmp_path, HEADER + "a\tred_soap\tac_me\tx\n")
    fields = ["title", "brand"]
    result = read_item_texts(path, fields, ["[PAD]", "a"])
    assert result.kinds == {"title": "token_seq", "brand": "token"}
    cells = {"title": "red_soap", "brand": "ac_me"}
    assert render_item_text(cells, fields, result.kinds) == result.texts[1]
    assert render_item_text(cells, fields) == "title: red soap, brand: ac me"


def test_quotes_are_ordinary_characters(tmp_path):
    path = write(
        tmp_path, HEADER + 'a\t"Opened never closed\tB\tX\nb\t12" ruler\tB\tX\nc\t"Both"\tB\tX\n'
    )
    assert read_item_texts(path, ["title"], ["[PAD]", "a", "b", "c"]).texts[1:] == [
        '"Opened never closed',
        '12" ruler',
        '"Both"',
    ]


def test_byte_order_mark_crlf_nul_empty_lines_and_bad_bytes(tmp_path):
    raw = (
        b"\xef\xbb\xbfitem_id:token\ttitle:token_seq\r\n\r\n"
        b"a\tcaf\xe9 \xc3\xa9\r\n   \nb\tnu\x00l \xef\xbf\xbd\r\n"
    )
    result = read_item_texts(write(tmp_path, raw), ["title"], ["[PAD]", "a", "b"])
    assert result.texts == ["", "caf\ufffd é", "nul \ufffd"]
    assert result.table.replaced_characters == 1  # the second one is in the file


def test_counts_of_malformed_rows(tmp_path, caplog):
    path = write(
        tmp_path,
        HEADER + "a\tsame\na\tother\tB\tX\nb\tsame\tB\tX\tsurplus\nc\t \tB\tX\nunknown\tU\tB\tX\n",
    )
    with caplog.at_level("INFO"):
        result = read_item_texts(path, ["title"], ["[PAD]", "a", "b", "c", "d"])
    assert result.texts == ["", "same", "same", "item", "item"]
    table = result.table
    assert (table.short_rows, table.long_rows, table.duplicate_rows) == (1, 1, 1)
    assert (result.missing_rows, result.empty_texts, result.duplicate_texts) == (1, 2, 1)
    assert (
        "2 items without text (they become `item`)" in caplog.text
        and "1 items share" in caplog.text
    )


def test_header_cells_without_type_and_item_column_anywhere(tmp_path):
    path = write(tmp_path, "title\tiid:token\nfoo_bar\ta\n")
    assert read_item_texts(path, ["title"], ["[PAD]", "a"], item_field="iid").texts == [
        "",
        "foo_bar",
    ]


def test_columns_stand_where_field_separator_says(tmp_path):
    path = write(tmp_path, "item_id:token,title:token_seq\na,Red_soap\n")
    texts = read_item_texts(path, ["title"], ["[PAD]", "a"], file_format=FileFormat(","))
    assert texts.texts == ["", "Red soap"]


def test_ml_100k_of_the_recbole_package():
    path = recbole_folder() / "dataset_example" / "ml-100k" / "ml-100k.item"
    result = read_item_texts(path, ["movie_title", "release_year", "class"], ["[PAD]", "4", "1"])
    assert (
        result.texts[1] == "movie_title: Get Shorty, release_year: 1995, class: Action Comedy Drama"
    )
    assert result.texts[2].startswith(
        "movie_title: Toy Story, release_year: 1995, class: Animation Children's Comedy"
    )


@pytest.mark.parametrize(
    ("content", "fields", "tokens", "message"),
    [
        (
            None,
            ["title"],
            ["[PAD]", "a"],
            r"no item file .*toy\.item.*--data_path.*/toy\.item, or choose what needs no "
            r"item text",
        ),
        (
            HEADER,
            [],
            ["[PAD]", "a"],
            r"item_text_fields. is not set.*toy\.item are title, brand, categories: .*"
            r"--item_text_fields=\"\[title, brand, categories\]\", .*needs no item text: .*MetaID",
        ),
        (
            "item_id:token\t2024:token\n",
            None,
            ["[PAD]", "a"],
            r"--item_text_fields=\"\['2024'\]\"",
        ),
        (None, None, ["[PAD]", "a"], r"There is no item file .*toy\.item; write one with a column"),
        (
            "item_id:token\tv:float_seq\tprice:float\n",
            None,
            ["[PAD]", "a"],
            r"no column of texts .*v:float_seq, price:float\. "
            r".*those of v in place.*--item_vectors=.*toy\.item",
        ),
        (
            HEADER,
            ["titel"],
            ["[PAD]", "a"],
            r"`titel`, which is no column of .*item_id, title, brand, categories; did you "
            r"mean `title`",
        ),
        (
            "title:token\nx\n",
            ["title"],
            ["[PAD]", "a"],
            r"line 1 has no item id column `item_id:token`; its columns are title",
        ),
        (
            "item_id:token\tname:token\n",
            ["title"],
            ["[PAD]", "a"],
            r"`title`, which is no column of .*\. Its columns are item_id, name\.$",
        ),
        (
            "item_id:token,title:token_seq\na,Soap\n",
            ["title"],
            ["[PAD]", "a"],
            r"line 1: the columns are separated by ','.*field_separator=','.*need one separator",
        ),
        (
            "item_id:token;movie-title:token_seq\na;Soap\n",
            ["movie-title"],
            ["[PAD]", "a"],
            r"line 1: column 'item_id' has the type 'token;movie-title:token_seq'.*field_separator",
        ),
        (
            "item_id:token\ttitle:text\n",
            ["title"],
            ["[PAD]", "a"],
            r"line 1: column 'title' has the type 'text'; the types are token, token_seq",
        ),
        ("", ["title"], ["[PAD]", "a"], r"is empty: a header line"),
        (
            HEADER + "a\t\tB\t\n",
            ["title", "categories"],
            ["[PAD]", "a"],
            r"not one of the 1 items has text in title, categories \(1 of them",
        ),
        (
            HEADER + "B01\tfoo\tB\t\n",
            ["title"],
            ["[PAD]", "7", "8"],
            r"0 of them have a row; the ids look like '7', '8'",
        ),
    ],
)
def test_errors_say_what_where_and_what_to_do(tmp_path, content, fields, tokens, message):
    path = tmp_path / "toy.item"
    if content is not None:
        write(tmp_path, content)
    with pytest.raises(DataError, match=message):
        read_item_texts(path, fields, tokens)


class Config(dict):
    """Settings as keys and as attributes; those that are missing are None."""

    def __missing__(self, key):
        return None

    @property
    def settings(self):
        return self

    def __getattr__(self, name):
        return self[name]


def make_content(tmp_path, tokens=("[PAD]", "a", "b"), **keys):
    write(tmp_path, HEADER + "a\tFirst\tA\tX\nb\tSecond\tB\tY\n")
    dataset = SimpleNamespace(iid_field="item_id", field2id_token={"item_id": np.array(tokens)})
    return ItemContent.from_dataset(
        dataset,
        Config(
            data_path=str(tmp_path),
            dataset="toy",
            ITEM_ID_FIELD="item_id",
            item_text_fields=["title"],
            **keys,
        ),
    )


def test_content_from_dataset_is_lazy_and_encodes_once(tmp_path, monkeypatch):
    calls = []

    def fake(encoding, texts, cache_dir):
        calls.append((list(texts), encoding.encoder, cache_dir, encoding.device))
        return np.ones((len(texts), 2), dtype=np.float32)

    monkeypatch.setattr(TextEncoding, "vectors", fake)
    content = make_content(tmp_path, text_encoder="some/model", cache_dir="kept", device="cpu")
    assert (content.tokens, content.text, content.n_items) == (
        ["[PAD]", "a", "b"],
        ["", "First", "Second"],
        3,
    )
    assert all(type(token) is str for token in content.tokens)
    assert calls == []
    assert content.embeddings() is content.embeddings()
    assert calls == [(["", "First", "Second"], "some/model", "kept", "cpu")]


def test_a_checkpoint_keeps_the_types_of_the_text_columns(tmp_path):
    content = make_content(tmp_path)
    stored = content.stored(content.n_items)
    assert stored["text_kinds"] == {"title": "token_seq"}
    assert ItemContent.from_checkpoint(stored, Config()).text_kinds == {"title": "token_seq"}
    del stored["text_kinds"]
    assert ItemContent.from_checkpoint(stored, Config()).text_kinds == {}


def test_fingerprint_covers_ids_texts_and_their_order(tmp_path):
    content = make_content(tmp_path)
    assert content.fingerprint == make_content(tmp_path, text_encoder="other").fingerprint
    assert content.fingerprint != make_content(tmp_path, tokens=("[PAD]", "b", "a")).fingerprint
    assert (
        content.fingerprint
        != ItemContent(["[PAD]", "a", "b"], ["", "First", "Changed"]).fingerprint
    )
    assert content.encoding == TextEncoding()
    assert content.cache_dir == DEFAULT_CACHE


def test_content_needs_one_text_per_id():
    with pytest.raises(DataError, match="2 ids, 1 texts"):
        ItemContent(["[PAD]", "a"], [""])
