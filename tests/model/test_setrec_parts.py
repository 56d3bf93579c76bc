"""SETRec's parts: layout, masks, tokens, losses and scores, on both kinds of language models."""

from __future__ import annotations

import math

import pytest
import torch
from golden.loading_setrec import from_the_left, golden_setrec, parameter_of, with_padding_row
from hypothesis import given
from hypothesis import strategies as st
from language_models import FAMILIES, TEXTS
from torch import nn

from recbole_genrec.backbone import CausalBackbone, EncoderDecoderBackbone, load_causal_lm
from recbole_genrec.backbone.encoder_decoder.load import load_encoder_decoder
from recbole_genrec.model.setrec.item_tokens import AutoEncoder, ItemTokens, cold_vectors, fill_cold
from recbole_genrec.model.setrec.losses import (
    component_scores,
    generation_loss,
    normalised,
    sampled_generation_loss,
    token_weights,
)
from recbole_genrec.model.setrec.reader import Layout, SetReader

CLOSE = {"atol": 1e-5, "rtol": 0}
T5 = {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "d_kv": 8, "dropout_rate": 0.0}
BACKBONES = ["t5", "llama", "qwen2", "qwen3", "opt", "opt-projected"]
Q = 3


def reader_of(family: str, n_layers: int = 2, **options) -> SetReader:
    """A reader with random weights that tell tokens and positions apart."""
    torch.manual_seed(0)
    if family == "t5":
        lm = load_encoder_decoder("scratch", {**T5, "num_layers": n_layers})
        backbone = EncoderDecoderBackbone(lm)
        for stack in (backbone.encoder, backbone.decoder):  # transformers starts them small
            nn.init.normal_(stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight)
    else:
        lm, _ = load_causal_lm("scratch", dict(FAMILIES[family]), TEXTS, 300)
        backbone = CausalBackbone(lm)
    words = nn.Embedding(5, backbone.d_in)
    instruction, separator = torch.tensor([0, 1, 2, 1]), torch.tensor([3, 4])
    reader = SetReader(
        backbone, words, instruction, separator, Q, 1.0, is_causal=family != "t5", **options
    )
    return reader.eval()


def sets_of(reader: SetReader, users: int = 3, width: int = 4) -> torch.Tensor:
    return torch.randn(users, width, Q, reader.queries.shape[1])


# --- the published numbers ------------------------------------------------------------------------


def golden_pass():
    tokens, reader, golden = golden_setrec()
    cf = with_padding_row(golden["cf_table"])
    texts = with_padding_row(golden["item_feature"])
    history, length = from_the_left(golden["history"])
    table = tokens(cf, texts)
    states = reader(table[history], length)
    return tokens, reader, golden, (table, texts, history, states)


def test_published_tokens_and_losses_are_exact():
    tokens, _, golden, (table, texts, history, _) = golden_pass()
    exact = {"atol": 1e-9, "rtol": 0}
    torch.testing.assert_close(table[1:, 0], golden["cf_tokens"], **exact)
    torch.testing.assert_close(table[1:, 1:], golden["sem_tokens"], **exact)
    rebuilt = tokens.auto_encoder.decode(table[1:, 1:])
    torch.testing.assert_close(rebuilt, golden["item_recon"], **exact)
    loss = tokens.reconstruction_loss(table, texts, history)
    torch.testing.assert_close(loss, golden["loss_ae"], **exact)

    states = golden["query_hidden"]
    scores = component_scores(states, table)[..., 1:]
    torch.testing.assert_close(scores, golden["scores"], **exact)
    generation = generation_loss(states, table, golden["target"] + 1)
    torch.testing.assert_close(generation, golden["loss_gen"], **exact)
    for beta, expected in zip(golden["betas"], golden["beta_scores"], strict=True):
        weights = token_weights(beta, 1, golden["n_sem"].item())
        summed = torch.einsum("q,bqn->bn", weights.double(), scores)
        torch.testing.assert_close(summed, expected, **exact)


def test_a_batch_without_histories_has_nothing_to_rebuild():
    tokens, _, _, (table, texts, history, _) = golden_pass()
    loss = tokens.reconstruction_loss(table, texts, torch.zeros_like(history))
    assert loss == 0


def test_published_states_and_gradients():
    tokens, reader, golden, (table, texts, history, states) = golden_pass()
    close = {"atol": 1e-4, "rtol": 0}
    torch.testing.assert_close(states, golden["query_hidden"], **close)
    generation = generation_loss(states, table, golden["target"] + 1)
    reconstruction = tokens.reconstruction_loss(table, texts, history)
    total = generation + golden["alpha"] * reconstruction
    torch.testing.assert_close(total, golden["loss_total"], **close)
    total.backward()
    gradients = [name for name in golden if name.startswith("grad:")]
    assert len(gradients) > 15
    for name in gradients:
        parameter = parameter_of(name.removeprefix("grad:"), tokens, reader)
        torch.testing.assert_close(parameter.grad, golden[name], **close)


def test_paper_masks_and_positions_are_not_the_released_ones():
    _, reader, golden, (table, _, history, states) = golden_pass()
    length = (history > 0).sum(1)
    with torch.no_grad():
        reader.official_mask = False
        assert (reader(table[history], length) - states).abs().max() > 1e-3
        reader.official_mask, reader.slots = True, None
        assert (reader(table[history], length) - states).abs().max() > 1e-3


# --- layout ---------------------------------------------------------------------------------------


@given(
    length=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    n_tokens=st.integers(1, 3),
    before=st.integers(0, 3),
    after=st.integers(0, 2),
    slots=st.sampled_from([None, 4, 6]),
)
def test_layout_is_that_of_rows_written_one_by_one(length, n_tokens, before, after, slots):
    width = 4
    layout = Layout.of(torch.tensor(length), width, n_tokens, before, after, slots)
    closing = before + width * n_tokens
    for row, count in enumerate(length):
        first = 0 if slots is None else slots - count
        end = count if slots is None else slots * n_tokens
        expected = [(place, place, -1) for place in range(before)]
        for item in range(count):
            for token in range(n_tokens):
                index = before + item * n_tokens + token
                expected.append((index, before + first + item, item))
        expected += [(closing + word, before + end + word, -1) for word in range(after)]
        valid = layout.valid[row]
        assert valid.tolist() == [True] * len(expected) + [False] * (len(valid) - len(expected))
        fields = (layout.index, layout.positions, layout.item)
        rows = [field[row][valid].tolist() for field in fields]
        assert list(zip(*rows, strict=True)) == expected


# --- what sees what -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", BACKBONES)
@torch.no_grad()
def test_order_inside_an_item_does_not_matter_and_order_of_items_does(family):
    reader = reader_of(family)
    items, length = sets_of(reader), torch.tensor([4, 2, 1])
    states = reader(items, length)
    order = torch.stack([torch.randperm(Q) for _ in range(12)]).view(3, 4, Q, 1)
    shuffled = items.gather(2, order.expand_as(items))
    torch.testing.assert_close(reader(shuffled, length), states, **CLOSE)
    swapped = items[:, [1, 0, 2, 3]]
    changed = (reader(swapped, length) - states).abs().amax((1, 2))
    assert (changed[:2] > 1e-3).all()


@pytest.mark.parametrize("family", BACKBONES)
@torch.no_grad()
def test_a_query_changes_its_own_state_alone(family):
    reader = reader_of(family)
    items, length = sets_of(reader), torch.tensor([4, 2, 3])
    states = reader(items, length)
    for query in range(Q):
        before = reader.queries[query].clone()
        reader.queries[query] += torch.randn_like(before)
        changed = (reader(items, length) - states).abs().amax((0, 2))
        reader.queries[query] = before
        assert changed[query] > 1e-3
        others = [other for other in range(Q) if other != query]
        torch.testing.assert_close(changed[others], torch.zeros(Q - 1), **CLOSE)


@pytest.mark.parametrize("family", BACKBONES)
def test_with_gradients_and_without_the_states_are_equal(family):
    """Decoder-only models read prompt and queries in one pass in training, in two otherwise."""
    reader = reader_of(family)
    items, length = sets_of(reader), torch.tensor([4, 2, 1])
    with torch.no_grad():
        states = reader(items, length)
    torch.testing.assert_close(reader(items, length), states, **CLOSE)


@pytest.mark.parametrize("position", [None, 5])
@pytest.mark.parametrize("family", ["t5", "llama", "opt"])
@torch.no_grad()
def test_a_padded_batch_equals_single_rows(family, position):
    reader = reader_of(family, slots=position)
    items, length = sets_of(reader), torch.tensor([4, 2, 1])
    states = reader(items, length)
    for row, count in enumerate(length.tolist()):
        alone = reader(items[row : row + 1, :count], length[row : row + 1])
        torch.testing.assert_close(alone[0], states[row], **CLOSE)


@pytest.mark.parametrize("official", [False, True])
@torch.no_grad()
def test_a_sibling_leaves_a_token_alone_in_one_layer(official):
    reader = reader_of("t5", n_layers=1, official_mask=official)
    items, length = sets_of(reader, users=1), torch.tensor([4])

    def encoded(items):
        source, layout = reader.source(items, length)
        sees = reader.visible(layout.item)
        return reader.backbone.encode(source, layout.valid, layout.positions, sees)

    before = encoded(items)
    items[0, 2, 1] += 1.0
    changed = (encoded(items) - before).abs().amax(2)[0]
    first = len(reader.instruction) + 2 * Q
    siblings = torch.tensor([first, first + 2])
    assert changed[first + 1] > 1e-3 and changed[0] > 1e-4
    assert bool((changed[siblings] > 1e-4).all()) == official


@torch.no_grad()
def test_with_plain_mask_and_positions_the_encoder_is_that_of_transformers():
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

    torch.manual_seed(0)
    lm = T5ForConditionalGeneration(T5Config(vocab_size=5, **T5)).eval()
    source, mask = torch.randn(2, 9, 32), torch.ones(2, 9, dtype=torch.bool)
    mask[1, 6:] = False
    expected = lm.encoder(inputs_embeds=source, attention_mask=mask.long()).last_hidden_state
    states = EncoderDecoderBackbone(lm).encode(source, mask)
    torch.testing.assert_close(states[mask], expected[mask], **CLOSE)


# --- tokens ---------------------------------------------------------------------------------------


def test_the_semantic_latent_is_cut_into_tokens_after_the_collaborative_one():
    torch.manual_seed(0)
    tokens = ItemTokens(4, 6, AutoEncoder(10, [8, 7], 3, 4))
    cf, texts = torch.randn(5, 6), torch.randn(5, 10)
    table = tokens(cf, texts)
    assert table.shape == (5, 4, 4)
    torch.testing.assert_close(table[:, 0], tokens.cf_projection(cf))
    torch.testing.assert_close(table[:, 1:].flatten(1), tokens.auto_encoder.encoder(texts))
    assert [type(layer).__name__ for layer in tokens.auto_encoder.encoder] == [
        "Linear",
        "ReLU",
        "Linear",
        "ReLU",
        "Linear",
    ]


def test_the_reconstruction_counts_every_occurrence_and_no_padding():
    torch.manual_seed(0)
    tokens = ItemTokens(4, 6, AutoEncoder(10, [8], 3, 4))
    texts = torch.randn(6, 10)
    table = tokens(torch.randn(6, 6), texts)
    history = torch.tensor([[1, 3, 3], [2, 0, 0]])
    x = texts[[1, 3, 3, 2]]
    rebuilt = tokens.auto_encoder.decoder(tokens.auto_encoder.encoder(x))
    expected = ((x - rebuilt) ** 2).mean()
    torch.testing.assert_close(tokens.reconstruction_loss(table, texts, history), expected)


def test_cold_items_follow_the_policy():
    torch.manual_seed(0)
    vectors = torch.randn(6, 8) * 3
    known = torch.tensor([False, True, True, False, True, False])
    vectors[~known] = 0
    names = ["[PAD]", "a", "b", "c", "d", "e"]
    assert torch.equal(fill_cold(vectors, known, names, "zero"), vectors)
    mean = fill_cold(vectors, known, names, "mean")
    torch.testing.assert_close(mean[3], vectors[known].mean(0))
    noise = fill_cold(vectors, known, names, "keep")
    assert torch.equal(noise[[3, 5]], cold_vectors(vectors[known], ["c", "e"], "keep"))
    assert not torch.equal(noise[3], noise[5]) and (noise[3].norm() / 3).item() > 1
    assert torch.equal(noise[known], vectors[known]) and not noise[0].any()
    again = fill_cold(vectors[[0, 1, 5, 2]], known[[0, 1, 5, 2]], ["[PAD]", "a", "e", "b"], "keep")
    torch.testing.assert_close(again[2].sign(), noise[5].sign())  # follows the id, not the place


# --- losses and scores ----------------------------------------------------------------------------


def test_the_generation_loss_by_hand():
    """Five items, two queries, plain Python; class 0 is nowhere."""
    torch.manual_seed(0)
    tokens, states = torch.randn(6, 2, 3), torch.randn(2, 2, 3)
    target = torch.tensor([5, 1])
    terms = []
    for user in range(2):
        for query in range(2):
            scores = [
                sum(float(states[user, query, i] * tokens[item, query, i]) for i in range(3))
                for item in range(1, 6)
            ]
            total = math.log(sum(math.exp(score) for score in scores))
            terms.append(total - scores[target[user] - 1])
    loss = generation_loss(states, tokens, target)
    assert loss.item() == pytest.approx(sum(terms) / 4, abs=1e-5)
    tokens[0] += 100
    assert generation_loss(states, tokens, target).item() == loss.item()


def test_a_sample_of_every_item_once_gives_the_full_loss():
    torch.manual_seed(0)
    tokens, states = torch.randn(9, 2, 3), torch.randn(4, 2, 3)
    target, negatives = torch.tensor([5, 1, 8, 5]), torch.arange(1, 9)
    full = generation_loss(states, tokens, target)
    sampled = sampled_generation_loss(states, tokens[target], tokens[1:], target, negatives, 8)
    torch.testing.assert_close(sampled, full)


def test_the_correction_makes_the_denominator_right_on_average():
    torch.manual_seed(0)
    tokens, states = torch.randn(21, 1, 3), torch.randn(1, 1, 3)
    target = torch.tensor([7])
    scores = component_scores(states, tokens)[0, 0]
    estimates = []
    for _ in range(3000):
        negatives = torch.randint(1, 21, (5,))
        if bool((negatives == 7).all()):
            continue
        loss = sampled_generation_loss(
            states, tokens[target], tokens[negatives], target, negatives, 20
        )
        estimates.append((loss + scores[7]).exp())  # the denominator
    expected = scores[1:].exp().sum()
    assert torch.stack(estimates).mean().item() == pytest.approx(expected.item(), rel=0.03)


def test_weights_are_not_shared_out_among_the_semantic_tokens():
    beta = torch.tensor(0.3)
    torch.testing.assert_close(token_weights(beta, 1, 3), torch.tensor([0.7, 0.3, 0.3, 0.3]))
    assert token_weights(beta, 1, 0).tolist() == [1.0]
    assert token_weights(beta, 0, 2).tolist() == [1.0, 1.0]


def test_scales_of_scores():
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 7) * 5 + 2
    assert normalised(scores, None) is scores
    z = normalised(scores, "zscore")[..., 1:]
    torch.testing.assert_close(z.mean(2), torch.zeros(2, 3), **CLOSE)
    torch.testing.assert_close(z.std(2), torch.ones(2, 3), **CLOSE)
    logs = normalised(scores, "logsoftmax")[..., 1:]
    torch.testing.assert_close(logs, scores[..., 1:].log_softmax(2))


@pytest.mark.parametrize("way", ["history", "candidates"])
def test_gradients_reach_the_auto_encoder_by_history_and_by_candidates(way):
    reader = reader_of("t5")
    tokens = ItemTokens(32, 6, AutoEncoder(10, [8], Q - 1, 32))
    cf = torch.randn(6, 6)
    table = tokens(cf, torch.randn(6, 10))
    read, ranked = (table, table.detach()) if way == "history" else (table.detach(), table)
    history, length = torch.tensor([[1, 3, 2], [4, 0, 0]]), torch.tensor([3, 1])
    states = reader(read[history], length)
    generation_loss(states, ranked, torch.tensor([5, 2])).backward()
    for parameter in tokens.auto_encoder.encoder.parameters():
        assert parameter.grad.abs().max() > 0
    assert tokens.cf_projection.weight.grad.abs().max() > 0
    for parameter in tokens.auto_encoder.decoder.parameters():
        assert parameter.grad is None
