"""Our passes over the layers of Llama against those of transformers."""

from __future__ import annotations

import pytest
import torch
from language_models import FAMILIES, TEXTS, Generator

from recbole_genrec.backbone import CausalBackbone, load_causal_lm
from recbole_genrec.backbone.beam_cache import BeamCache
from recbole_genrec.backbone.causal.llama import is_llama, llama_states
from recbole_genrec.backbone.visibility import as_numbers

CLOSE = {"atol": 1e-5, "rtol": 0}
USERS, BEFORE, COUNT = 3, 4, 6
KIN = ["llama", "qwen2", "qwen3"]


def block(model):
    """Cached tokens, then a block of tokens with a mask and positions of their own."""
    generator = torch.Generator().manual_seed(2)
    width = model.backbone.d_in
    before = torch.randn(USERS, BEFORE, width, generator=generator)
    tokens = torch.randn(USERS, COUNT, width, generator=generator)
    positions = torch.randint(BEFORE, 40, (USERS, COUNT), generator=generator)
    sees = torch.rand(USERS, 1, COUNT, BEFORE + COUNT, generator=generator) < 0.5
    sees[..., 0] = True
    cache = BeamCache(0)
    model.backbone(before, cache=cache)
    return tokens, as_numbers(sees, tokens.dtype), positions, cache


def passed_by_transformers(model, tokens, mask, positions, cache):
    output = model.backbone.stack(
        inputs_embeds=tokens,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    return output.last_hidden_state


def assert_same_caches(ours, theirs):
    assert ours.lengths == theirs.lengths
    for our_pair, their_pair in zip(ours.buffers, theirs.buffers, strict=True):
        for our_buffer, their_buffer in zip(our_pair, their_pair, strict=True):
            size = ours.lengths[0]
            torch.testing.assert_close(our_buffer[:, :, :size], their_buffer[:, :, :size], **CLOSE)


@pytest.mark.parametrize("family", KIN)
@torch.no_grad()
def test_states_and_keys_are_those_of_transformers(family):
    model = Generator(family)
    tokens, mask, positions, cache = block(model)
    ours = llama_states(model.backbone.stack, tokens, mask, positions, cache)
    *_, same_cache = block(model)
    theirs = passed_by_transformers(model, tokens, mask, positions, same_cache)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    assert_same_caches(cache, same_cache)


@pytest.mark.parametrize("family", KIN)
@pytest.mark.parametrize("has_mask", [False, True])
@torch.no_grad()
def test_states_of_the_ends_alone(family, has_mask):
    """Of a causal block, with tokens before it where there is a mask."""
    model = Generator(family)
    tokens, _, _, cache = block(model)
    ends = torch.tensor([5, 0, 3])
    positions = torch.arange(BEFORE, BEFORE + COUNT).unsqueeze(0)
    mask = None
    if has_mask:
        earlier = torch.ones(COUNT, BEFORE + COUNT, dtype=torch.bool).tril(BEFORE)
        mask = as_numbers(earlier[None, None], tokens.dtype)
    else:
        cache = BeamCache(0)
    ours = llama_states(model.backbone.stack, tokens, mask, positions, cache, ends)
    same_cache = BeamCache(0)
    if has_mask:
        *_, same_cache = block(model)
    theirs = passed_by_transformers(model, tokens, mask, positions, same_cache)
    torch.testing.assert_close(ours[:, 0], theirs[torch.arange(USERS), ends], **CLOSE)
    assert_same_caches(cache, same_cache)


def test_other_models_keep_the_passes_of_transformers():
    assert not is_llama(Generator("opt").backbone.stack)
    llama = Generator("llama").backbone
    assert is_llama(llama.stack) and llama.passes_are_ours
    assert not is_llama(llama.stack.train())  # dropout of attention
    llama.stack.eval().layers[0].register_forward_hook(lambda *_: None)
    assert not llama.passes_are_ours
    settings = {**FAMILIES["qwen2"], "use_sliding_window": True, "sliding_window": 4}
    windows = CausalBackbone(load_causal_lm("scratch", settings, TEXTS, 300)[0].eval())
    assert not is_llama(windows.stack)
