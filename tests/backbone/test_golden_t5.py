"""A tiny T5 over item codes against published states, scores, gradients and beams."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from golden.loading_t5 import CLOSE, parameter, tiny_t5, with_end
from torch import nn

from recbole_genrec.backbone.encoder_decoder.beam_decoder import BeamDecoder
from recbole_genrec.decoding import ItemTrie, beam_search, exact_scores


def golden_memory(backbone, vocabulary, golden):
    mask = golden["attention_mask"].bool()
    states = backbone.encode(vocabulary.embed(golden["input_ids"]), mask)
    return states, backbone.memory(states, mask)


@torch.no_grad()
def test_published_states_and_item_scores():
    backbone, vocabulary, golden = tiny_t5()
    assert vocabulary.eos == golden["eos_id"] and vocabulary.n_outputs == golden["vocab_size"]
    assert torch.equal(vocabulary.tokens(golden["item_codes"]), golden["item_tokens"])
    states, memory = golden_memory(backbone, vocabulary, golden)
    mask = golden["attention_mask"].unsqueeze(-1)
    torch.testing.assert_close(states * mask, golden["enc_hidden"], **CLOSE)
    targets = vocabulary.tokens(with_end(golden["item_codes"]))
    inputs = vocabulary.embed(nn.functional.pad(targets[:, :-1], (1, 0)))
    for user in range(len(states)):
        hidden = backbone.decode(inputs, memory.select(torch.full((len(inputs),), user)))
        log_probs = (
            vocabulary.logits(hidden).log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        )
        torch.testing.assert_close(log_probs, golden["item_token_logprob"][user], **CLOSE)
        torch.testing.assert_close(log_probs.sum(-1), golden["item_loglik"][user], **CLOSE)


@pytest.mark.parametrize("run", [0, 1])
def test_published_training_pass(run):
    backbone, vocabulary, golden = tiny_t5()
    memory = golden_memory(backbone, vocabulary, golden)[1]
    targets = vocabulary.tokens(with_end(golden["item_codes"][golden["target_item"]]))
    logits = vocabulary.logits(
        backbone.decode(vocabulary.embed(nn.functional.pad(targets[:, :-1], (1, 0))), memory)
    )
    torch.testing.assert_close(logits, golden["train/logits"], **CLOSE)
    loss = nn.functional.cross_entropy(
        logits.flatten(0, 1) / golden[f"train/tau{run}"], targets.flatten()
    )
    torch.testing.assert_close(loss, golden[f"train/loss{run}"], **CLOSE)
    loss.backward()
    names = [name for name in golden if name.startswith(f"train/grad{run}:")]
    assert len(names) == 4
    for name in names:
        torch.testing.assert_close(
            parameter(name.split(":")[1], backbone, vocabulary).grad, golden[name], **CLOSE
        )


@torch.no_grad()
def test_published_beams():
    backbone, vocabulary, golden = tiny_t5()
    memory = golden_memory(backbone, vocabulary, golden)[1]
    scores = partial(vocabulary.log_probs, score_type="joint")
    decoder = BeamDecoder(backbone, memory, vocabulary.start, vocabulary.embed_code, scores)
    table = nn.functional.pad(with_end(golden["item_codes"]), (0, 0, 1, 0))
    trie = ItemTrie(table, vocabulary.level_sizes)
    for width in golden["beams"].tolist():
        found = beam_search(decoder, trie, width, score_type="joint")
        assert torch.equal(found.items - 1, golden[f"beam{width}/items"])
        sequences = nn.functional.pad(vocabulary.tokens(table[found.items]), (1, 0))
        assert torch.equal(sequences, golden[f"beam{width}/sequences"])
        torch.testing.assert_close(
            found.scores.double(), golden[f"beam{width}/sum_logprob"], **CLOSE
        )
        torch.testing.assert_close(
            found.scores.double() / 5, golden[f"beam{width}/hf_score"], **CLOSE
        )
    torch.testing.assert_close(
        exact_scores(decoder, trie, score_type="joint")[:, 1:].double(),
        golden["item_loglik"],
        **CLOSE,
    )
