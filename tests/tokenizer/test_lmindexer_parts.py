"""Quantiser, reconstructor, losses and sampler of LMIndexer's tokenizer."""

from __future__ import annotations

import pytest
import torch
from lmindexer import TINY_LM, tokenizer

from recbole_genrec.backbone import EncoderDecoderBackbone, QueryStream, load_encoder_decoder
from recbole_genrec.backbone.encoder_decoder.build import narrow_settings
from recbole_genrec.tokenizer.lmindexer.inspection import distinct_share
from recbole_genrec.tokenizer.lmindexer.losses import batch_contrast, sibling_contrast
from recbole_genrec.tokenizer.lmindexer.network import IndexerNetwork, random_view, with_end
from recbole_genrec.tokenizer.lmindexer.quantiser import quantise
from recbole_genrec.tokenizer.lmindexer.siblings import Siblings
from recbole_genrec.tokenizer.lmindexer.stages import PositionStage, Texts, WarmUp

VOCABULARY = 30
SIZES = (4, 5, 3)


@pytest.fixture
def network() -> IndexerNetwork:
    torch.manual_seed(0)
    lm = load_encoder_decoder("scratch", {**TINY_LM, "vocab_size": VOCABULARY})
    weak = load_encoder_decoder("scratch", narrow_settings(lm.config, 1))
    backbone = EncoderDecoderBackbone(lm, text=True)
    return IndexerNetwork(backbone, QueryStream(weak), SIZES, end=2).eval()


@pytest.fixture
def texts() -> Texts:
    torch.manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (12, 6))
    lengths = torch.tensor([6, 5, 6, 2, 4, 6, 1, 3, 6, 6, 5, 4])
    valid = torch.arange(6) < lengths.unsqueeze(1)
    return Texts(ids * valid, valid)


# --- quantiser ----------------------------------------------------------------------------------


def test_the_value_is_the_chosen_code_and_gradients_reach_all_rows():
    torch.manual_seed(0)
    states = torch.randn(6, 8, requires_grad=True)
    codebook = torch.randn(5, 8, requires_grad=True)
    out, codes = quantise(states, codebook)
    best = torch.tensor(
        [max(range(5), key=lambda k: float(h @ codebook[k])) for h in states.detach()]
    )
    assert codes.equal(best)
    torch.testing.assert_close(out, codebook[best], atol=1e-6, rtol=0)
    (out * torch.randn_like(out)).sum().backward()
    assert (states.grad.abs().sum(1) > 0).all() and (codebook.grad.abs().sum(1) > 0).all()


# --- reconstructor ------------------------------------------------------------------------------


def test_half_precision_chooses_the_same_codes():
    torch.manual_seed(0)
    states, codebook = torch.randn(64, 32), torch.randn(16, 32)
    _, codes = quantise(states, codebook)
    contrast = batch_contrast(states, states.flip(1))
    siblings = codebook.expand(64, -1, -1)[:, :4]
    sibling = sibling_contrast(states, siblings, torch.ones(64, 3, dtype=torch.bool))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantise(states, codebook)[1], codes)
        assert torch.equal(batch_contrast(states, states.flip(1)), contrast)
        again = sibling_contrast(states, siblings, torch.ones(64, 3, dtype=torch.bool))
        assert torch.equal(again, sibling)


def test_without_a_visible_token_only_the_id_counts(network, texts):
    batch = texts[torch.arange(3)]
    current, prefix = torch.randn(3, 32), torch.zeros(3, 1, dtype=torch.long)
    with torch.no_grad():
        logits, _ = network.restore(batch, prefix, current, 1.0)
        other = torch.where(batch[1], (batch[0] + 5) % VOCABULARY, 0)
        unchanged, _ = network.restore((other, batch[1]), prefix, current, 1.0)
        moved, _ = network.restore(batch, prefix, current + 1, 1.0)
    torch.testing.assert_close(logits, unchanged)
    assert (logits - moved).abs().max() > 1e-3


def test_with_all_tokens_visible_a_token_does_not_reach_itself(network):
    ids = torch.tensor([[7, 8, 9, 10]])
    valid = torch.ones_like(ids, dtype=torch.bool)
    current, prefix = torch.randn(1, 32), torch.zeros(1, 0, dtype=torch.long)
    with torch.no_grad():
        before, _ = network.restore((ids, valid), prefix, current, 0.0)
        changed = ids.clone()
        changed[0, 2] = 20
        after, _ = network.restore((changed, valid), prefix, current, 0.0)
    moved = (before - after).abs().amax(1) > 1e-5
    assert moved.tolist() == [True, True, False, True]


def test_what_a_place_sees():
    torch.manual_seed(0)
    valid = torch.tensor([[True] * 200, [True] * 150 + [False] * 50])
    sees = random_view(valid, 2, 0.7)
    assert sees[:, :, :2].all() and not sees[1, :, 152:].any()
    text = sees[0, 2:, 2:]
    assert not text.diagonal().any()
    assert abs(float(text.float().sum() / (200 * 199)) - 0.3) < 0.01
    assert not random_view(valid, 2, 1.0)[:, :, 2:].any()
    everything = random_view(valid, 2, 0.0)[0, 2:, 2:]
    assert everything.sum() == 200 * 199


@pytest.mark.parametrize("level", range(len(SIZES)))
def test_the_reconstructor_reads_codes_and_nothing_beside_them(network, texts, level):
    rows = torch.arange(4)
    prefix = torch.tensor([[1, 2], [0, 3], [3, 3], [2, 0]])[:, :level]
    torch.manual_seed(5)
    states = torch.randn(4, 32)
    with torch.no_grad():
        current, codes = network.quantise(states, level)
        torch.manual_seed(9)
        logits, _ = network.restore(texts[rows], prefix, current, 0.5)
        nudged, same_codes = network.quantise(states + 1e-3 * torch.randn_like(states), level)
        assert same_codes.equal(codes)
        torch.manual_seed(9)
        again, _ = network.restore(texts[rows], prefix, nudged, 0.5)
    torch.testing.assert_close(logits, again, atol=1e-5, rtol=0)


def test_the_query_is_the_sum_over_all_positions(network, texts):
    """Against the same computation written out for one item."""
    ids, valid = texts[torch.tensor([0])]
    prefix, current = torch.tensor([[1, 4]]), torch.randn(1, 32)
    with torch.no_grad():
        logits, labels = network.restore((ids, valid), prefix, current, 0.0)
        first, second = network.codebook(0)[1], network.codebook(1)[4]
        slots = torch.stack([first, second, current[0]])
        sequence = torch.cat([slots, network.backbone.text_table.weight[ids[0]]])
        sees = ~torch.eye(len(sequence), dtype=torch.bool)
        sees[:, :3] = True
        query = (first + second + current[0]).view(1, 1, -1)
        hidden = network.reconstructor(query, sequence.unsqueeze(0), sees)[0, 3:]
        expected = hidden * 32**-0.5 @ network.backbone.text_table.weight.T
    torch.testing.assert_close(logits, expected)
    assert labels.equal(ids[0])


def test_an_end_token_stands_behind_every_text(texts):
    ids, valid = with_end(texts[torch.tensor([0, 6])], end=2)
    assert ids[0].tolist() == [*texts.ids[0].tolist(), 2] and valid[0].all()
    assert ids[1].tolist() == [int(texts.ids[6, 0]), 2, 0, 0, 0, 0, 0]
    assert valid[1].tolist() == [True, True, False, False, False, False, False]


# --- siblings -----------------------------------------------------------------------------------


def test_negatives_share_the_prefix_and_are_others():
    torch.manual_seed(0)
    prefix = torch.randint(0, 3, (100, 2))
    prefix[7] = torch.tensor([9, 9])  # alone
    prefix[8:10] = torch.tensor([8, 8])  # two of them
    siblings = Siblings(prefix)
    generator = torch.Generator().manual_seed(1)
    items = torch.arange(100)
    seen = torch.zeros(100, 100, dtype=torch.bool)
    for _ in range(40):
        drawn, valid = siblings.draw(items, 4, generator)
        assert drawn.shape == valid.shape == (100, 4)
        for item in items.tolist():
            others = drawn[item][valid[item]]
            assert (prefix[others] == prefix[item]).all() and item not in others.tolist()
            assert len(others.unique()) == len(others)
            group = int((prefix == prefix[item]).all(1).sum())
            assert len(others) == min(4, group - 1)
            seen[item, others] = True
    assert not valid[7].any() and valid[8].sum() == 1
    same = (prefix.unsqueeze(0) == prefix.unsqueeze(1)).all(-1)
    assert seen.equal(same & ~torch.eye(100, dtype=torch.bool)), "every sibling is drawn"


def test_an_item_alone_adds_nothing_to_the_contrast():
    torch.manual_seed(0)
    states, candidates = torch.randn(3, 8), torch.randn(3, 3, 8)
    valid = torch.tensor([[True, False], [False, False], [True, True]])
    loss = sibling_contrast(states, candidates, valid)
    losses = []
    for item, count in ((0, 2), (2, 3)):
        scores = candidates[item, :count] @ states[item]
        losses.append(-scores.log_softmax(0)[0])
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    nothing = torch.zeros(3, 2, dtype=torch.bool)
    states.requires_grad_()
    alone = sibling_contrast(states, candidates, nothing)
    assert float(alone) == 0.0
    alone.backward()
    assert not states.grad.any()


def test_the_share_of_distinct_codes():
    prefix = torch.tensor([[0], [0], [0], [1], [2], [2]])
    codes = torch.tensor([5, 5, 6, 5, 1, 2])
    assert distinct_share(prefix, codes) == pytest.approx(4 / 5)
    assert distinct_share(prefix[:, :0], codes) == pytest.approx(4 / 6)
    assert distinct_share(torch.arange(6).unsqueeze(1), codes) == 1.0


# --- stages -------------------------------------------------------------------------------------


def settings(**changes):
    return tokenizer(**changes).settings


def steps(stage, count: int = 3) -> None:
    stage.network.train()
    stage.begin_epoch(0)
    for rows in stage.batches(0)[:count]:
        stage.optimiser.zero_grad()
        stage.losses(rows)["total"].backward()
        stage.optimiser.step()
        stage.schedule.step()


def changed(network, before) -> set[str]:
    now = network.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, now[name])}


def copied(network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_the_warm_up_trains_the_reconstructor_alone(network, texts):
    before = copied(network)
    steps(WarmUp(network, texts, settings(stage_batch=[4, 4], stage_epochs=[5, 0, 0]), 1))
    moved = changed(network, before)
    assert moved and all(name.startswith("reconstructor.") for name in moved)


def test_without_codes_the_codebook_stays_and_in_the_joint_stage_it_moves(network, texts):
    options = settings(stage_batch=[4, 4], stage_epochs=[0, 5, 5])
    nothing = torch.zeros(12, 0, dtype=torch.long)
    for quantised in (False, True):
        before = copied(network)
        stage = PositionStage("a", network, texts, nothing, options, 1, quantised)
        steps(stage)
        moved = changed(network, before)
        assert any(name.startswith("backbone.encoder") for name in moved)
        assert any(name.startswith("reconstructor.") for name in moved)
        assert ("codes.embedding" in moved) == quantised


def test_losses_of_a_later_position(network, texts):
    """Each part against a computation item by item, without dropout."""
    options = settings(stage_batch=[4, 12], hard_negatives=2)
    prefix = torch.tensor([[0, 1]] * 3 + [[2, 4]] + [[1, 0]] * 8)
    stage = PositionStage("a", network, texts, prefix, options, 1, quantised=True)
    stage.mask_rate = 1.0  # nothing is drawn
    rows = torch.tensor([0, 3, 5])
    state = stage.generator.get_state()
    with torch.no_grad():
        losses = stage.losses(rows)
        stage.generator.set_state(state)
        drawn, valid = stage.siblings.draw(rows, 2, stage.generator)
        assert valid.tolist() == [[True, True], [False, False], [True, True]]

        def state_of(item):
            item = torch.tensor([item])
            return network.decode(network.read(texts[item]), prefix[item])[0]

        contrast = []
        for place in (0, 2):
            own = state_of(rows[place])[-1]
            others = [state_of(item)[-1] for item in drawn[place]]
            contrast.append(-torch.stack([own @ own, *(own @ h for h in others)]).log_softmax(0)[0])
        torch.testing.assert_close(losses["contrast"], torch.stack(contrast).mean())

        candidates = [*rows.tolist(), *drawn[valid].tolist()]
        table = torch.cat([network.codebook(0), network.codebook(1)])
        commit, recon = [], []
        for item in candidates:
            states = state_of(item)
            for level, offset in ((0, 0), (1, SIZES[0])):
                scores = table @ states[level] * 32**-0.5
                commit.append(-scores.log_softmax(0)[offset + prefix[item, level]])
            code = int((network.codebook(2) @ states[-1]).argmax())
            current = network.codebook(2)[code].unsqueeze(0)
            one = torch.tensor([item])
            logits, labels = network.restore(texts[one], prefix[one], current, 1.0)
            recon += [-row.log_softmax(0)[label] for row, label in zip(logits, labels, strict=True)]
        torch.testing.assert_close(losses["commit"], torch.stack(commit).mean())
        torch.testing.assert_close(losses["recon"], torch.stack(recon).mean())
        total = losses["recon"] + losses["contrast"] + losses["commit"]
        torch.testing.assert_close(losses["total"], total)
