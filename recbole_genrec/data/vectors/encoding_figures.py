"""Whether a sentence encoder can read the texts that it is given, in figures and in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from logging import INFO, WARNING, getLogger
from typing import Any

import numpy as np

LOUD = 0.01
"""Share of the texts or words from which the notice is a warning (our choice)."""
SAME = 1e-5
"""Two vectors count as equal below this difference, as a share of the root mean square."""
BATCH = 1024
logger = getLogger(__name__)


@dataclass(frozen=True)
class ReadingFigures:
    """What the vocabulary and the length of an encoder leave of texts.

    Attributes:
        texts: number of different texts.
        words: words in them.
        unknown: those of the words that the encoder's vocabulary has no part of.
        cut: texts longer than ``limit``.
        limit: tokens that the encoder reads of a text; 0 = no limit.
    """

    texts: int
    words: int = 0
    unknown: int = 0
    cut: int = 0
    limit: int = 0


def reading_figures(model: Any, texts: Sequence[str]) -> ReadingFigures:
    """How an encoder reads ``texts``; without a text tokenizer only their number is known.

    Args:
        model: a ``SentenceTransformer``.
        texts: different texts.
    """
    from transformers import PreTrainedTokenizerBase

    tokenizer = getattr(model, "tokenizer", None)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return ReadingFigures(len(texts))
    limit = model.max_seq_length or 0
    words = unknown = cut = 0
    for start in range(0, len(texts), BATCH):
        batch = list(texts[start : start + BATCH])
        encoded = tokenizer(batch, truncation=False, padding=False, verbose=False)
        for number, ids in enumerate(encoded["input_ids"]):
            word_of = _word_of_token(encoded, number, ids, tokenizer)
            words += len(set(word_of.values()))
            unread = {word_of.get(place) for place in _places(ids, tokenizer.unk_token_id)}
            unknown += len(unread - {None})
            cut += bool(limit) and len(ids) > limit
    return ReadingFigures(len(texts), words, unknown, cut, limit)


def different_vectors(vectors: np.ndarray) -> int:
    """Number of rows of ``vectors [n, D]`` whose vector no other row has.

    Rounding counts for nothing: equal inputs in batches of other lengths differ in the last digit.
    """
    if len(vectors) < 2:
        return len(vectors)
    spread = float(np.sqrt(np.mean(np.square(vectors, dtype=np.float64))))
    # Nearly equal rows are neighbours on any line through the space.
    line = np.random.default_rng(0).standard_normal(vectors.shape[1])
    ordered = vectors[np.argsort(vectors @ line, kind="stable")]
    same = (np.abs(np.diff(ordered, axis=0)) <= SAME * spread).all(1)
    with_next = np.append(same, False)
    with_previous = np.insert(same, 0, False)
    return int((~with_next & ~with_previous).sum())


def report_encoding(encoder: str, vectors: np.ndarray, figures: ReadingFigures) -> None:
    """Log what the encoder could not read or tell apart: a warning where it is much.

    Args:
        encoder: value of the key ``text_encoder``.
        vectors: ``[n, D]`` of n different texts.
        figures: of the same texts.
    """
    losses = []
    shares = []
    equal = len(vectors) - different_vectors(vectors)
    if equal:
        shares.append(equal / len(vectors))
        losses.append(
            f"{equal} of {len(vectors)} different texts ({shares[-1]:.1%}) got the same vector as "
            "another text"
        )
    if figures.unknown:
        shares.append(figures.unknown / figures.words)
        losses.append(f"{figures.unknown} of {figures.words} words ({shares[-1]:.1%}) are unknown")
    if figures.cut:
        shares.append(figures.cut / figures.texts)
        losses.append(
            f"{figures.cut} of {figures.texts} texts ({shares[-1]:.1%}) are longer than the "
            f"encoder's {figures.limit} tokens and were cut"
        )
    if losses:
        level = WARNING if max(shares) >= LOUD else INFO
        logger.log(
            level,
            "text_encoder: %s loses part of the item texts: %s. Name an encoder for this language "
            "and length in text_encoder, choose other item_text_fields, or give item_vectors.",
            encoder,
            "; ".join(losses),
        )


def _word_of_token(encoded: Any, number: int, ids: list[int], tokenizer: Any) -> dict[int, int]:
    """Number of the word by the place of a token; special tokens belong to none.

    Where a tokenizer cannot tell words, each token is one.
    """
    if not tokenizer.is_fast:
        special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        return {place: place for place, token in enumerate(ids) if token not in special}
    words = enumerate(encoded.word_ids(number))
    return {place: word for place, word in words if word is not None}


def _places(ids: list[int], token_id: int | None) -> list[int]:
    return [place for place, token in enumerate(ids) if token == token_id]
