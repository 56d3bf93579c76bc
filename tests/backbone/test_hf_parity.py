"""Our search against the beam search of transformers with a trie callback, on the same weights."""

from __future__ import annotations

import copy

import pytest
import torch
from decoders import random_codes
from language_models import Generator
from torch import Tensor, nn

from recbole_genrec.decoding import ItemTrie, beam_search

SIZES = (8, 6, 5)


class CodesOnly(nn.Module):
    """Output layer over text and codes in which text has probability 0."""

    def __init__(self, n_text: int, classifier: Tensor):
        super().__init__()
        self.n_text, self.weight = n_text, nn.Parameter(classifier.clone())

    def forward(self, states: Tensor) -> Tensor:
        return nn.functional.pad(
            nn.functional.linear(states, self.weight), (self.n_text, 0), value=-torch.inf
        )


def peer_of(model: Generator):
    """The model with one vocabulary: text first, then the codes of all levels."""
    peer = copy.deepcopy(model.lm)
    peer.set_input_embeddings(
        nn.Embedding.from_pretrained(
            torch.cat([model.backbone.text_table.weight, model.codes.embedding])
        )
    )
    peer.lm_head = CodesOnly(model.n_text, model.codes.classifier)
    peer.config.vocab_size = model.n_text + sum(SIZES)
    return peer


def peer_search(
    peer, model: Generator, table: Tensor, width: int, users: list[int], penalty: float
):
    """``(codes [B, K, L], scores [B, K])`` by ``generate``; prompts are padded on the left."""
    rows = (table[1:] + torch.tensor(model.codes.first) + model.n_text).tolist()
    children: dict[tuple, list[int]] = {}
    for row in rows:
        for level, token in enumerate(row):
            children.setdefault(tuple(row[:level]), []).append(token)
    prompts = [model.ids[user, : model.lengths[user]] for user in users]
    ids = nn.utils.rnn.pad_sequence(prompts, batch_first=True, padding_side="left")
    mask = nn.utils.rnn.pad_sequence(
        [torch.ones_like(prompt) for prompt in prompts], batch_first=True, padding_side="left"
    )
    found = peer.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=len(SIZES),
        num_beams=width,
        num_return_sequences=width,
        do_sample=False,
        length_penalty=penalty,
        prefix_allowed_tokens_fn=lambda _, sequence: children[
            tuple(sequence[ids.shape[1] :].tolist())
        ],
        return_dict_in_generate=True,
        output_scores=True,
    )
    codes = found.sequences[:, ids.shape[1] :] - model.n_text - torch.tensor(model.codes.first)
    return codes.view(len(users), width, -1), found.sequences_scores.view(len(users), width) * len(
        SIZES
    ) ** penalty


@pytest.mark.parametrize("family", ["opt", "opt-projected", "llama", "qwen3"])
@torch.no_grad()
def test_generate_with_a_trie_callback_returns_the_same_lists(family):
    model, table = Generator(family, SIZES, lengths=(5, 9, 1, 7)), random_codes(SIZES, 100)
    peer, decoder, trie = peer_of(model), model.decoder("joint"), ItemTrie(table, SIZES)
    alone = [[user] for user in range(4)]
    for width, penalty, batches in (
        (5, 0.0, alone),
        (10, 1.0, [[0, 1, 2, 3]]),
        (20, 1.0, [[0, 1, 2, 3]]),
        (20, 2.0, alone),
    ):
        ours = beam_search(decoder, trie, width, score_type="joint")
        for users in batches:
            codes, scores = peer_search(peer, model, table, width, users, penalty)
            assert torch.equal(table[ours.items[users]], codes)
            torch.testing.assert_close(ours.scores[users], scores, atol=1e-5, rtol=0)
    assert not ours.certified(
        20
    ).all()  # beams were pruned: the two agree on what a beam search finds, not only on exact lists
