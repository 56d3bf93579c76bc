"""Reading the prompts of a search: what they share once, and no padding that can be avoided."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from recbole_genrec.backbone.beam_cache import BeamCache
from recbole_genrec.backbone.causal.backbone import CausalBackbone
from recbole_genrec.backbone.causal.packing import length_groups
from recbole_genrec.backbone.sequences import length_mask
from recbole_genrec.backbone.visibility import causal

SHORTEST = 4  # tokens; a shorter common beginning does not pay for a pass of its own
FEWEST = 256  # tokens of all prompts; fewer are read with their states (both our choice, measured)


def read_prompts(
    backbone: CausalBackbone, prompt: Tensor, lengths: Tensor, reserve: int
) -> tuple[BeamCache, Tensor]:
    """Read prompts; a beginning that all of them share, an instruction, is read once.

    Of many tokens only keys and values are computed, in groups of prompts of similar length, and
    the state of the last token of each prompt; for that it is read once more where it must.

    Args:
        backbone: the language model, in evaluation mode.
        prompt: embeddings ``[B, S, d_in]``, right-padded.
        lengths: prompt lengths ``[B]`` in tokens.
        reserve: tokens for which the cache has room behind the prompts.

    Returns:
        The cache, and the states of the last tokens ``[B, 1, d_out]``.
    """
    rows, size, _ = prompt.shape
    backbone.check_length(size)
    users = torch.arange(rows, device=prompt.device)
    beginning = None
    common = common_beginning(prompt, lengths)
    if common < SHORTEST:
        common = 0
    else:
        beginning = BeamCache(0)
        backbone.write_keys(prompt[:1, :common], None, None, beginning)

    if rows * (size - common) < FEWEST:
        cache = started_cache(beginning, rows, size - common, reserve)
        states = backbone(prompt[:, common:], *sight(prompt, common), cache)  # [B, S - P, d_out]
        return cache, states[users, lengths - 1 - common].unsqueeze(1)

    cache, last = read_in_groups(backbone, prompt, lengths, beginning, reserve)
    if last is not None:
        return cache, last
    ends = (lengths - 1).unsqueeze(1)  # [B, 1]
    sees = pad(length_mask(lengths - 1, size), (0, 1), value=True)  # [B, S + 1]
    last = backbone(prompt[users, lengths - 1].unsqueeze(1), sees[:, None, None], ends, cache)
    cache.rewind(size)
    return cache, last


def read_in_groups(
    backbone: CausalBackbone,
    prompt: Tensor,
    lengths: Tensor,
    beginning: BeamCache | None,
    reserve: int,
) -> tuple[BeamCache, Tensor | None]:
    """Keys and values of prompts, those of similar length in one pass.

    Args:
        backbone: the language model, in evaluation mode.
        prompt: embeddings ``[B, S, d_in]``, right-padded.
        lengths: prompt lengths ``[B]`` in tokens.
        beginning: what all prompts share, already read; None = nothing.
        reserve: tokens for which the cache has room behind the prompts.

    Returns:
        A cache of S tokens, whose keys and values of padding are finite, and the states of the last
        tokens ``[B, 1, d_out]``, None where they take a pass of their own.
    """
    size = prompt.shape[1]
    common = 0 if beginning is None else beginning.get_seq_length()
    groups = length_groups(lengths - common)
    if len(groups) == 1:
        cache = started_cache(beginning, len(prompt), size - common, reserve)
        ends = lengths - 1 - common
        last = backbone.write_keys(prompt[:, common:], *sight(prompt, common), cache, ends)
        return cache, last

    caches = []
    states = []
    for rows in groups:
        longest = int(lengths[rows].max())
        part = prompt[rows, :longest]
        cache = started_cache(beginning, len(rows), longest - common, 0)
        ends = lengths[rows] - 1 - common
        last = backbone.write_keys(part[:, common:], *sight(part, common), cache, ends)
        caches.append(cache)
        if last is not None:
            states.append(last)
    cache = BeamCache.joined(caches, groups, size, reserve)
    if not states:
        return cache, None
    return cache, torch.cat(states)[torch.cat(groups).argsort()]


def started_cache(beginning: BeamCache | None, rows: int, room: int, reserve: int) -> BeamCache:
    """A cache of some rows that start with what all of them share.

    Args:
        beginning: what they share; None = nothing.
        rows: their number.
        room: tokens of the prompts behind it.
        reserve: tokens for which there is room behind the prompts.
    """
    if beginning is None:
        return BeamCache(reserve)
    return beginning.repeated(rows, room + reserve)


def sight(prompt: Tensor, common: int) -> tuple[Tensor | None, Tensor | None]:
    """Mask and positions of what follows a common beginning.

    Args:
        prompt: embeddings ``[B, S, d_in]``.
        common: P, tokens of the beginning.

    Returns:
        ``[1, 1, S - P, S]`` and ``[B, S - P]``; None twice without a beginning.
    """
    if not common:
        return None, None
    size = prompt.shape[1]
    mask = causal(size, prompt.device)[common:][None, None]
    places = torch.arange(common, size, device=prompt.device)
    return mask, places.expand(len(prompt), -1)


def common_beginning(prompt: Tensor, lengths: Tensor) -> int:
    """Tokens with which all prompts begin; the last token of a prompt is never among them.

    Args:
        prompt: embeddings ``[B, S, d_in]``.
        lengths: ``[B]``.
    """
    if len(prompt) < 2:
        return 0
    candidates = prompt[:, : int(lengths.min()) - 1]
    same = (candidates == candidates[:1]).all(0).all(-1)  # [P]
    return int(same.cumprod(0).sum())
