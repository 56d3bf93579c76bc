"""Files as programs write them: odd ids, missing values, line ends, surplus cells, dates."""

from __future__ import annotations

import random

import pytest
from event_data import split

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.files.atomic_files import PLAIN
from recbole_genrec.data.files.feature_files import read_features
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.errors import DataError

HEADER = ["user_id:token", "item_id:token", "timestamp:float"]
ODD = [
    "1.0",
    "1",
    "007",
    "7",
    "日本",
    "a b",
    "é",
    "i,1",
    "x|y",
    "00",
    "1e3",
    "-1",
    "#5",
    "o'x",
    "inf",
]


def rows_of(name=lambda item: f"i{item}", time=str, user=lambda n: f"u{n}"):
    """Rows of twelve users, each item and time written by a function."""
    draw = random.Random(0)
    rows = []
    for number in range(12):
        for step in range(draw.randrange(4, 9)):
            rows.append([user(number), name(draw.randrange(15)), time(step)])
    return rows


def text_of(rows, header=HEADER, end="\n", separator="\t"):
    return end.join(separator.join(cells) for cells in [header, *rows]) + end


def write(folder, content, item=None):
    (folder / "toy").mkdir(exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "toy" / "toy.inter").write_bytes(data)
    if item is not None:
        (folder / "toy" / "toy.item").write_bytes(item.encode())


def last_rows(folder, **changes):
    return {user: (history, item) for user, history, item in split(folder, **changes)["test"]}


def expected(rows):
    """Last item of each user and what came before; the rows stand in the order of time."""
    items = {}
    for user, item, _ in rows:
        items.setdefault(user, []).append(item)
    return {user: (tuple(own[:-1]), own[-1]) for user, own in items.items()}


TIMES = {
    "milliseconds": lambda step: str(1_600_000_000_000 + 7 * step),
    "negative": lambda step: str(-9000 + 1000 * step),
    "exponents": lambda step: f"{step + 1}e9",
    "dates": lambda step: f"2024-05-{step + 1:02d}",
    "dates and times": lambda step: f"2024-05-{step + 1:02d} 10:00:00",
    "zones": lambda step: f"2024-05-01T10:00:00.{step:03d}+02:00",
    "utc": lambda step: f"2024-05-01T10:00:0{step}Z",
    "digits": lambda step: f"2024050{step + 1}",
    "spaces behind": lambda step: f"{step} ",
}


@pytest.mark.parametrize("written", TIMES)
def test_times_however_they_are_written(tmp_path, written):
    rows = rows_of(time=TIMES[written])
    write(tmp_path, text_of(rows))
    assert last_rows(tmp_path) == expected(rows)


@pytest.mark.parametrize("time", ["01.05.2024", "2024/05/01", "0,5", "nan", "1e999", "12:30"])
def test_times_that_are_none_are_refused_with_their_line(tmp_path, time):
    write(tmp_path, text_of(rows_of(time=lambda step: time if step == 2 else str(step))))
    with pytest.raises(DataError, match=r"toy\.inter, line 4: its time .* is not a number and no"):
        split(tmp_path)


def test_ids_are_texts(tmp_path):
    rows = rows_of(name=ODD.__getitem__, user=[*ODD[:-3]].__getitem__)
    write(tmp_path, text_of(rows))
    assert last_rows(tmp_path) == expected(rows)


@pytest.mark.parametrize("name", ["nan", "NaN", "NA", "N/A", "None", "null", "", " ", "[PAD]"])
def test_names_of_missing_values_are_no_ids(tmp_path, name):
    rows = rows_of()
    rows[5][1] = name
    write(tmp_path, text_of(rows))
    with pytest.raises(DataError, match=r"toy\.inter, line 7: .* as an id in 'item_id'"):
        split(tmp_path)


FORMS = {
    "windows": lambda rows: text_of(rows, end="\r\n"),
    "mixed line ends": lambda rows: text_of(rows).replace("\n", "\r\n", 5),
    "no line end": lambda rows: text_of(rows).rstrip("\n"),
    "empty lines": lambda rows: text_of(rows, end="\n\n"),
    "tabs behind rows": lambda rows: text_of([[*row, ""] for row in rows]),
    "tabs behind all": lambda rows: text_of([[*row, "", ""] for row in rows], [*HEADER, ""]),
    "spaces in the header": lambda rows: text_of(rows, [f"{cell} " for cell in HEADER]),
    "a mark and windows": lambda rows: "\ufeff" + text_of(rows, end="\r\n"),
    "quotes": lambda rows: text_of(
        [[f'"{cell}"' for cell in row] for row in rows], [f'"{cell}"' for cell in HEADER]
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_files(tmp_path, form):
    rows = rows_of()
    write(tmp_path, FORMS[form](rows))
    assert last_rows(tmp_path) == expected(rows)


REFUSED = {
    "a second header": (lambda rows: text_of([*rows[:4], HEADER, *rows[4:]]), r"line 6: its time"),
    "a column twice": (
        lambda rows: text_of([[*row, row[2]] for row in rows], [*HEADER, HEADER[2]]),
        r"line 1: there are several columns 'timestamp'",
    ),
    "capital letters": (
        lambda rows: text_of(
            rows, [cell.replace("_id", "_ID") for cell in HEADER[:2]] + ["t:float"]
        ),
        r"line 1: .*user_ID, item_ID are meant: capital letters count",
    ),
    "capital types": (lambda rows: text_of(rows, [c.title() for c in HEADER]), "line 1: "),
    "carriage returns": (lambda rows: text_of(rows, end="\r"), "carriage returns"),
    "another encoding": (
        lambda rows: text_of([[user, f"é{item}", time] for user, item, time in rows]).encode(
            "cp1252"
        ),
        r"line 2: it is not utf-8; --encoding names",
    ),
    "spaces around an id": (
        lambda rows: text_of([[f"{rows[0][0]} ", *rows[0][1:]], *rows[1:]]),
        r"line 2: 'u0 ' and 'u0' in 'user_id' differ in spaces alone",
    ),
    "a space before an item": (
        lambda rows: text_of([*rows[:9], ["u1", f" {rows[0][1]}", "99"], *rows[9:]]),
        r"line 11: ' i\d+' and 'i\d+' in 'item_id' differ in spaces alone",
    ),
    "a cell too many": (lambda rows: text_of([[*row, "x"] for row in rows]), "line 2: it has 4"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_refused_forms_name_file_and_line(tmp_path, form):
    content, words = REFUSED[form]
    write(tmp_path, content(rows_of()))
    with pytest.raises(DataError, match=words) as caught:
        split(tmp_path)
    assert "toy.inter" in str(caught.value)


# --- item texts -----------------------------------------------------------------------------------


def texts(folder, item, name=lambda number: f"i{number}", **changes):
    write(folder, text_of(rows_of(name)), item)
    settings = {"data_path": str(folder), "gpu_id": "", "item_text_fields": ["title"], **changes}
    config = GenRecConfig("TIGER", "toy", config_dict=settings)
    content = ItemContent.from_dataset(create_dataset(config), config)
    return dict(zip(content.tokens, content.text, strict=True))


def items(
    title, name=lambda number: f"i{number}", behind="", header="item_id:token\ttitle:token_seq"
):
    lines = [f"{name(number)}\t{title(number)}{behind}" for number in range(15)]
    return "\n".join([header, *lines]) + "\n"


@pytest.mark.parametrize("missing", ["nan", "NaN", "NULL", "None", "N/A", "NA", "null"])
def test_names_of_missing_values_are_no_texts(tmp_path, caplog, missing):
    """case 17 and its kind: a text that stands for none is said, and is not read as a word."""
    found = texts(tmp_path, items(lambda number: missing if number % 3 == 0 else f"soap {number}"))
    assert found["i0"] == found["i3"] == "item" and found["i1"] == "soap 1"
    assert "5 cells such as nan or NULL, which count as empty" in caplog.text


def test_cells_that_go_on_over_lines_between_tabs(tmp_path, caplog):
    """As pandas writes them: quotes around a text with a line end."""
    found = texts(tmp_path, items(lambda number: f'"soap\nno ""{number}"""'))
    assert found["i4"] == 'soap no "4"'
    assert "short rows" not in caplog.text
    stray = items(lambda number: '"Weird' if number == 4 else f'soap {number}"')
    found = texts(tmp_path, stray)
    assert found["i4"] == '"Weird' and found["i5"] == 'soap 5"', "a stray quote swallows no row"


def test_a_middle_cell_goes_on_over_several_lines(tmp_path):
    header = "item_id:token\ttitle:token_seq\tbrand:token"
    lines = [f'i{number}\t"a\nb\n\nc {number}"\tx' for number in range(15)]
    found = texts(tmp_path, "\n".join([header, *lines]) + "\n", item_text_fields=["title", "brand"])
    assert found["i7"] == "title: a b c 7, brand: x"


@pytest.mark.parametrize("behind", ["\t", "\t\t"])
def test_tabs_behind_the_rows_of_items(tmp_path, behind, caplog):
    assert texts(tmp_path, items(lambda number: f"soap {number}", behind=behind))["i2"] == "soap 2"
    assert "long rows" not in caplog.text


@pytest.mark.parametrize(
    ("name", "written"),
    [(str, "'0.0', '1.0'"), (lambda number: f"{number:03d}", "'0', '1'")],
)
def test_ids_that_another_program_has_changed(tmp_path, name, written):
    """1 that became 1.0, and 007 that became 7: the message shows both."""
    change = (lambda number: f"{number}.0") if name is str else str
    with pytest.raises(DataError, match=f"those of the file like {written}"):
        texts(tmp_path, items(lambda number: f"soap {number}", name=change), name=name)


def test_a_column_twice_in_the_item_file(tmp_path):
    header = "item_id:token\ttitle:token_seq\ttitle:token_seq"
    with pytest.raises(DataError, match=r"toy\.item, line 1: there are several columns 'title'"):
        texts(tmp_path, items(lambda number: f"soap {number}\tx", header=header))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("user_id:token\tage:float\tage:float\tzip:token", "there are several columns 'age'"),
        ("user_id:token,age:float,size:float,zip:token", "the columns are separated by ','"),
        ("user_id:token\tage:int\tsize:float\tzip:token", "column 'age' has the type 'int'"),
    ],
)
def test_headers_of_files_of_features(tmp_path, header, message):
    """A ``.user`` file gets the check of the ``.item`` file."""
    path = tmp_path / "toy.user"
    path.write_text(f"{header}\nu1\t3\t4\tX9\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"toy\.user, line 1: {message}"):
        read_features(path, PLAIN, None)


def test_cells_of_features(tmp_path):
    path = tmp_path / "toy.user"
    header = "user_id:token\tage:float\ttags:token_seq\tpath:float_seq"
    path.write_text(f"{header}\nu1\t3\ta b\t1 2.5\nNA\tnan\n", encoding="utf-8")
    frame, kinds = read_features(path, PLAIN, None)
    assert kinds == dict(cell.split(":") for cell in header.split("\t"))
    assert frame["user_id"].tolist() == ["u1", None]
    assert frame["age"].dtype == "float64" and frame["age"].isna().tolist() == [False, True]
    assert [list(words) for words in frame["tags"]] == [["a", "b"], []]
    assert [list(numbers) for numbers in frame["path"]] == [[1.0, 2.5], []]


def test_quoted_ids_are_those_of_the_interactions(tmp_path):
    """Between tabs, quotes are no part of an id, in any file."""
    rows = rows_of(lambda item: f'"i {item}"')
    names = {row[1] for row in rows}
    items = text_of([[name, "c"] for name in names], ["item_id:token", "class:token"])
    write(tmp_path, text_of(rows), items)
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]}
    settings = {"data_path": str(tmp_path), "gpu_id": "", "load_col": columns}
    dataset = create_dataset(GenRecConfig("BPR", "toy", config_dict=settings))
    assert set(dataset.field2id_token["item_id"][1:]) == {name.strip('"') for name in names}


def test_bytes_of_another_encoding_name_the_key(tmp_path, caplog):
    write(tmp_path, text_of(rows_of()), items(lambda number: f"soap {number}"))
    content = items(lambda number: f"café {number}").encode("latin-1")
    (tmp_path / "toy" / "toy.item").write_bytes(content)
    settings = {"data_path": str(tmp_path), "gpu_id": "", "item_text_fields": ["title"]}
    config = GenRecConfig("TIGER", "toy", config_dict=settings)
    ItemContent.from_dataset(create_dataset(config), config)
    assert "15 characters that are not UTF-8 (--encoding names the encoding)" in caplog.text
