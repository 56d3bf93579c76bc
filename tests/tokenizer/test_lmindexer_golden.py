"""Quantiser and losses of LMIndexer's tokenizer against numbers of the published code.

``lmindexer_quantize.npz`` was written by LMIndexer (commit e6dc4cc) on transformers 4.41.2 in
float64. Its second level reads the unquantised state in the query, which this package does not do;
the losses after the reconstructor are the same.
"""

from __future__ import annotations

import pytest
import torch
from golden.loading_t5 import arrays
from torch import Tensor

from recbole_genrec.backbone import QueryStream, load_encoder_decoder
from recbole_genrec.tokenizer.lmindexer.losses import (
    batch_contrast,
    commitment_loss,
    reconstruction_loss,
    sibling_contrast,
)
from recbole_genrec.tokenizer.lmindexer.quantiser import quantise

EXACT = {"atol": 1e-9, "rtol": 0}
CLOSE = {"atol": 5e-5, "rtol": 0}  # through T5, whose softmax and norms ran in float32


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return arrays("lmindexer_quantize")


def leaf(golden: dict[str, Tensor], name: str) -> Tensor:
    return golden[name].clone().requires_grad_()


def published_stream(golden: dict[str, Tensor], level: str) -> QueryStream:
    names = ("d_model", "d_kv", "d_ff", "num_heads", "num_layers")
    settings = {name: golden[name].item() for name in names}
    stream = QueryStream(load_encoder_decoder("scratch", settings)).double().eval()
    prefix = f"{level}/w:"
    named = {name: value for name, value in golden.items() if name.startswith(prefix)}
    stream.load_state_dict({name.removeprefix(prefix): value for name, value in named.items()})
    return stream


@pytest.mark.parametrize("number", [0, 1])
def test_the_quantiser_with_gradients(golden, number):
    states, codebook = leaf(golden, "q/states"), leaf(golden, "q/codebook")
    temperature = golden["q/temperatures"][number].item()
    out, codes = quantise(states, codebook, temperature)
    assert codes.equal(golden["q/code"])
    torch.testing.assert_close(out, golden[f"q/t{number}/out"], **EXACT)
    (out * golden["q/upstream"]).sum().backward()
    torch.testing.assert_close(states.grad, golden[f"q/t{number}/grad_states"], **EXACT)
    torch.testing.assert_close(codebook.grad, golden[f"q/t{number}/grad_codebook"], **EXACT)


def test_the_losses_of_position_1(golden):
    names = ("states", "states2", "codebook", "token_table", "head")
    leaves = {name: leaf(golden, f"l1/{name}") for name in names}
    current, codes = quantise(leaves["states"], leaves["codebook"])
    assert codes.equal(golden["l1/code"])

    words = leaves["token_table"][golden["l1/token_ids"]]
    sequence = torch.cat([current.unsqueeze(1), words], dim=1)
    visible = golden["l1/visible"].bool()
    hidden = published_stream(golden, "l1")(current.unsqueeze(1), sequence, visible)
    recon = reconstruction_loss(hidden @ leaves["head"].T, golden["l1/labels"])
    contrast = batch_contrast(leaves["states"], leaves["states2"])
    torch.testing.assert_close(recon, golden["l1/recon_loss"], **CLOSE)
    torch.testing.assert_close(contrast, golden["l1/contrastive_loss"], **EXACT)
    torch.testing.assert_close(recon + contrast, golden["l1/loss"], **CLOSE)

    (recon + contrast).backward()
    for name, tensor in leaves.items():
        torch.testing.assert_close(tensor.grad, golden[f"l1/grad_{name}"], **CLOSE)


def test_the_losses_of_position_2(golden):
    names = ("states_q", "states_k", "prev_logits", "codebook", "head")
    leaves = {name: leaf(golden, f"l2/{name}") for name in names}
    states, candidates = leaves["states_q"], leaves["states_k"]
    current, codes = quantise(candidates, leaves["codebook"])
    groups = len(states)
    assert codes.unflatten(0, (groups, -1)).equal(golden["l2/code"])

    # The published two streams, one query of which is not quantised.
    table = golden["l2/token_table"]
    before = table[golden["l2/prev_ids"]]  # [M, 1, d]
    words = table[golden["l2/token_ids"]]
    sequence = torch.cat([before, current.unsqueeze(1), words], dim=1)
    visible = golden["l2/visible"].bool()
    stream = published_stream(golden, "l2")
    hidden = stream(before, sequence, visible)
    hidden = hidden + stream(candidates.unsqueeze(1), sequence, visible)
    recon = reconstruction_loss(hidden @ leaves["head"].T, golden["l2/labels"])

    grouped = candidates.unflatten(0, (groups, -1))  # [B, 1 + n, d]
    present = torch.ones(groups, grouped.shape[1] - 1, dtype=torch.bool)
    contrast = sibling_contrast(states, grouped, present)
    offset = int(golden["l2/id_offset"])
    logits = leaves["prev_logits"][:, :1, offset:]
    commit = commitment_loss(logits, golden["l2/prev_ids"] - offset)
    torch.testing.assert_close(recon, golden["l2/recon_loss"], **CLOSE)
    torch.testing.assert_close(contrast, golden["l2/contrastive_loss"], **EXACT)
    torch.testing.assert_close(commit, golden["l2/commitment_loss"], **EXACT)

    total = recon + contrast + commit
    torch.testing.assert_close(total, golden["l2/loss"], **CLOSE)
    total.backward()
    for name, tensor in leaves.items():
        torch.testing.assert_close(tensor.grad, golden[f"l2/grad_{name}"], **CLOSE)
