"""recbole-genrec tokenize: figures of codes without a generator, against slow counts."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import SMALL, TINY_T5, toy_model, write_dataset

from recbole_genrec.cli import main
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.tokenizing import near_items, tokenize


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def words(folder, *more: str) -> list[str]:
    options = {**SMALL, **TINY_T5, "codebook_sizes": [8, 8], "data_path": folder}
    return ["--dataset=toy", *(f"--{key}={value}" for key, value in options.items()), *more]


def same_first(codes, pairs) -> list[float]:
    """Share of pairs with the same first 1, 2, ... codes, counted one by one."""
    shares = []
    for depth in range(1, len(codes[0]) + 1):
        shared = [list(codes[a][:depth]) == list(codes[b][:depth]) for a, b in pairs]
        shares.append(sum(shared) / len(shared))
    return shares


def test_figures_are_those_of_slow_counts(folder):
    (row,) = tokenize(words(folder, "--tokenizer=rkmeans"))
    model, _, _ = toy_model(folder, "TIGER", tokenizer="rkmeans", cache_dir=".cache")
    codes = model.item_codes.codes[:, : model.item_codes.n_learned].tolist()

    followers = []
    for items in model.content.item_sequences():
        followers += [(a, b) for a, b in pairwise(items.tolist()) if a != b]
    assert row.purchases == pytest.approx(same_first(codes, followers))

    vectors = np.asarray(model.content.embeddings())[1:]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    near = []
    for item, similar in enumerate(cosines):
        near += [(item + 1, int(other) + 1) for other in np.argsort(-similar)[:10]]
    assert row.neighbours == pytest.approx(same_first(codes, near))

    distinct = {tuple(code) for code in codes[1:]}
    assert (row.items, row.distinct) == (40, len(distinct))
    sizes = [codes[1:].count(list(code)) for code in distinct]
    assert row.largest_group == max(sizes)
    assert row.colliding == pytest.approx(sum(size for size in sizes if size > 1) / 40)


def test_a_run_takes_the_codes_from_the_cache(folder, capsys):
    output = "--output=figures/codes.json"
    assert main(["tokenize", *words(folder, "--tokenizer=rkmeans,random", output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "bought next" in lines[0]
    assert [line.split()[0] for line in lines[2:4]] == ["rkmeans", "random"]
    rows = json.loads(Path("figures", "codes.json").read_text())
    assert [row["tokenizer"] for row in rows] == ["rkmeans", "random"]
    assert rows[1]["reconstruction_error"] is None

    folders = sorted(Path(".cache").glob("rkmeans-*"))
    assert main(["run", "--model=TIGER", *words(folder, "--tokenizer=rkmeans")]) == 0
    assert sorted(Path(".cache").glob("rkmeans-*")) == folders and len(folders) == 1


def test_levels_that_collapsed_are_named(folder, capsys, monkeypatch):
    monkeypatch.setattr("recbole_genrec.tokenizer.codes.COLLAPSE", 2.0)
    assert main(["tokenize", *words(folder, "--tokenizer=random")]) == 0
    assert "random: LEVEL 0 OF THE CODES COLLAPSED" in capsys.readouterr().out


def test_without_texts_there_are_no_neighbours(folder):
    argv = [word for word in words(folder) if not word.startswith("--item_text_fields")]
    rows = tokenize([*argv, "--item_text_fields=~", "--tokenizer=cid,random"])
    assert [row.neighbours for row in rows] == [None, None]


def test_of_a_large_catalogue_items_are_drawn(monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(41, 5)).astype(np.float32)
    monkeypatch.setattr("recbole_genrec.experiments.tokenizing.SAMPLE", 7)
    pairs = near_items(vectors, 1)
    assert len(pairs[:, 0].unique()) == 7 and len(pairs) == 70
    assert pairs.min() > 0 and pairs.max() < 41
    assert torch.equal(pairs, near_items(vectors, 1))


def test_names_of_tokenizers(folder):
    two = tokenize(words(folder, "--tokenizer=[random, rkmeans]"))
    assert [row.tokenizer for row in two] == ["random", "rkmeans"]
    with pytest.raises(ConfigError, match="--tokenizer names no tokenizer"):
        tokenize(words(folder, "--tokenizer=,"))


@pytest.mark.parametrize("model", ["TokenRec", "SASRec"])
def test_methods_without_an_item_tokenizer(folder, model):
    with pytest.raises(ConfigError, match=f"{model} has no item tokenizer that can be judged"):
        tokenize(["--dataset=toy", f"--data_path={folder}", f"--model={model}"])
