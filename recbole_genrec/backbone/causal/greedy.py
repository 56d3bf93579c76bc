"""The most likely text after a prompt, token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_genrec.backbone.causal.backbone import BeamCache, CausalBackbone


@torch.no_grad()
def greedy_text(backbone: CausalBackbone, prompt: Tensor, end: int, max_tokens: int) -> Tensor:
    """Text tokens int64 ``[B, <= max_tokens]`` after prompts ``[B, S, d_in]`` of one length; ``end`` from the end on."""
    width, cache = prompt.shape[1], BeamCache(max_tokens)
    states = backbone(prompt, cache=cache)
    found = [backbone.text_logits(states[:, -1]).argmax(-1)]
    while len(found) < max_tokens and bool((found[-1] != end).any()):
        position = torch.full((len(prompt), 1), width + len(found) - 1, device=prompt.device)
        backbone.check_length(width + len(found))
        states = backbone(
            backbone.text_table(found[-1]).unsqueeze(1), positions=position, cache=cache
        )
        found.append(
            torch.where(found[-1] == end, end, backbone.text_logits(states[:, -1]).argmax(-1))
        )
    return torch.stack(found, dim=1)
