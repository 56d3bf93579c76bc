"""Text and code vocabularies, and sequences put together from both."""

from __future__ import annotations

import pytest
import torch
from language_models import SIZES, TEXTS, Generator, text_vocabulary

from recbole_genrec.backbone import (
    CodeVocabulary,
    TextAndCodes,
    compose,
    constant,
    embed_mixed,
    length_mask,
    serialised,
    tokenise_texts,
    train_text_vocabulary,
    whole,
)
from recbole_genrec.backbone import text_vocabulary as stored_or_trained
from recbole_genrec.errors import BackboneError


def test_code_vocabulary():
    vocabulary, hidden = CodeVocabulary(SIZES, 3, 7), torch.randn(2, 5, 7)
    assert (
        vocabulary.embedding.shape == (15, 3)
        and vocabulary.classifier.shape == (15, 7)
        and vocabulary.first == [0, 6, 11]
    )
    assert vocabulary.tokens(torch.tensor([[5, 4, 3], [0, 0, 0]])).tolist() == [
        [5, 10, 14],
        [0, 6, 11],
    ]
    assert vocabulary.tokens(torch.tensor([2, 1])).tolist() == [2, 7]
    assert torch.equal(
        vocabulary.embed_code(torch.tensor([[4]]), 1), vocabulary.embedding[10].view(1, 1, 3)
    )
    every = hidden @ vocabulary.classifier.T
    torch.testing.assert_close(vocabulary.logits(hidden), every)
    for level, columns in enumerate((slice(0, 6), slice(6, 11), slice(11, 15))):
        torch.testing.assert_close(vocabulary.logits(hidden, level), every[..., columns])
        torch.testing.assert_close(
            vocabulary.log_probs(hidden, level, "level"), every[..., columns].log_softmax(-1)
        )
        torch.testing.assert_close(
            vocabulary.log_probs(hidden, level, "joint"), every.log_softmax(-1)[..., columns]
        )


def test_compose_joins_valid_tokens():
    generator = torch.Generator().manual_seed(0)
    segments = [constant(torch.tensor([7, 8]), 4)]
    for width in (3, 1, 5):
        segments.append(
            (
                torch.randint(1, 99, (4, width), generator=generator),
                torch.rand(4, width, generator=generator) < 0.5,
            )
        )
    ids, lengths = compose(*segments)
    expected = [
        [
            int(i)
            for part, valid in segments
            for i, v in zip(part[row], valid[row], strict=True)
            if v
        ]
        for row in range(4)
    ]
    assert lengths.tolist() == [len(row) for row in expected] and ids.shape[1] == max(
        map(len, expected)
    )
    assert ids.tolist() == [row + [0] * (ids.shape[1] - len(row)) for row in expected]


def test_masks_of_whole_and_of_padded_rows():
    ids, valid = whole(torch.tensor([[[4, 0]], [[0, 7]]]))
    assert ids.tolist() == [[[4, 0]], [[0, 7]]]
    assert valid.shape == (2, 1, 2) and valid.dtype == torch.bool and valid.all()
    lengths = torch.tensor([[2, 0], [5, -1]])
    assert length_mask(lengths, 3).tolist() == [
        [[True, True, False], [False, False, False]],
        [[True, True, True], [False, False, False]],
    ]


def test_codes_stand_behind_the_text():
    model = Generator("llama")
    both = TextAndCodes(model.backbone, model.codes)
    codes = torch.tensor([[5, 4, 3], [0, 0, 0]])
    assert both.n_text == len(model.backbone.text_table.weight)
    ids = both.ids(codes)
    assert torch.equal(both.code_numbers(ids), model.codes.tokens(codes))
    assert torch.equal(both.code_numbers(both.ids(codes[:, :1])), codes[:, :1])
    assert (both.code_numbers(model.ids) < 0).equal(model.ids < model.n_text)
    rows = torch.cat([model.backbone.text_table.weight, model.codes.embedding])
    for some in (ids, model.ids, ids[0], ids.unsqueeze(0)):
        assert torch.equal(both.embed(some), rows[some])
    assert not isinstance(both, torch.nn.Module)


@pytest.mark.parametrize("per_row", [False, True])
def test_embed_mixed_takes_each_id_from_its_own_table(per_row):
    text, other = torch.nn.Embedding(5, 3), torch.randn(4, 3).requires_grad_()
    table = torch.stack([other, 2 * other]) if per_row else other
    ids = torch.tensor([[0, 5, 4, 8], [1, 6, 6, 1]])
    embedded = embed_mixed(ids, text, table)
    for row, column in ((r, c) for r in range(2) for c in range(4)):
        number = int(ids[row, column])
        assert torch.equal(
            embedded[row, column],
            text.weight[number] if number < 5 else (table[row] if per_row else table)[number - 5],
        )
    embedded.sum().backward()
    counts = torch.bincount(ids.flatten(), minlength=9).float()
    assert torch.equal(text.weight.grad, counts[:5, None].expand(-1, 3))
    uses = torch.tensor([1.0, 4.0, 0.0, 1.0]) if per_row else counts[5:]
    assert torch.equal(other.grad, uses[:, None].expand(-1, 3))


def test_text_vocabulary():
    tokenizer = text_vocabulary()
    assert (tokenizer.pad_token_id, tokenizer.pad_token, tokenizer.sep_token) == (
        0,
        "<pad>",
        "<sep>",
    ) and len(tokenizer) <= 300
    for text in [*TEXTS, "Crème brûlée 42 \N{EM DASH} never seen"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]).strip() == text
    again = stored_or_trained([], 300, serialised(stored_or_trained(TEXTS, 300)))
    assert [again(text)["input_ids"] for text in TEXTS] == [
        tokenizer(text)["input_ids"] for text in TEXTS
    ]
    ids, valid = tokenise_texts(tokenizer, [*TEXTS, ""], 6)
    rows = [tokenizer(text)["input_ids"][:6] for text in [*TEXTS, ""]]
    assert [row[mask].tolist() for row, mask in zip(ids, valid, strict=True)] == rows
    assert valid.sum(1).tolist() == [len(row) for row in rows] and (ids[~valid] == 0).all()
    with pytest.raises(BackboneError, match="text_vocab_size is 299.*use 300 or more"):
        train_text_vocabulary(TEXTS, 299)
