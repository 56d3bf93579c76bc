"""The language model, its codes and the reconstructor of LMIndexer's tokenizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from recbole_genrec.backbone import CodeVocabulary, EncoderDecoderBackbone, QueryStream
from recbole_genrec.backbone.encoder_decoder.backbone import EncoderMemory
from recbole_genrec.backbone.sequences import Segment
from recbole_genrec.tokenizer.lmindexer.quantiser import quantise


class IndexerNetwork(nn.Module):
    """Text in, one code after another out; and the text again from the codes.

    Position t of the paper is level ``t - 1`` here. The codebook of a position *is* the table of
    its tokens: when the next position starts, the language model reads and writes these very rows.

    Args:
        backbone: the language model with its text table.
        reconstructor: the weak decoder, of the same width.
        sizes: alphabet size of each position.
        end: text token that ends a text.
        temperature: of the quantiser.

    Attributes:
        codes: the codebooks of all positions, which are the tokens' inputs and outputs.
    """

    def __init__(
        self,
        backbone: EncoderDecoderBackbone,
        reconstructor: QueryStream,
        sizes: tuple[int, ...],
        end: int,
        temperature: float = 1.0,
    ):
        super().__init__()
        width = backbone.d_model
        self.backbone = backbone
        self.reconstructor = reconstructor
        self.codes = CodeVocabulary(
            sizes, width, width, std=1.0, tied=True, scale=backbone.output_scale
        )
        self.end = end
        self.temperature = temperature

    # --- the language model -----------------------------------------------------------------------

    def read(self, texts: Segment) -> EncoderMemory:
        """The encoded texts.

        Args:
            texts: token ids ``[B, S]``, right-padded, and which of them count.
        """
        ids, valid = with_end(texts, self.end)  # [B, S + 1]
        return self.backbone.read(self.backbone.text_table(ids), valid)

    def decode(self, memory: EncoderMemory, prefix: Tensor) -> Tensor:
        """States after the start token and the codes so far.

        Args:
            memory: from :meth:`read`.
            prefix: codes ``[B, t - 1]``.

        Returns:
            ``[B, t, d]``; state s predicts the code of position s + 1, the last one is ``h_t``.
        """
        first = self.start.expand(len(prefix), 1, -1)  # [B, 1, d]
        return self.backbone.decode(torch.cat([first, self.rows(prefix)], dim=1), memory)

    @property
    def start(self) -> Tensor:
        """Embedding ``[d]`` of the decoder's start, which is T5's padding token."""
        return self.backbone.text_table.weight[0]

    def rows(self, prefix: Tensor) -> Tensor:
        """``e^s_{c_s}`` of codes ``[B, t - 1]``, ``[B, t - 1, d]``."""
        return nn.functional.embedding(self.codes.tokens(prefix), self.codes.embedding)

    def prefix_logits(self, states: Tensor) -> Tensor:
        """The language model's own logits over the codes of finished positions.

        Args:
            states: ``[B, t - 1, d]``.

        Returns:
            ``[B, t - 1, C]``, C codes of positions 1 to t - 1, by token.
        """
        finished = sum(self.codes.level_sizes[: states.shape[1]])
        rows = self.codes.classifier[:finished]
        return nn.functional.linear(states * self.codes.scale, rows)

    @property
    def frozen_names(self) -> set[str]:
        """Weights that a stored tokenizer leaves out: those of the reconstructor."""
        return {name for name in self.state_dict() if name.startswith("reconstructor.")}

    # --- the codebooks ----------------------------------------------------------------------------

    def codebook(self, level: int) -> Tensor:
        """``E`` of one position, ``[K, d]``."""
        return self.codes.level_rows(level)[0]

    @torch.no_grad()
    def set_codebook(self, level: int, centroids: Tensor) -> None:
        """Start a codebook at centroids ``[k, d]``, repeated where there are fewer than codes."""
        rows = self.codebook(level)
        repeated = torch.arange(len(rows)) % len(centroids)
        rows.copy_(centroids[repeated])

    def quantise(self, states: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """``hat h [B, d]`` of ``h [B, d]`` and the codes ``[B]`` of one position."""
        return quantise(states, self.codebook(level), self.temperature)

    # --- the reconstructor ------------------------------------------------------------------------

    def restore(
        self, texts: Segment, prefix: Tensor, current: Tensor, rate: float
    ) -> tuple[Tensor, Tensor]:
        """The text tokens, from the id and what is visible of the text.

        Args:
            texts: token ids ``[B, S]``, right-padded, and which of them count.
            prefix: codes ``[B, t - 1]``.
            current: vector of position t ``[B, d]``.
            rate: share of the other tokens that a token does not see.

        Returns:
            Logits over the text vocabulary ``[M, V]`` of the M tokens that count, and the tokens
            ``[M]``.
        """
        ids, valid = texts
        slots = torch.cat([self.rows(prefix), current.unsqueeze(1)], dim=1)  # [B, t, d]
        query = slots.sum(1, keepdim=True)  # [B, 1, d]
        words = self.backbone.text_table(ids)  # [B, S, d]
        sequence = torch.cat([slots, words], dim=1)  # [B, t + S, d]
        sees = random_view(valid, slots.shape[1], rate)
        hidden = self.reconstructor(query, sequence, sees)[:, slots.shape[1] :]  # [B, S, d]
        return self.backbone.text_logits(hidden[valid]), ids[valid]


def with_end(texts: Segment, end: int) -> Segment:
    """Texts with a token behind the last one.

    Args:
        texts: token ids ``[B, S]``, right-padded, and which of them count.
        end: the token.

    Returns:
        Both ``[B, S + 1]``.
    """
    ids, valid = texts
    last = valid.sum(1, keepdim=True)  # [B, 1]
    ids = pad(ids, (0, 1)).scatter(1, last, end)
    valid = pad(valid, (0, 1)).scatter(1, last, True)
    return ids, valid


def random_view(valid: Tensor, slots: int, rate: float) -> Tensor:
    """What each place of the reconstructor sees: all id slots, never itself, a part of the text.

    Args:
        valid: bool ``[B, S]``, which text tokens count.
        slots: id slots in front of the text.
        rate: share of the other tokens that are hidden, drawn anew for each place.

    Returns:
        bool ``[B, slots + S, slots + S]``.
    """
    batch, length = valid.shape
    size = slots + length
    sees = torch.rand(batch, size, size, device=valid.device) >= rate
    sees &= ~torch.eye(size, dtype=torch.bool, device=valid.device)
    sees[:, :, slots:] &= valid.unsqueeze(1)
    sees[:, :, :slots] = True
    return sees
