"""What LMIndexer's tokenizer has learned: figures of each position, and of the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recbole_genrec.runtime.randomness import seeded
from recbole_genrec.tokenizer.codes import code_entropy
from recbole_genrec.tokenizer.collision import item_groups
from recbole_genrec.tokenizer.lmindexer.network import IndexerNetwork
from recbole_genrec.tokenizer.lmindexer.stages import Texts

EVALUATION_BATCH = 256
"""Items whose states are computed at once."""
QUALITY_ROWS = 512
"""Items, randomly chosen, on which the reconstruction is measured at most."""


@torch.no_grad()
def last_states(network: IndexerNetwork, texts: Texts, prefix: Tensor) -> Tensor:
    """``h_t`` of all items in evaluation mode.

    Args:
        network: the tokenizer's network.
        texts: of all items.
        prefix: codes ``[N, t - 1]``.

    Returns:
        float32 ``[N, d]`` on the CPU.
    """
    network.eval()
    states = []
    for rows in torch.arange(len(texts)).split(EVALUATION_BATCH):
        memory = network.read(texts[rows])
        decoded = network.decode(memory, prefix[rows].to(texts.device))  # [B, t, d]
        states.append(decoded[:, -1].float().cpu())
    return torch.cat(states)


@torch.no_grad()
def chosen_codes(network: IndexerNetwork, states: Tensor, level: int) -> Tensor:
    """Codes ``[N]`` that the quantiser of one position gives to ``states [N, d]``."""
    codebook = network.codebook(level)
    _, codes = network.quantise(states.to(codebook), level)
    return codes.cpu()


@dataclass(frozen=True)
class Restored:
    """How well a reconstructor restores texts.

    Attributes:
        accuracy: share of the tokens that are its first choice.
        loss: mean cross-entropy of a token.
        by_item: mean cross-entropy of the tokens of each text ``[n]``.
    """

    accuracy: float
    loss: float
    by_item: Tensor

    @property
    def perplexity(self) -> float:
        """Of a text token."""
        return math.exp(min(self.loss, 700.0))


@torch.no_grad()
def restored(
    network: IndexerNetwork,
    texts: Texts,
    rows: Tensor,
    prefix: Tensor,
    codes: Tensor,
    rate: float,
    seed: int,
) -> Restored:
    """Restore texts from ids, which may be those of other items.

    Args:
        network: the tokenizer's network.
        texts: of all items.
        rows: the items ``[n]``.
        prefix: codes before the position, for each of ``rows``, ``[n, t - 1]``.
        codes: codes of the position, ``[n]``.
        rate: share of the text that is hidden.
        seed: of what is hidden: the same for all calls.
    """
    network.eval()
    level = prefix.shape[1]
    right, sums, counts = 0, torch.zeros(len(rows)), torch.zeros(len(rows))
    with seeded(seed):
        for places in torch.arange(len(rows)).split(EVALUATION_BATCH):
            batch = texts[rows[places]]
            current = network.codebook(level)[codes[places].to(texts.device)]
            before = prefix[places].to(texts.device)
            logits, labels = network.restore(batch, before, current, rate)
            right += int((logits.argmax(-1) == labels).sum())
            losses = cross_entropy(logits.float(), labels, reduction="none").cpu()
            owners = places.repeat_interleave(batch[1].sum(1).cpu())
            sums.index_add_(0, owners, losses)
            counts.index_add_(0, owners, torch.ones_like(losses))
    total = float(counts.sum())
    return Restored(right / total, float(sums.sum()) / total, sums / counts)


def position_figures(
    network: IndexerNetwork,
    texts: Texts,
    prefix: Tensor,
    codes: Tensor,
    rate: float,
    seed: int,
) -> dict[str, float]:
    """What a position's codes say about the texts, beside the codes of earlier positions.

    Args:
        network: after the joint stage of the position.
        texts: of all items.
        prefix: codes of all items before the position ``[N, t - 1]``.
        codes: their codes of the position ``[N]``.
        rate: share of the text that is hidden.
        seed: of the items that are looked at, and of what is hidden.

    Returns:
        ``accuracy`` and ``perplexity`` of the reconstruction; the same ``_exchanged``, where every
        item has the position's code of another one; ``codebook_perplexity`` and
        ``distinct_share``.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(texts), generator=generator)[:QUALITY_ROWS]
    restoration = restored(network, texts, rows, prefix[rows], codes[rows], rate, seed)
    other = codes[rows.roll(1)]
    exchanged = restored(network, texts, rows, prefix[rows], other, rate, seed)
    return {
        "accuracy": restoration.accuracy,
        "accuracy_exchanged": exchanged.accuracy,
        "perplexity": restoration.perplexity,
        "perplexity_exchanged": exchanged.perplexity,
        "codebook_perplexity": math.exp(code_entropy(codes)),
        "distinct_share": distinct_share(prefix, codes),
    }


def distinct_share(prefix: Tensor, codes: Tensor) -> float:
    """Distinct codes among items with the same prefix, as a share of these items.

    Groups of one item are left out; 1 where there are no others.

    Args:
        prefix: codes before the position ``[N, t - 1]``.
        codes: codes of the position ``[N]``.
    """
    group = torch.zeros_like(codes)
    if prefix.shape[1]:
        group, _ = item_groups(prefix)
    sizes = torch.bincount(group)  # [G]
    pairs = torch.stack([group, codes], dim=1).unique(dim=0)  # [P, 2]
    distinct = torch.bincount(pairs[:, 0], minlength=len(sizes))  # [G]
    several = sizes > 1
    if not several.any():
        return 1.0
    return float(distinct[several].sum() / sizes[several].sum())


@torch.no_grad()
def greedy_codes(network: IndexerNetwork, texts: Texts) -> Tensor:
    """The code of each position that the language model likes best, one after another.

    Args:
        network: the finished tokenizer.
        texts: n of them.

    Returns:
        int64 ``[n, T]``; not bound to the codes of any item.
    """
    network.eval()
    rows_codes = []
    for rows in torch.arange(len(texts)).split(EVALUATION_BATCH):
        memory = network.read(texts[rows])
        codes = torch.zeros(len(rows), 0, dtype=torch.long, device=texts.device)
        for level in range(len(network.codes.level_sizes)):
            state = network.decode(memory, codes)[:, -1]  # [B, d]
            best = network.codes.logits(state, level).argmax(-1, keepdim=True)  # [B, 1]
            codes = torch.cat([codes, best], dim=1)
        rows_codes.append(codes.cpu())
    return torch.cat(rows_codes)


def self_consistency(greedy: Tensor, codes: Tensor) -> dict[str, float | list[float]]:
    """Share of the items whose greedy ids are the stored ones.

    Later positions have moved the language model since the codes of a position were written.

    Args:
        greedy: ``[N, T]`` of :func:`greedy_codes`.
        codes: the stored codes ``[N, T]``.

    Returns:
        ``ids`` for whole ids, and ``positions`` for each position alone.
    """
    equal = greedy == codes
    positions = [float(share) for share in equal.double().mean(0)]
    return {"ids": float(equal.all(1).double().mean()), "positions": positions}
