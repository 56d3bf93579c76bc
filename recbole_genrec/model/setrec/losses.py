"""Scores and losses of SETRec (arXiv 2502.10833): query k meets the k-th token of every item."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from recbole_genrec.decoding.cached_softmax import cached_cross_entropy
from recbole_genrec.decoding.closed_codes import marked
from recbole_genrec.decoding.exclusion import contains
from recbole_genrec.decoding.precision import at_least_float32
from recbole_genrec.runtime.processes import balanced


def component_scores(states: Tensor, tokens: Tensor) -> Tensor:
    """Inner products of query k and token k, without temperature, bias or norm.

    Args:
        states: ``[B, Q, d]``.
        tokens: of n items, ``[n, Q, d]``.

    Returns:
        float32 (float64 for float64 inputs) ``[B, Q, n]``.
    """
    # bf16 and fp16 would let many items tie
    with torch.autocast(states.device.type, enabled=False):
        states = at_least_float32(states)
        tokens = at_least_float32(tokens)
        by_query = states.transpose(0, 1) @ tokens.permute(1, 2, 0)  # [Q, B, n]
    return by_query.transpose(0, 1)


def generation_loss(
    states: Tensor, tokens: Tensor, target: Tensor, excluded: Tensor | None = None
) -> Tensor:
    """L_gen: cross-entropy of the target among all items, mean over users and queries.

    Args:
        states: ``[B, Q, d]``.
        tokens: of all items, ``[n, Q, d]``; row 0 is the padding item, which does not compete.
        target: item ids ``[B]``.
        excluded: item ids ``[B, H]`` that do not compete either, 0 = none; not the target.
    """
    leaves = None
    if excluded is not None:
        leaves = marked(excluded - 1, len(tokens) - 1)  # [B, n - 1]
    losses = [
        cached_cross_entropy(query, items, target - 1, mask=leaves)
        for query, items in zip(states.unbind(1), tokens[1:].unbind(1), strict=True)
    ]
    return balanced(torch.stack(losses).mean(), len(target))


def batch_rows(
    history: Tensor, target: Tensor, negatives: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The items of a batch, each once, and the rows in which they then stand.

    Args:
        history: item ids ``[B, T]``, 0 = padding.
        target: item ids ``[B]``.
        negatives: item ids ``[n]``.

    Returns:
        The items ``[m]``, padding first; rows of the histories ``[B, T]``, of the targets ``[B]``,
        of the negatives ``[n]``.
    """
    padding = target.new_zeros(1)
    everything = torch.cat([padding, history.flatten(), target, negatives])
    items, rows = everything.unique(return_inverse=True)
    sizes = [1, history.numel(), len(target), len(negatives)]
    _, of_history, of_target, of_negatives = rows.split(sizes)
    return items, of_history.view_as(history), of_target, of_negatives


def sampled_generation_loss(
    states: Tensor,
    target_tokens: Tensor,
    negative_tokens: Tensor,
    target: Tensor,
    negatives: Tensor,
    n_items: int,
    excluded: Tensor | None = None,
) -> Tensor:
    """L_gen with a softmax over the target and m items drawn uniformly for the batch.

    ``n - 1`` items compete with a target. The ``m'`` draws that are not the target itself stand for
    them: each gets ``log((n - 1) / m')`` on its score, which makes the denominator of the softmax
    an unbiased estimate of the full one. Draws of the target itself are left out. With ``excluded``
    items, these and draws of them do not count either.

    Args:
        states: ``[B, Q, d]``.
        target_tokens: ``[B, Q, d]``.
        negative_tokens: ``[m, Q, d]``.
        target: item ids ``[B]``.
        negatives: item ids ``[m]``, drawn with replacement.
        n_items: n, number of items without padding.
        excluded: item ids ``[B, H]`` that do not compete, 0 = none; not the target.
    """
    hit = negatives == target.unsqueeze(1)  # [B, m]
    log_others: float | Tensor = math.log(max(n_items - 1, 1))
    if excluded is not None:
        items = excluded.sort(1).values  # [B, H]
        hit = hit | contains(items, negatives.expand(len(items), -1))
        is_first = items != pad(items[:, :-1], (1, 0))
        n_others = n_items - 1 - is_first.sum(1, keepdim=True)  # [B, 1]
        log_others = n_others.clamp(min=1).log()
    draws = (~hit).sum(1, keepdim=True)  # [B, 1]
    correction = log_others - draws.clamp(min=1).log()  # [B, 1]

    products = at_least_float32(states) * at_least_float32(target_tokens)
    target_score = products.sum(2, keepdim=True)  # [B, Q, 1]
    others = component_scores(states, negative_tokens) + correction.unsqueeze(1)  # [B, Q, m]
    others = others.masked_fill(hit.unsqueeze(1), -torch.inf)
    scores = torch.cat([target_score, others], dim=2)  # [B, Q, 1 + m]
    first = target.new_zeros(scores.shape[0] * scores.shape[1])
    return balanced(cross_entropy(scores.flatten(0, 1), first), len(target))


def token_weights(beta: Tensor, n_cf: int, n_sem: int) -> Tensor:
    """Weight of each token's score: 1 - beta for the collaborative one, beta for each semantic one.

    Args:
        beta: scalar.
        n_cf: collaborative tokens, 0 or 1.
        n_sem: semantic tokens.

    Returns:
        ``[Q]``; all 1 where there is one kind only.
    """
    if not (n_cf and n_sem):
        return torch.ones(n_cf + n_sem, device=beta.device)
    return torch.cat([(1 - beta).expand(n_cf), beta.expand(n_sem)])


def normalised(scores: Tensor, score_norm: str | None) -> Tensor:
    """Scores of each token on one scale, before they are summed (our option).

    Args:
        scores: ``[B, Q, n]``; column 0, the padding item, does not count.
        score_norm: ``None``, ``zscore`` (over the items) or ``logsoftmax``.
    """
    if score_norm is None:
        return scores
    items = scores[..., 1:]
    if score_norm == "logsoftmax":
        return scores - items.logsumexp(2, keepdim=True)
    spread = items.std(2, keepdim=True).clamp(min=1e-12)
    return (scores - items.mean(2, keepdim=True)) / spread
