"""Items without training interactions stay out of the fit and are placed as new items are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_vector_tokenizers import NAMES, Given, content, loaded, tokenizer  # noqa: F401
from test_vector_tokenizers import _encoder as fake  # noqa: F401
from toy import toy_config, toy_model, write_dataset

from recbole_genrec.errors import ConfigError
from recbole_genrec.tokenizer import NewItems, fit_or_load
from recbole_genrec.tokenizer.cold_fit import trained_items

COLD = 6


@pytest.fixture
def partly(content):  # noqa: F811
    """Content whose last items nobody has chosen in training."""
    seen = content.tokens[1:-COLD]
    sequences = {f"u{number}": seen[number::5] for number in range(5)}
    cf = torch.randn(len(seen), 8, generator=torch.Generator().manual_seed(0)).numpy()
    return replace(content, interactions=Given(seen, cf, sequences))


@pytest.mark.parametrize("name", ["rkmeans", "rqvae", "letter", "text-hierarchical"])
def test_the_fit_sees_the_trained_items_alone(name, partly):
    made = tokenizer(name, tokenizer_fit_items="train_only", collision=["extra_token"])
    lines = []
    codes = made.fit_content(partly, lines.append)
    assert lines == [
        f"Tokenizer {name} fitted to 34 items with training interactions; 6 others are placed as "
        "new items."
    ]
    assert codes.tokens == partly.tokens and len(codes.codes[1:].unique(dim=0)) == 40

    alone = tokenizer(name, collision=["extra_token"])
    rows = [0, *range(1, 35)]
    expected = alone.fit(partly.of_rows(rows))
    assert torch.equal(codes.codes[rows], expected.codes) and codes.sizes == expected.sizes
    learned = made.encode(NewItems(partly.text[-COLD:]))
    assert torch.equal(codes.codes[-COLD:, :2], learned)


def test_the_numbering_of_cold_items_changes_no_codes(partly):
    """They have equal texts, so that each takes what the one before leaves."""
    text = [*partly.text[:-COLD], *[partly.text[-1]] * COLD]
    source = replace(partly, text=text)
    codes = []
    for rows in (range(41), [0, *range(40, 0, -1)]):
        made = tokenizer("rkmeans", tokenizer_fit_items="train_only", collision=["extra_token"])
        fitted = made.fit_content(source.of_rows(list(rows)))
        codes.append(dict(zip(fitted.tokens, fitted.codes.tolist(), strict=True)))
    assert codes[0] == codes[1]


def test_the_trained_items_are_part_of_the_key(partly, content, tmp_path):  # noqa: F811
    keys = {}
    for name, source in {"partly": partly, "content": content}.items():
        made = tokenizer("rkmeans", tokenizer_fit_items="train_only")
        keys[name] = made.interactions_key(source)
        fit_or_load(made, source, tmp_path, 1, lambda _: None)
    assert keys["partly"] != keys["content"]
    assert len(list(tmp_path.glob("rkmeans-*"))) == 2
    assert tokenizer("rkmeans").interactions_key(partly) is None


def test_vectors_of_interactions_alone_are_refused(partly):
    for name, source in (("rkmeans", "cf"), ("mq", "graph")):
        made = tokenizer(name, tokenizer_input=source, tokenizer_fit_items="train_only")
        with pytest.raises(ConfigError, match="train_only: the tokenizer .* reads interactions"):
            made.fit_content(partly)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset some of whose items nobody has chosen."""
    place = write_dataset(tmp_path_factory.mktemp("data"))
    (item,) = place.rglob("*.item")
    lines = item.read_text().rstrip("\n").split("\n")
    new = [line.split("\t") for line in lines[1:4]]
    cold = ["\t".join([f"cold{number}", *cells[1:]]) for number, cells in enumerate(new)]
    item.write_text("\n".join([*lines, *cold]) + "\n")
    return place


def test_store_does_not_learn_from_cold_items_and_can_find_them(folder):
    options = {"catalogue": "item_file", "tokenizer_fit_items": "train_only"}
    model, config, _ = toy_model(folder, "STORE", **options)
    trained = trained_items(model.content)
    cold = [row for row, token in enumerate(model.item_tokens) if row and token not in trained]
    assert len(cold) >= 3
    drawn = set(model.fitted_items().tolist())
    assert drawn == set(range(1, model.n_items)) - set(cold)

    whole, other, _ = toy_model(folder, "STORE", catalogue="item_file")
    assert set(whole.fitted_items().tolist()) == set(range(1, whole.n_items))
    assert config.run_name() != other.run_name()
    codes = model.codes[1:]
    assert len(codes.unique(dim=0)) == len(codes), "each item, cold ones too, has its own codes"
    texts = [model.content.text[row] for row in cold]
    learned = model.tokenizer.encode(NewItems(texts))
    assert torch.equal(model.codes[cold, : learned.shape[1]].cpu(), learned)
    again = toy_config(folder, "STORE", **options)
    assert again.run_name() == config.run_name()
