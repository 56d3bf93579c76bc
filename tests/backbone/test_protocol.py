"""The protocol of all backbones against transformers' own passes: positions, masks, text, codes."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
import torch
from decoders import random_codes
from language_models import FAMILIES as CAUSAL_FAMILIES
from language_models import text_vocabulary
from torch import Tensor, nn

from recbole_genrec.backbone import (
    Backbone,
    BeamDecoder,
    CausalBackbone,
    CausalDecoder,
    CodeVocabulary,
    EncoderDecoderBackbone,
    load_causal_lm,
    load_encoder_decoder,
)
from recbole_genrec.backbone.visibility import causal, only_itself, without_siblings
from recbole_genrec.decoding import ItemTrie, exact_scores
from recbole_genrec.errors import BackboneError

CLOSE = {"atol": 1e-5, "rtol": 0}
CAUSAL = ["opt", "llama", "qwen3"]
KINDS = [*CAUSAL, "t5", "mt5"]
WIDTH = 32
T5 = {"d_model": WIDTH, "d_kv": 8, "d_ff": 40, "num_heads": 2, "num_layers": 2, "vocab_size": 300}
USERS, SIZE, QUERIES = 3, 9, 4


def build(kind: str) -> tuple[nn.Module, Backbone]:
    """A model of transformers and the backbone on the same weights, in evaluation mode."""
    torch.manual_seed(0)
    if kind in CAUSAL_FAMILIES:
        vocabulary = text_vocabulary().backend_tokenizer.to_str()
        lm = load_causal_lm("scratch", CAUSAL_FAMILIES[kind], vocabulary=vocabulary)[0].eval()
        return lm, CausalBackbone(lm)
    settings = {**T5, "model_type": kind}
    lm = load_encoder_decoder("scratch", settings).eval()
    for stack in (lm.encoder, lm.decoder):
        nn.init.normal_(stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight)
    peer = load_encoder_decoder("scratch", settings).eval()
    peer.load_state_dict(lm.state_dict())
    peer.set_attn_implementation("eager")
    return peer, EncoderDecoderBackbone(lm, text=True)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


def right_padded(lengths: tuple[int, ...] = (5, 9, 2), size: int = SIZE) -> Tensor:
    return torch.arange(size) < torch.tensor(lengths).unsqueeze(1)


def added(visible: Tensor) -> Tensor:
    """A 4-D mask in the form that transformers adds to the scores."""
    hidden = torch.finfo(torch.float32).min
    return torch.zeros(visible.shape).masked_fill(~visible, hidden)


def random_mask(size: int) -> Tensor:
    """Each token sees itself, the first one and half of the others."""
    visible = draw(USERS, size, size) > 0
    visible[..., 0] = True
    return visible | torch.eye(size, dtype=torch.bool)


def test_both_backbones_offer_the_whole_protocol():
    names = [name for name in vars(Backbone) if not name.startswith("_")]
    assert {"read", "decode", "text_table", "text_logits"} <= set(names)
    for backbone in (CausalBackbone, EncoderDecoderBackbone):
        for name in names:
            wanted = vars(Backbone)[name]
            if inspect.isfunction(wanted):
                present = inspect.signature(getattr(backbone, name))
                assert list(present.parameters) == list(inspect.signature(wanted).parameters)
            else:
                assert hasattr(backbone, name)
    for kind in KINDS:
        backbone = build(kind)[1]
        for name in Backbone.__annotations__:
            assert isinstance(getattr(backbone, name), (int, float))


# --- parity with transformers --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["t5", "mt5"])
@torch.no_grad()
def test_masks_of_an_encoder_decoder_equal_transformers(kind):
    lm, backbone = build(kind)
    source, queries, valid = draw(USERS, SIZE, WIDTH), draw(USERS, QUERIES, WIDTH), right_padded()
    sees, between = random_mask(SIZE), random_mask(QUERIES)
    visible = (sees & valid.unsqueeze(1)).unsqueeze(1)
    encoded = lm.encoder(inputs_embeds=source, attention_mask=added(visible))
    ours = backbone.encode(source, valid, sees=sees)
    torch.testing.assert_close(ours[valid], encoded.last_hidden_state[valid], **CLOSE)

    theirs = lm.decoder(
        inputs_embeds=queries,
        attention_mask=added(between.unsqueeze(1)),
        encoder_hidden_states=encoded.last_hidden_state,
        encoder_attention_mask=valid.long(),
        use_cache=False,
    ).last_hidden_state
    memory = backbone.read(source, valid, sees=sees)
    torch.testing.assert_close(backbone.decode(queries, memory, sees=between), theirs, **CLOSE)
    added_mask = torch.zeros(between.shape).masked_fill(~between, -torch.inf)
    again = backbone.decode(queries, memory, sees=added_mask)
    torch.testing.assert_close(again, theirs, **CLOSE)
    one_user = backbone.decode(queries[1:2], memory.select(torch.tensor([1])), sees=between[1])
    torch.testing.assert_close(one_user, theirs[1:2], **CLOSE)
    plain = backbone.decode(queries, backbone.read(source, valid))
    assert (plain - theirs).abs().max() > 0.05


@pytest.mark.parametrize("per_user", [False, True])
@torch.no_grad()
def test_positions_of_an_encoder_decoder_are_those_of_a_sequence_with_gaps(per_user):
    lm, backbone = build("t5")
    places = torch.tensor([[0, 3, 4, 8], [0, 3, 4, 8]])
    if per_user:
        places[1] = torch.tensor([1, 2, 6, 7])
    source, queries = draw(2, 4, WIDTH), draw(2, 2, WIDTH)
    index = places.unsqueeze(-1).expand(-1, -1, WIDTH)
    spread = torch.full((2, SIZE, WIDTH), 3.0).scatter(1, index, source)
    mask = torch.zeros(2, SIZE, dtype=torch.long).scatter(1, places, 1)
    encoded = lm.encoder(inputs_embeds=spread, attention_mask=mask).last_hidden_state

    positions = places
    if not per_user:
        positions = places[0] + 100  # only distances count
    valid = torch.ones(2, 4, dtype=torch.bool)
    ours = backbone.encode(source, valid, positions=positions)
    torch.testing.assert_close(ours, encoded.gather(1, index), **CLOSE)

    # queries at positions 0 and 4: transformers reads three tokens between them that nobody sees
    padded = torch.cat([queries[:, :1], draw(2, 3, WIDTH), queries[:, 1:]], dim=1)
    visible = torch.eye(5, dtype=torch.bool)
    visible[4, 0] = True
    theirs = lm.decoder(
        inputs_embeds=padded,
        attention_mask=added(visible.expand(2, 1, 5, 5)),
        encoder_hidden_states=encoded,
        encoder_attention_mask=mask,
        use_cache=False,
    ).last_hidden_state[:, [0, 4]]
    memory = backbone.read(source, valid, positions=positions)
    states = backbone.decode(queries, memory, positions=torch.tensor([0, 4]))
    torch.testing.assert_close(states, theirs, **CLOSE)


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
def test_positions_and_masks_of_a_causal_model_equal_transformers(kind, custom, gradients):
    lm, backbone = build(kind)
    source, queries, valid = draw(USERS, SIZE, WIDTH), draw(USERS, QUERIES, WIDTH), right_padded()
    positions, sees = torch.arange(SIZE).expand(USERS, -1), causal(SIZE, valid.device)
    after, between = torch.arange(QUERIES), causal(QUERIES, valid.device)
    if custom:
        positions = torch.tensor(
            [[0, 1, 1, 1, 2, 0, 0, 0, 0], [0, 4, 4, 4, 5, 5, 6, 7, 9], [3] * 9]
        )
        sees, between = random_mask(SIZE).tril(), random_mask(QUERIES)
        after = torch.tensor([0, 0, 2, 1])

    end = positions.masked_fill(~valid, 0).amax(1, keepdim=True) + 1
    visible = torch.zeros(USERS, SIZE + QUERIES, SIZE + QUERIES, dtype=torch.bool)
    visible[:, :SIZE, :SIZE] = sees & valid.unsqueeze(1)
    visible[:, SIZE:, :SIZE] = valid.unsqueeze(1)
    visible[:, SIZE:, SIZE:] = between
    theirs = lm.base_model(
        inputs_embeds=torch.cat([source, queries], dim=1),
        attention_mask=visible.unsqueeze(1),
        position_ids=torch.cat([positions, end + after], dim=1),
        use_cache=False,
    ).last_hidden_state[:, SIZE:]

    given = {"positions": positions, "sees": sees} if custom else {}
    asked = {"positions": after, "sees": between} if custom else {}
    with torch.set_grad_enabled(gradients):
        memory = backbone.read(source, valid, **given)
        for _ in range(2):  # the memory stays as it is
            states = backbone.decode(queries, memory, **asked)
            torch.testing.assert_close(states, theirs, **CLOSE)
        if custom:
            asked["sees"] = torch.zeros(between.shape).masked_fill(~between, -torch.inf)
            states = backbone.decode(queries, memory, **asked)
            torch.testing.assert_close(states, theirs, **CLOSE)
            asked["sees"] = between[[2, 0]]
        rows = torch.tensor([2, 0])
        states = backbone.decode(queries[rows], memory.select(rows), **asked)
        torch.testing.assert_close(states, theirs[rows], **CLOSE)
    assert states.requires_grad == gradients


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_text_logits_equal_transformers(kind):
    lm, backbone = build(kind)
    ids = torch.tensor([[5, 7, 11], [4, 9, 2]])
    valid = torch.ones_like(ids, dtype=torch.bool)
    if kind in CAUSAL:
        theirs = lm(input_ids=ids).logits[:, 1:]
        memory = backbone.read(backbone.text_table(ids[:, :1]), valid[:, :1])
        states = backbone.decode(backbone.text_table(ids[:, 1:]), memory)
    else:
        theirs = lm(input_ids=ids, decoder_input_ids=ids[:, :2]).logits
        memory = backbone.read(backbone.text_table(ids), valid)
        states = backbone.decode(backbone.text_table(ids[:, :2]), memory)
    torch.testing.assert_close(backbone.text_logits(states), theirs, **CLOSE)
    assert backbone.tied == (lm.get_output_embeddings().weight is lm.get_input_embeddings().weight)


# --- sets without an order (SETRec) --------------------------------------------------------------


def set_states(backbone: Backbone, items: Tensor, lengths: Tensor, queries: Tensor) -> Tensor:
    """States of queries after histories of item sets; the same lines for every backbone.

    Args:
        items: tokens of the history ``[B, T, n, d]``.
        lengths: items in each history ``[B]``.
        queries: ``[n, d]``.
    """
    users, slots, count, _ = items.shape
    item = torch.arange(slots).repeat_interleave(count)  # [T * n]
    valid = item < lengths.unsqueeze(1)
    sees = without_siblings(item.expand(users, -1))
    if isinstance(backbone, CausalBackbone):
        sees = sees & (item <= item.unsqueeze(1))
    memory = backbone.read(items.flatten(1, 2), valid, positions=item, sees=sees)
    return backbone.decode(
        queries.expand(users, -1, -1),
        memory,
        positions=torch.zeros(count, dtype=torch.long),
        sees=only_itself(count, queries.device),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gradients", [False, True])
def test_sets_have_no_order_and_queries_do_not_see_each_other(kind, gradients):
    backbone = build(kind)[1]
    items, queries, lengths = draw(2, 3, 4, WIDTH), draw(4, WIDTH), torch.tensor([3, 1])
    with torch.set_grad_enabled(gradients):
        states = set_states(backbone, items, lengths, queries)
        shuffled = set_states(backbone, items[:, :, [2, 0, 3, 1]], lengths, queries)
        torch.testing.assert_close(shuffled, states, **CLOSE)

        swapped = set_states(backbone, items[:, [1, 0, 2]], lengths, queries)
        assert (swapped[0] - states[0]).abs().max() > 1e-3
        other_query = torch.cat([draw(1, WIDTH), queries[1:]])
        moved = set_states(backbone, items, lengths, other_query)
        change = (moved - states).abs().amax((0, 2))
        assert change[0] > 1e-3 and change[1:].max() < 1e-5

        alone = set_states(backbone, items[1:, :1], lengths[1:], queries)
        torch.testing.assert_close(alone, states[1:], **CLOSE)


@torch.no_grad()
def test_siblings_do_not_reach_each_other_in_one_layer():
    torch.manual_seed(0)
    backbone = EncoderDecoderBackbone(load_encoder_decoder("scratch", {**T5, "num_layers": 1}))
    group = torch.tensor([[-1, 0, 0, 0, 1, 1, 1]])
    tokens, valid = draw(1, 7, WIDTH), torch.ones(1, 7, dtype=torch.bool)
    changed = tokens.clone()
    changed[:, 2] += 1
    before, after = (
        backbone.eval().encode(x, valid, sees=without_siblings(group)) for x in (tokens, changed)
    )
    difference = (after - before).abs().amax((0, 2))
    assert (difference[[1, 3]] < 1e-6).all() and (difference[[0, 2, 4, 5, 6]] > 1e-4).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_source_queries_and_weights(kind):
    backbone = build(kind)[1].train()
    items = draw(2, 3, 4, WIDTH).requires_grad_()
    queries = draw(4, WIDTH).requires_grad_()
    set_states(backbone, items, torch.tensor([3, 1]), queries).square().sum().backward()
    assert (queries.grad.abs().sum(1) > 0).all()
    reached = items.grad.abs().sum(-1) > 0  # [B, T, n]
    assert reached[0].all() and reached[1, 0].all() and not reached[1, 1:].any()


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_recomputed_activations_give_the_same_gradients(kind):
    gradients = []
    for recompute in (False, True):
        backbone = build(kind)[1].train()
        if recompute:
            backbone.checkpoint_gradients()
        items = draw(2, 3, 4, WIDTH).requires_grad_()
        states = set_states(backbone, items, torch.tensor([3, 1]), draw(4, WIDTH))
        states.square().sum().backward()
        gradients.append(items.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1], **CLOSE)


# --- codes beside text (LMIndexer, MetaID) -------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_codes_after_a_text_with_added_vectors_score_as_under_teacher_forcing(kind):
    backbone = build(kind)[1]
    sizes = (5, 4, 3)
    codes = CodeVocabulary(
        sizes, backbone.d_in, backbone.d_out, 1.0, backbone.tied, backbone.output_scale
    )
    table = random_codes(sizes, 20)
    ids, valid = torch.randint(3, 200, (USERS, SIZE)), right_padded()
    vectors, project = draw(300, 6), nn.Linear(6, WIDTH)
    source = backbone.text_table(ids) + 0.1 * project(vectors[ids])
    start = None if kind in CAUSAL else backbone.text_table.weight[0]
    log_probs = partial(codes.log_probs, score_type="joint")
    if kind in CAUSAL:
        decoder = CausalDecoder(backbone, source, valid.sum(1), codes.embed_code, log_probs)
    else:
        memory = backbone.read(source, valid)
        decoder = BeamDecoder(backbone, memory, start, codes.embed_code, log_probs)
    scores = exact_scores(decoder, ItemTrie(table, sizes), score_type="joint")[:, 1:]

    for user in range(USERS):
        length = int(valid[user].sum())
        paths = [codes.embed_code(table[1:, level], level) for level in range(2)]
        prompt = source[user, :length].expand(len(table) - 1, -1, -1)
        if kind in CAUSAL:
            opening, prompt = prompt[:, -1], prompt[:, :-1]
        else:
            opening = start.expand(len(table) - 1, -1)
        queries = torch.stack([opening, *paths], dim=1)
        shown = torch.ones(prompt.shape[:2], dtype=torch.bool)
        states = backbone.decode(queries, backbone.read(prompt, shown))
        expected = codes.logits(states).log_softmax(-1)
        expected = expected.gather(-1, codes.tokens(table[1:]).unsqueeze(-1)).sum((1, 2))
        torch.testing.assert_close(scores[user], expected, atol=1e-5, rtol=1e-6)


def test_what_a_backbone_cannot_do_it_says():
    lm = load_encoder_decoder("scratch", T5)
    without_text = EncoderDecoderBackbone(lm)
    with pytest.raises(BackboneError, match="built without its text table"):
        without_text.text_logits(draw(1, WIDTH))
    source, valid = draw(2, 3, WIDTH), torch.ones(2, 3, dtype=torch.bool)
    backbone = build("llama")[1]
    with pytest.raises(BackboneError, match="sequence of 65 tokens does not fit .* 64"):
        backbone.read(source, valid, positions=torch.tensor([0, 1, 64]))
    memory = backbone.read(source, valid)
    with pytest.raises(BackboneError, match="sequence of 69 tokens does not fit .* 64"):
        backbone.decode(source, memory, positions=torch.tensor([0, 65, 2]))
