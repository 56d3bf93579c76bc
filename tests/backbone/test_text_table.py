"""Texts by item id as token ids."""

from __future__ import annotations

import torch
from language_models import TEXTS, text_vocabulary

from recbole_genrec.backbone import TextTable

LONGER = ["a much longer text about a red and a green soap", "", "brush"]


def test_texts_are_found_by_number_cut_and_padded():
    tokenizer = text_vocabulary()
    table = TextTable(tokenizer, ["", *TEXTS], max_length=4)
    assert len(table) == 5
    numbers = torch.tensor([[3, 0], [1, 4]])
    ids, valid = table(numbers)
    assert ids.shape == valid.shape == (2, 2, 4)
    for row, number in enumerate(numbers.flatten().tolist()):
        text = ["", *TEXTS][number]
        expected = tokenizer(text)["input_ids"][:4]
        tokens = ids.flatten(0, 1)[row]
        shown = valid.flatten(0, 1)[row]
        assert tokens[shown].tolist() == expected
        assert not tokens[~shown].any()


def test_a_table_that_grows_equals_one_of_all_texts():
    tokenizer = text_vocabulary()
    for first, second in ((TEXTS, LONGER), (LONGER, TEXTS), (TEXTS, [])):
        table = TextTable(tokenizer, first, max_length=30)
        table.extend_to([*first, *second])
        whole = TextTable(tokenizer, [*first, *second], max_length=30)
        assert torch.equal(table.ids, whole.ids) and torch.equal(table.valid, whole.valid)
        assert table.valid.dtype == torch.bool


def test_texts_move_with_the_model_and_are_no_weights():
    table = TextTable(text_vocabulary(), TEXTS, max_length=30)
    assert not table.state_dict() and not list(table.parameters())
    moved = table.to("meta")
    moved.extend_to([*TEXTS, *LONGER])
    assert moved.ids.device.type == "meta" and len(moved) == len(TEXTS) + len(LONGER)
