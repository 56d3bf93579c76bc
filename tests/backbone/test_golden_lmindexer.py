"""The query stream of T5 layers against LMIndexer's published reconstructor.

``lmindexer_quantize.npz`` was written by LMIndexer (commit e6dc4cc) on transformers 4.41.2 in
float64; attention softmax and norms ran in float32, hence the tolerance.
"""

from __future__ import annotations

import pytest
import torch
from golden.loading_t5 import arrays
from torch import Tensor
from torch.nn.functional import cross_entropy

from recbole_genrec.backbone import QueryStream, load_encoder_decoder

CLOSE = {"atol": 5e-5, "rtol": 0}


def published_stream(golden: dict[str, Tensor], level: str) -> QueryStream:
    settings = {
        name: golden[name].item() for name in ("d_model", "d_kv", "d_ff", "num_heads", "num_layers")
    }
    stream = QueryStream(load_encoder_decoder("scratch", settings)).double().eval()
    prefix = f"{level}/w:"
    weights = {
        name.removeprefix(prefix): value
        for name, value in golden.items()
        if name.startswith(prefix)
    }
    stream.load_state_dict(weights)
    return stream


def quantised(states: Tensor, codebook: Tensor) -> Tensor:
    """The chosen row of the codebook, with the gradient of the soft mixture."""
    scores = states @ codebook.T
    soft = scores.softmax(-1) @ codebook
    return soft + (codebook[scores.argmax(-1)] - soft).detach()


def test_first_level_with_losses_and_gradients():
    golden = arrays("lmindexer_quantize")
    stream = published_stream(golden, "l1")
    names = ("states", "states2", "codebook", "token_table", "head")
    leaves = {name: golden[f"l1/{name}"].clone().requires_grad_() for name in names}
    code = quantised(leaves["states"], leaves["codebook"]).unsqueeze(1)
    words = leaves["token_table"][golden["l1/token_ids"]]
    hidden = stream(code, torch.cat([code, words], dim=1), golden["l1/visible"].bool())
    torch.testing.assert_close(hidden, golden["l1/hidden"], **CLOSE)

    logits = hidden @ leaves["head"].T
    restored = cross_entropy(logits.flatten(0, 1), golden["l1/labels"].flatten())
    torch.testing.assert_close(restored, golden["l1/recon_loss"], **CLOSE)
    pairs = leaves["states"] @ leaves["states2"].T
    loss = restored + cross_entropy(pairs, torch.arange(len(pairs)))
    torch.testing.assert_close(loss, golden["l1/loss"], **CLOSE)
    loss.backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(leaf.grad, golden[f"l1/grad_{name}"], **CLOSE)


@torch.no_grad()
def test_second_level_with_two_streams():
    golden = arrays("lmindexer_quantize")
    stream, table = published_stream(golden, "l2"), golden["l2/token_table"]
    states = golden["l2/states_k"].unsqueeze(1)
    before = table[golden["l2/prev_ids"]]
    code = quantised(states, golden["l2/codebook"])
    sequence = torch.cat([before, code, table[golden["l2/token_ids"]]], dim=1)
    visible = golden["l2/visible"].bool()
    for number, queries in enumerate((before, states)):
        expected = golden["l2/hidden_streams"][number]
        torch.testing.assert_close(stream(queries, sequence, visible), expected, **CLOSE)


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_a_hidden_token_does_not_reach_its_own_state_in_one_layer(layers):
    torch.manual_seed(0)
    settings = {"d_model": 12, "d_kv": 6, "d_ff": 20, "num_heads": 2, "num_layers": layers}
    stream = QueryStream(load_encoder_decoder("scratch", settings)).eval()
    queries, sequence = torch.randn(2, 1, 12), torch.randn(2, 6, 12)
    sees = ~torch.eye(6, dtype=torch.bool)
    changed = sequence.clone()
    changed[:, 3] += torch.randn(12)
    difference = stream(queries, changed, sees) - stream(queries, sequence, sees)
    moved = difference.abs().amax((0, 2)) > 1e-6
    assert moved[[0, 1, 2, 4, 5]].all()
    assert moved[3] == (layers > 1)
    only_codes = torch.zeros(6, 6, dtype=torch.bool)
    only_codes[:, 0] = True
    again = stream(queries, changed, only_codes) - stream(queries, sequence, only_codes)
    assert again.abs().max() < 1e-6
