"""The most likely text after a prompt, token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.backbone.beam_cache import BeamCache
from recbole_genrec.backbone.causal.backbone import CausalBackbone


@torch.no_grad()
def greedy_text(backbone: CausalBackbone, prompt: Tensor, end: int, max_tokens: int) -> Tensor:
    """Text tokens that follow prompts of one length.

    Args:
        backbone: the language model, in evaluation mode.
        prompt: embeddings ``[B, S, d_in]``.
        end: the token that ends a text.
        max_tokens: length of the longest answer.

    Returns:
        int64 ``[B, <= max_tokens]``, ``end`` from the end of a text on.
    """
    width = prompt.shape[1]
    cache = BeamCache(max_tokens)
    states = backbone(prompt, cache=cache)
    token = backbone.text_logits(states[:, -1]).argmax(-1)  # [B]
    tokens = [token]
    while len(tokens) < max_tokens and bool((token != end).any()):
        place = width + len(tokens) - 1
        backbone.check_length(place + 1)
        positions = torch.full((len(prompt), 1), place, device=prompt.device)
        embeddings = backbone.text_table(token).unsqueeze(1)  # [B, 1, d_in]
        states = backbone(embeddings, positions=positions, cache=cache)
        following = backbone.text_logits(states[:, -1]).argmax(-1)
        token = torch.where(token == end, end, following)
        tokens.append(token)
    return torch.stack(tokens, dim=1)
