"""Datasets that are wrong: refused with file and line, or read without losing a row or changing
an id.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from counts import DATA, tried
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from toy import TINY, toy_config, write_dataset

from recbole_genrec.data.items.item_text import read_item_texts
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.data.preparation.prepare import prepare_dataset
from recbole_genrec.errors import DataError, GenRecError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import recommend

HEADER = b"user_id:token\titem_id:token\ttimestamp:float"


def replaced(cell: int, value: bytes) -> Callable[[list[bytes], int], None]:
    """The damage that puts ``value`` into a cell of the row."""

    def damage(rows: list[bytes], at: int) -> None:
        cells = rows[at].split(b"\t")
        cells[cell] = value
        rows[at] = b"\t".join(cells)

    return damage


def line(value: bytes) -> Callable[[list[bytes], int], None]:
    """The damage that puts a line of its own before the row."""
    return lambda rows, at: rows.insert(at, value)


def header(value: bytes) -> Callable[[list[bytes], int], None]:
    def damage(rows: list[bytes], at: int) -> None:
        rows[0] = value

    return damage


def whole(function: Callable[[bytes], bytes]) -> Callable[[list[bytes], int], None]:
    def damage(rows: list[bytes], at: int) -> None:
        rows[:] = [function(b"\n".join(rows))]

    return damage


REFUSED = {
    "missing value": [
        replaced(c, v)
        for c in (0, 1)
        for v in (b"NA", b"null", b"nan", b"None", b"N/A", b"", b"[PAD]")
    ],
    "no number": [
        replaced(2, v) for v in (b"", b"soon", b"nan", b"inf", b"1_000", b"0x10", b"1,5", b"--1")
    ],
    "NUL": [replaced(c, b"a\0b") for c in (0, 1)],
    "not UTF-8": [replaced(c, v) for c in (0, 1) for v in (b"\xff\xfe", b"caf\xe9", b"\xc3")],
    "quote": [replaced(c, v) for c in (0, 1) for v in (b'"', b'"a', b'"a""')],
    "tab": [replaced(c, b"a\tb") for c in (0, 1)],
    "carriage return": [replaced(c, b"a\rb") for c in (0, 1)],
    "cells": [line(v) for v in (b"u1", b"u1\ti1", b"u1\ti1\t1\t1", b"\t\t", b"   ", b"\t\t\t\t")],
    "header": [
        header(v)
        for v in (
            b"",
            b"user_id\titem_id\ttimestamp",
            b"user_id:token\ttimestamp:float",
            HEADER.replace(b"float", b"evil"),
        )
    ]
    + [
        header(v)
        for v in (
            HEADER + b"\tmore:token",
            HEADER.upper(),
            b"u1\ti1\t1",
            HEADER.replace(b":", b"::"),
        )
    ],
    "whole file": [
        whole(f)
        for f in (
            lambda _: b"",
            lambda _: HEADER,
            lambda t: t.replace(b"\n", b"\r"),
            lambda t: t.replace(b"\t", b","),
        )
    ]
    + [
        whole(f)
        for f in (
            lambda t: t.decode().encode("utf-16"),
            lambda t: bytes(len(t)),
            lambda t: t[: len(t) // 2] + b"\xff",
        )
    ],
}
READ = {
    "number": [
        replaced(c, v)
        for c in (0, 1)
        for v in (b"1", b"01", b"1.0", b"1e5", b"-0", b"99999999999999999999", b"True", b"0x10")
    ],
    "text": [
        replaced(c, v.encode())
        for c in (0, 1)
        for v in (
            "é",
            "日本",
            "a b",
            "a,b",
            "#",
            "'",
            'a"b',
            "\\n",
            "[PAD]x",
            "\u2028",
            "x" * 100_000,
        )
    ],
    "blank": [line(b"") for _ in range(4)],
    "repeated": [lambda rows, at: rows.append(rows[at])] * 4,
    "time": [replaced(2, v) for v in (b"-1", b"0", b"1e5", b"0.5", b" 3")],
    "mark": [header(b"\xef\xbb\xbf" + HEADER)],
    "ends": [whole(lambda t: t.replace(b"\n", b"\r\n")), whole(lambda t: t + b"\n\n\n")],
}


def cases(kinds: dict[str, list]) -> list:
    return [
        pytest.param(damage, index, id=f"{kind}-{n}")
        for index, (kind, many) in enumerate(kinds.items())
        for n, damage in enumerate(many)
    ]


def write_damaged(tmp_path: Path, damage: Callable[[list[bytes], int], None], seed: int) -> Path:
    path = write_dataset(tmp_path / "data", n_users=12) / "toy" / "toy.inter"
    rows = path.read_bytes().rstrip(b"\n").split(b"\n")
    damage(rows, random.Random(seed).randrange(1, len(rows)))
    path.write_bytes(b"\n".join(rows) + b"\n")
    return path


@pytest.mark.parametrize(("damage", "seed"), cases(REFUSED))
def test_interactions_that_recbole_would_misread(tmp_path, damage, seed):
    path = write_damaged(tmp_path, damage, seed)
    before = path.read_bytes()
    with tried(DATA), pytest.raises(DataError, match=r"toy\.inter"):
        create_dataset(toy_config(tmp_path / "data"))
    assert path.read_bytes() == before


@pytest.mark.parametrize(("damage", "seed"), cases(READ))
def test_odd_interactions_are_read_as_they_are(tmp_path, damage, seed):
    path = write_damaged(tmp_path, damage, seed)
    rows = [
        row.split("\t")
        for row in path.read_bytes().decode().replace("\r\n", "\n").split("\n")[1:]
        if row
    ]
    with tried(DATA):
        data = create_dataset(toy_config(tmp_path / "data"))
        assert len(data.inter_feat) == len(rows)
        for column, field in enumerate(("user_id", "item_id")):
            assert set(data.field2id_token[field][1:].tolist()) == {row[column] for row in rows}
        make_loaders(data.config, data, True)


# --- item texts -----------------------------------------------------------------------------------

cells = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["i1", "i2", "NA", "", '"', "é", "\0", "item_id:token", "title:token_seq"]),
)
tables = st.lists(st.lists(cells, max_size=5).map("\t".join), max_size=12).map(
    lambda lines: "\n".join(lines).encode("utf-8", "replace")
)


@given(
    content=st.one_of(
        st.binary(max_size=200),
        tables,
        tables.map(lambda table: b"item_id:token\ttitle:token_seq\n" + table),
    )
)
@examples(max_examples=150)
def test_any_item_file_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.item"
    path.write_bytes(content)
    with tried(DATA):
        try:
            texts = read_item_texts(path, ["title"], ["[PAD]", "i1", "i2", "NA"])
        except DataError as error:
            assert str(path) in str(error)
        else:
            assert len(texts.texts) == 4 and texts.texts[0] == "" and all(texts.texts[1:])
            assert not any(set("\0\n\r\t") & set(text) for text in texts.texts)
        assert path.read_bytes() == content


def test_a_run_on_a_hostile_catalogue(tmp_path):
    """A title of a megabyte, others with quotes, control characters, broken bytes and code;
    repeated, unknown and odd ids.
    """
    folder = write_dataset(tmp_path / "data")
    inter, item = (folder / "toy" / f"toy.{kind}" for kind in ("inter", "item"))
    odd = {
        "i1": "1",
        "i2": "01",
        "i3": "1.0",
        "i4": "x" * 1_000,
        "i5": "日本",
        "i6": "../../etc",
        "i7": "<script>",
    }
    rows = inter.read_text().split("\n")
    inter.write_text(
        "\n".join("\t".join(odd.get(cell, cell) for cell in row.split("\t")) for row in rows)
    )
    titles = [
        b'"',
        b"\xff\xfe\xfd",
        b"a\0b\x07\x1b[31m",
        b"{{ 7 * 7 }} %s %(x)s ${HOME}",
        b"<|endoftext|></s><pad>",
        b"  ",
        b"=1+1",
    ]
    lines = [b"item_id:token\ttitle:token_seq\tbrand:token"]
    names = [odd.get(f"i{n}", f"i{n}").encode() for n in range(40)]
    lines += [
        name + b"\t" + titles[n % len(titles)] + b" %d\tbrand" % n for n, name in enumerate(names)
    ]
    lines[1] = names[0] + b"\t" + b"soap " * 200_000 + b"\tbrand"
    lines += [
        names[3] + b"\tsecond row\tb",
        b"unknown\tx\ty",
        b"",
        b"\t\t",
        b"i9",
        b"i10\t1\t2\t3\t4",
    ]
    item.write_bytes(b"\n".join(lines))
    before = inter.read_bytes(), item.read_bytes()
    with tried(DATA):
        result = run_recbole_genrec(
            "STORE",
            "toy",
            config_dict={**TINY, "data_path": str(folder), "epochs": 1, "tokenizer_epochs": 1},
        )
        assert 0 <= result["test_result"]["recall@10"] <= 1
        listed = recommend(result["checkpoint"], history=["1", "01", "../../etc"], k=5)
        assert len({row["item"] for row in listed}) == 5
    assert (inter.read_bytes(), item.read_bytes()) == before


RAW = [
    "",
    "user_id:token\titem_id:token\n",
    "\0" * 100,
    "user_id:token\titem_id:token\ttimestamp:float\nu\ti\tsoon\n",
    '{"a": [}',
    "[1, 2]\n",
]


@pytest.mark.parametrize("content", RAW, ids=range(len(RAW)))
@pytest.mark.parametrize("name", ["raw.inter", "raw.json", "raw.json.gz", "raw.zip"])
def test_sources_that_cannot_be_prepared(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with tried(DATA), pytest.raises(GenRecError):
        prepare_dataset("ml-100k", tmp_path / "prepared", tmp_path / name)
    assert not (tmp_path / "prepared").exists()
