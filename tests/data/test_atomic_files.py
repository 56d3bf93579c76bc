"""One reader for ``.inter`` and ``.item``: separator x quotes x encoding x byte order mark."""

from __future__ import annotations

import codecs
import csv
import io
import itertools

import pytest

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.errors import ConfigError, DataError, GenRecError

SEPARATORS = ["\t", ",", ";", "|", "::", "||"]
QUOTING = ["never", "where needed", "always"]
ENCODINGS = ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "gbk", "shift_jis"]
PLAIN = ["Lamp", "Café crème", "soft soap", 'x 12" ruler', "o'clock", "#1 comb", "100 %", "?"]
SPECIAL = ['Lamp, red; "large" | tall :: old', '"Both"', 'two\ttabs || and "" quotes', "a,b"]


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def table(header: list[str], rows: list[list[str]], separator: str, quoting: str) -> str:
    """The text of a file, by Python's csv writer where it can write it."""
    if len(separator) == 1 and quoting != "never":
        text = io.StringIO()
        style = csv.QUOTE_ALL if quoting == "always" else csv.QUOTE_MINIMAL
        csv.writer(text, delimiter=separator, quoting=style, lineterminator="\n").writerows(
            [header, *rows]
        )
        return text.getvalue()

    def written(cell: str) -> str:
        needed = quoting == "always" or (quoting != "never" and (separator in cell or '"' in cell))
        return quoted(cell) if needed else cell

    return "".join(separator.join(map(written, row)) + "\n" for row in [header, *rows])


def texts_for(separator: str, quoting: str, encoding: str) -> list[str]:
    """Titles that this form can hold."""
    titles = PLAIN if quoting == "never" else PLAIN + SPECIAL
    if encoding in ("gbk", "shift_jis"):
        titles = [title.replace("é", "e").replace("è", "e") for title in titles] + ["日本"]
    if quoting == "never":
        return [title for title in titles if separator not in title]
    return titles


def encoded(text: str, encoding: str, mark: bool) -> bytes:
    raw = text.encode(encoding)
    wide = {"utf-16-le": codecs.BOM_UTF16_LE}
    return (wide.get(encoding, codecs.BOM_UTF8) if mark else b"") + raw


def read(folder, name="toy", **changes):
    settings = {"data_path": str(folder), "gpu_id": "", "item_text_fields": ["title"], **changes}
    config = GenRecConfig("SASRec", name, config_dict=settings)
    dataset = create_dataset(config)
    return dataset, ItemContent.from_dataset(dataset, config)


MATRIX = [
    form
    for form in itertools.product(SEPARATORS, QUOTING, ENCODINGS, [False, True])
    # Python writes the marks of these itself
    if not (form[3] and form[2] in ("utf-8-sig", "utf-16"))
]


# cases 07, 08, 10 and 15
@pytest.mark.parametrize("separator", SEPARATORS)
def test_ids_and_texts_are_those_that_were_written(tmp_path, separator):
    for number, form in enumerate(form for form in MATRIX if form[0] == separator):
        _, quoting, encoding, mark = form
        ends = "\r\n" if mark or encoding == "utf-8-sig" else "\n"
        titles = texts_for(separator, quoting, encoding)
        extra = 'ü"1' if encoding not in ("gbk", "shift_jis") else '語"1'
        items = [f"i{n}" for n in range(len(titles) - 1)] + [extra]
        users = ["u1", "u 2", "x;y" if separator == "," else "x,y"]
        if quoting == "never":
            users = [user for user in users if separator not in user]
        pairs = [(user, item) for user in users for item in items]
        inter = [[user, item, str(n)] for n, (user, item) in enumerate(pairs)]
        folder = tmp_path / str(number) / "toy"
        folder.mkdir(parents=True)
        header = ["user_id:token", "item_id:token", "timestamp:float"]
        texts = {
            "inter": table(header, inter, separator, quoting),
            "item": table(
                ["item_id:token", "title:token"],
                [[item, title] for item, title in zip(items, titles, strict=True)],
                separator,
                quoting,
            ),
        }
        for ending, text in texts.items():
            content = encoded(text.replace("\n", ends), encoding, mark)
            (folder / f"toy.{ending}").write_bytes(content)
        dataset, content = read(folder.parent, field_separator=separator, encoding=encoding)
        tokens = dataset.field2id_token
        assert tokens["user_id"][1:].tolist() == users, form
        assert tokens["item_id"][1:].tolist() == items, form
        expected = [" ".join(title.split()) for title in titles]
        assert content.text[1:] == expected, form
        assert len(dataset.inter_feat) == len(pairs), form


def write(folder, inter: bytes | str, item: bytes | str | None = None):
    (folder / "toy").mkdir(exist_ok=True)
    for ending, content in (("inter", inter), ("item", item)):
        if content is not None:
            content = content.encode() if isinstance(content, str) else content
            (folder / "toy" / f"toy.{ending}").write_bytes(content)
    return folder


INTER = "user_id:token,item_id:token,timestamp:float\nu,i1,1\nu,i2,2\nu,i3,3\nu,i1,4\n"


def test_quoted_cells_may_go_on_over_lines(tmp_path):
    item = 'item_id:token,title:token\ni1,"Lamp,\nred ""one"""\ni2,Desk\ni3,"a\n\nb"\n'
    _, content = read(write(tmp_path, INTER, item), field_separator=",")
    assert content.text == ["", 'Lamp, red "one"', "Desk", "a b"]


def test_a_stray_quote_swallows_no_line(tmp_path, caplog):
    item = 'item_id:token,title:token\ni1,"Lamp\ni2,"Great" desk\ni3,12" ruler\n'
    _, content = read(write(tmp_path, INTER, item), field_separator=",")
    assert content.text == ["", '"Lamp', '"Great" desk', '12" ruler']
    assert "2 quotes that open a cell and do not close it" in caplog.text
    for bad in ('"u', '"u"x'):
        with pytest.raises(DataError, match=r"toy\.inter, line 3: .*quote"):
            read(write(tmp_path, INTER.replace("u,i2", f"{bad},i2"), item), field_separator=",")


# case 07
def test_most_rows_too_long_is_another_separator(tmp_path):
    item = "item_id:token,title:token\ni1,Lamp, red\ni2,Desk, blue\ni3,Soap\n"
    with pytest.raises(DataError, match=r"toy\.item: 2 of 3 rows have more cells.*double quotes"):
        read(write(tmp_path, INTER, item), field_separator=",")


# case 15
@pytest.mark.parametrize("separator", [",", "|", "::", ";", " "])
def test_the_separator_of_the_file_is_named(tmp_path, separator):
    inter = INTER.replace(",", separator)
    for given in ("\t", ","):
        if given == separator:
            continue
        with pytest.raises(DataError) as error:
            read(write(tmp_path, inter), field_separator=given)
        assert f"line 1: the columns are separated by {separator!r}" in str(error.value)
        assert f"--field_separator='{separator}'" in str(error.value)


def test_a_mark_beats_the_key_where_the_file_is_utf_8(tmp_path):
    inter = INTER.replace("i1", "é")
    item = "item_id:token,title:token\né,Café\ni2,b\ni3,c\n"
    marked = [codecs.BOM_UTF8 + text.encode() for text in (inter, item)]
    dataset, content = read(write(tmp_path, *marked), field_separator=",", encoding="latin-1")
    assert dataset.field2id_token["item_id"][1] == "é" and content.text[1] == "Café"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoding": "utf8-x"}, "encoding is 'utf8-x', which is unknown"),
        ({"field_separator": ""}, "field_separator is ''"),
        ({"field_separator": 3}, "field_separator is 3"),
        ({"seq_separator": ["a"]}, "seq_separator is"),
    ],
)
def test_forms_that_are_none(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        read(write(tmp_path, INTER), **{"field_separator": ",", **changes})


def test_bytes_of_another_encoding_are_refused_with_their_line(tmp_path):
    inter = INTER.replace("u,i3", "u,é").encode("latin-1")
    with pytest.raises(DataError, match=r"toy\.inter, line 4: it is not utf-8"):
        read(write(tmp_path, inter), field_separator=",")
    with pytest.raises(DataError, match=r"toy\.inter, line 1: .*UTF-16.*--encoding=utf-16"):
        read(write(tmp_path, INTER.encode("utf-16")), field_separator=",")


HEADERS = [
    ("user_id,item_id,timestamp", "user_id:token,item_id:token,timestamp:float"),
    ("user_id:int,item_id:int,timestamp:int", "user_id:token,item_id:token,timestamp:float"),
    ("user_id:token,item_id:token,timestamp:Float", "user_id:token,item_id:token,timestamp:float"),
    ("user_id:token,item_id:token,timestamp:float:x", "timestamp:float"),
    ("user_id:string,item_id:token,timestamp:float", "user_id:token,item_id:token"),
    ("user_id:token,user_id:token,timestamp:float", "several columns 'user_id'"),
    ("user_id:float,item_id:token,timestamp:float", "user_id:token,item_id:token"),
    ("user:token,item:token,time:float", "--USER_ID_FIELD"),
    ("u,i1,0", "--USER_ID_FIELD"),
]


# cases 09 and 09b
@pytest.mark.parametrize(("header", "remedy"), HEADERS)
def test_headers_are_refused_with_the_corrected_line(tmp_path, header, remedy):
    inter = INTER.replace(INTER.splitlines()[0], header)
    with pytest.raises(GenRecError) as error:
        read(write(tmp_path, inter), field_separator=",")
    message = str(error.value)
    assert "toy.inter, line 1" in message and remedy in message
