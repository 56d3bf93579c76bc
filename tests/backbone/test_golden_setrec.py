"""SETRec's inputs through the encoder-decoder backbone, against the published implementation.

``setrec_t5.npz`` was written by SETRec's T5 (commit 50109bd) on transformers 4.41.2: item tokens
that share a position, a separator at its absolute place, and queries whose attention gets +1 on the
diagonal. Its T5 computes softmax and norms in float32, hence the tolerance.
"""

from __future__ import annotations

import pytest
import torch
from golden.loading_t5 import arrays
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, relu

from recbole_genrec.backbone import EncoderDecoderBackbone, load_encoder_decoder

CLOSE = {"atol": 1e-4, "rtol": 0}
SHAPE = ("d_model", "d_kv", "d_ff", "num_heads", "num_layers", "num_decoder_layers", "vocab_size")


def published_backbone(golden: dict[str, Tensor]) -> EncoderDecoderBackbone:
    settings = {name: golden[name].item() for name in SHAPE}
    lm = load_encoder_decoder("scratch", settings)
    backbone = EncoderDecoderBackbone(lm, text=True).double().eval()
    prefix = "w:t5."
    weights = {
        name.removeprefix(prefix): value
        for name, value in golden.items()
        if name.startswith(prefix)
    }
    backbone.load_state_dict(weights)
    return backbone


def weights_of(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights outside the language model, as leaves that take gradients."""
    names = ("w:query_emb", "w:cf_proj", "w:ae_enc", "w:ae_dec")
    chosen = {name: value for name, value in golden.items() if name.startswith(names)}
    return {name: value.clone().requires_grad_() for name, value in chosen.items()}


def chain(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    for layer in range(3):
        x = linear(x, weights[f"w:{name}.{layer}.weight"], weights[f"w:{name}.{layer}.bias"])
        if layer < 2:
            x = relu(x)
    return x


def item_tokens(golden: dict[str, Tensor], weights: dict[str, Tensor]) -> Tensor:
    """The CF token and the semantic tokens of all items, ``[n, Q, d]``."""
    cf = linear(golden["cf_table"], weights["w:cf_proj.weight"], weights["w:cf_proj.bias"])
    semantic = chain(weights, "ae_enc", golden["item_feature"])
    semantic = semantic.unflatten(1, (golden["n_sem"].item(), -1))
    return torch.cat([cf.unsqueeze(1), semantic], dim=1)


def query_states(
    backbone: EncoderDecoderBackbone, golden: dict[str, Tensor], tokens: Tensor, queries: Tensor
) -> Tensor:
    history = golden["history"]
    users, slots = history.shape
    count = tokens.shape[1]
    texts = []
    for name in ("instruction_ids", "response_ids"):
        texts.append(backbone.text_table(golden[name]).expand(users, -1, -1))
    items = tokens[(history - 1).clamp(min=0)].flatten(1, 2)  # [B, T * Q, d]
    source = torch.cat([texts[0], items, texts[1]], dim=1)

    before, after = texts[0].shape[1], texts[1].shape[1]
    shown = golden["history_token_mask"].bool()
    valid = torch.cat([shown.new_ones(users, before), shown, shown.new_ones(users, after)], dim=1)
    slot_positions = before + torch.arange(slots).repeat_interleave(count)
    closing = before + slots * count + torch.arange(after)
    positions = torch.cat([torch.arange(before), slot_positions, closing])

    memory = backbone.read(source, valid, positions=positions)
    return backbone.decode(
        queries.expand(users, -1, -1),
        memory,
        positions=torch.zeros(count, dtype=torch.long),
        sees=torch.eye(count, dtype=torch.float64),
    )


def test_published_query_states_scores_losses_and_gradients():
    golden = arrays("setrec_t5")
    backbone, weights = published_backbone(golden), weights_of(golden)
    tokens = item_tokens(golden, weights)
    torch.testing.assert_close(tokens[:, 0], golden["cf_tokens"], atol=1e-9, rtol=0)
    torch.testing.assert_close(tokens[:, 1:], golden["sem_tokens"], atol=1e-9, rtol=0)

    hidden = query_states(backbone, golden, tokens, weights["w:query_emb"])
    torch.testing.assert_close(hidden, golden["query_hidden"], **CLOSE)
    scores = torch.einsum("bqd,nqd->bqn", hidden, tokens)
    torch.testing.assert_close(scores, golden["scores"], **CLOSE)
    targets = golden["target"].repeat_interleave(scores.shape[1])
    loss = cross_entropy(scores.flatten(0, 1), targets)
    torch.testing.assert_close(loss, golden["loss_gen"], **CLOSE)

    history = golden["history"]
    features = golden["item_feature"][history[history > 0] - 1]
    rebuilt = chain(weights, "ae_dec", chain(weights, "ae_enc", features))
    total = loss + golden["alpha"] * (rebuilt - features).square().mean()
    torch.testing.assert_close(total, golden["loss_total"], **CLOSE)

    total.backward()
    gradients = {name: value for name, value in golden.items() if name.startswith("grad:")}
    assert len(gradients) > 15
    for name, expected in gradients.items():
        name = name.removeprefix("grad:")
        if name.startswith("t5."):
            gradient = backbone.get_parameter(name.removeprefix("t5.")).grad
        else:
            gradient = weights[f"w:{name}"].grad
        torch.testing.assert_close(gradient, expected, **CLOSE)


@pytest.mark.parametrize("change", ["positions", "diagonal"])
@torch.no_grad()
def test_the_published_numbers_depend_on_positions_and_mask(change, monkeypatch):
    golden = arrays("setrec_t5")
    backbone, weights = published_backbone(golden), weights_of(golden)
    method = {"positions": "read", "diagonal": "decode"}[change]
    argument = {"positions": "positions", "diagonal": "sees"}[change]
    original = getattr(backbone, method)
    plain = {"positions": None, "diagonal": torch.zeros(4, 4, dtype=torch.float64)}[change]
    monkeypatch.setattr(
        backbone, method, lambda *args, **named: original(*args, **{**named, argument: plain})
    )
    tokens = item_tokens(golden, weights)
    hidden = query_states(backbone, golden, tokens, weights["w:query_emb"])
    assert (hidden - golden["query_hidden"]).abs().max() > 1e-3
