"""Published code words: an index JSON is read as ``tokenizer: F``, or refused in words."""

from __future__ import annotations

import json
import logging
import os

import pytest
from toy import toy_config, toy_model, write_dataset

from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.experiments.stages import start_summary
from recbole_genrec.model.registry import get_model_class
from recbole_genrec.tokenizer import make_tokenizer

N = 40


def words(number: int) -> list[str]:
    """Unique words of an item: two levels of eight codes and one of two."""
    return [f"<a_{number % 8}>", f"<b_{number // 8}>", f"<c_{number % 2}>"]


def words_as_numbers(number: int) -> list[int]:
    return [number % 8, number // 8, number % 2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def write_index(folder, content, name="toy.index.json") -> str:
    file = folder / name
    file.write_text(json.dumps(content))
    return str(file)


def model_of(data, tmp_path, file, model="TIGER", **options):
    cache = str(tmp_path / "cache")
    return toy_model(data, model, tokenizer=file, cache_dir=cache, **options)


def read_codes(model) -> dict[str, list[int]]:
    return {item: model.codes[row].tolist() for row, item in enumerate(model.item_tokens)}


EXPECTED = {f"i{n}": words_as_numbers(n) for n in range(N)}


# case 51
@pytest.mark.parametrize("form", ["words", "one text", "numbers"])
def test_code_words_by_raw_id(data, tmp_path, form):
    make = {
        "words": words,
        "one text": lambda n: "".join(words(n)),
        "numbers": words_as_numbers,
    }[form]
    file = write_index(tmp_path, {f"i{n}": make(n) for n in range(N)})
    model, config, loaders = model_of(data, tmp_path, file)
    codes = read_codes(model)
    assert codes.pop("[PAD]") == [0, 0, 0]
    assert codes == EXPECTED
    assert model.level_sizes == (8, 5, 2)
    assert f"tokenizer           {file}\n" in start_summary(config, loaders[0]._dataset)
    assert model.report()["tokenizer"]["codebook_sizes_asked"] is None


def test_each_run_says_that_the_codes_were_learned_elsewhere(data, tmp_path, caplog):
    file = write_index(tmp_path, {f"i{n}": words(n) for n in range(N)})
    for again in (False, True):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            model_of(data, tmp_path, file)
        assert again == ("not fitted again" in caplog.text)
        assert caplog.text.count("These codes were learned elsewhere, perhaps from the inter") == 1


def test_numbers_with_the_file_of_raw_ids_that_lcrec_publishes(data, tmp_path, caplog):
    file = write_index(tmp_path, {str(N - n): words(n) for n in range(N + 1)})
    lines = [f"i{n}\t{N - n}" for n in range(N)]
    (tmp_path / "toy.item2id").write_text("\n".join([*lines, "sold out\t0"]) + "\n")
    with caplog.at_level(logging.INFO):
        model = model_of(data, tmp_path, file)[0]
    codes = read_codes(model)
    codes.pop("[PAD]")
    assert codes == EXPECTED
    assert "1 items that are not in the data are left out" in caplog.text


def test_a_number_without_a_line_is_no_raw_id(tmp_path, caplog):
    """Raw ids are numbers too: number 1 belongs to another item than raw id 1."""
    file = write_index(tmp_path, {str(n): words(n) for n in range(4)})
    (tmp_path / "toy.item2id").write_text("1\t0\n7\t2\nsold out\t3\n")
    content = ItemContent(["[PAD]", "7", "1"], ["", "7", "1"])
    with caplog.at_level(logging.INFO):
        codes = make_tokenizer({"tokenizer": file, "collision": None}, 1).fit(content)
    assert codes.codes.tolist() == [[0, 0, 0], words_as_numbers(2), words_as_numbers(0)]
    assert "2 items that are not in the data are left out, 1 of them without a line" in caplog.text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("i0\t0\ni0\t1\n", r"toy\.item2id, line 2: expected .* which no other line has"),
        ("i0\t0\ni1\t0\n", r"toy\.item2id, line 2: expected .* which no other line has"),
        ("i0\t0\n", r"39 of 40 items .*first items are 0, i1, i2.*take that file away"),
    ],
)
def test_a_file_of_raw_ids_that_does_not_fit_is_refused(data, tmp_path, lines, message):
    file = write_index(tmp_path, {f"i{n}" if n else "0": words(n) for n in range(N)})
    (tmp_path / "toy.item2id").write_text(lines)
    with pytest.raises(DataError, match=message):
        model_of(data, tmp_path, file)


# case 51
def test_numbers_without_raw_ids_are_refused(data, tmp_path):
    file = write_index(tmp_path, {str(n): words(n) for n in range(N)})
    with pytest.raises(
        DataError,
        match=r"no code words for 40 of 40 items .*first items are 0, 1, 2.*Put toy.item2id beside",
    ):
        model_of(data, tmp_path, file)


def test_items_without_code_words_are_named(data, tmp_path):
    file = write_index(tmp_path, {f"i{n}": words(n) for n in range(N) if n != 7})
    with pytest.raises(DataError, match=r"for 1 of 40 items of the data \(i7\)"):
        model_of(data, tmp_path, file)


def test_items_that_share_code_words_get_an_extra_token(data, tmp_path, caplog):
    index = {f"i{n}": words(n) for n in range(N)}
    index["i1"] = index["i0"]
    with caplog.at_level(logging.WARNING):
        model = model_of(data, tmp_path, write_index(tmp_path, index))[0]
    assert "2 of 40 items share all code words" in caplog.text
    codes = read_codes(model)
    assert codes["i0"][:3] == codes["i1"][:3] and codes["i0"] != codes["i1"]


def test_items_share_their_codes_where_the_paper_says_so(data, tmp_path, caplog):
    """LETTER: four code words an item, published with duplicates."""
    index = {f"i{n}": words(n) for n in range(N)}
    index["i1"] = index["i0"]
    file = write_index(tmp_path, index)
    with caplog.at_level(logging.WARNING):
        model = model_of(data, tmp_path, file, collision=["sinkhorn"])[0]
    assert "2 of 40 items share all code words with another item; they keep them" in caplog.text
    codes = read_codes(model)
    assert codes == {**EXPECTED, "[PAD]": [0, 0, 0], "i1": EXPECTED["i0"]}
    assert model.trie.leaf_width == 2
    again = model_of(data, tmp_path, file)[0]
    assert again.codes.shape[1] == 4, "another key, another result"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "holds no items. Expected"),
        ("{", "is no JSON file"),
        ('{"i0": ["<a_1>"], "i0": ["<a_2>"]}', "names the item 'i0' twice"),
    ],
)
def test_other_files_are_refused(data, tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=message):
        model_of(data, tmp_path, str(tmp_path / "x.json"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["<a_1>", "<b_2>"], "item 'i9' has the code words .* have 3 words of the levels a, b, c"),
        (["<a_1>", "<c_2>", "<b_0>"], "item 'i9' has the code words"),
        (["<a_1>", "<b_x>", "<c_0>"], "item 'i9' has the code word '<b_x>'"),
        (["<a_1>", "<b_2>", -1], "item 'i9' has the code word -1"),
        (7, "item 'i9' has the code words 7"),
        ([], "item 'i9' has the code words"),
    ],
)
def test_a_bad_entry_is_named_with_its_item(data, tmp_path, entry, message):
    index = {f"i{n}": words(n) for n in range(N)}
    file = write_index(tmp_path, {**index, "i9": entry})
    with pytest.raises(DataError, match=message):
        model_of(data, tmp_path, file)


def test_a_missing_file_is_named(data, tmp_path):
    with pytest.raises(DataError, match=r"gone\.json cannot be read"):
        model_of(data, tmp_path, str(tmp_path / "gone.json"))


def test_a_changed_file_gives_another_run_and_other_codes(data, tmp_path):
    index = {f"i{n}": words(n) for n in range(N)}
    file = write_index(tmp_path, index)
    first, config, _ = model_of(data, tmp_path, file)
    before = config.run_name()
    index["i0"], index["i1"] = index["i1"], index["i0"]
    write_index(tmp_path, index)
    second = model_of(data, tmp_path, file)[0]
    assert config.run_name() != before
    assert read_codes(second)["i0"] == read_codes(first)["i1"]


def test_new_items_have_no_codes(data, tmp_path):
    file = write_index(tmp_path, {f"i{n}": words(n) for n in range(N)})
    model = model_of(data, tmp_path, file)[0]
    with pytest.raises(ConfigError, match="holds codes and no rule for new items"):
        model.add_items(["a new soap"])


def test_a_checkpoint_needs_no_index_file(data, tmp_path):
    file = write_index(tmp_path, {f"i{n}": words(n) for n in range(N)})
    model, *_ = model_of(data, tmp_path, file, model="TimelineRec")
    state = model.checkpoint()
    os.remove(file)
    config = toy_config(data, "TimelineRec", tokenizer=file, cache_dir=str(tmp_path / "cache"))
    train = make_loaders(config, create_dataset(config), True)[0]
    loaded = get_model_class("TimelineRec").from_checkpoint(config, train._dataset, state)
    assert read_codes(loaded) == read_codes(model)
