"""A language model that a tokenizer has trained, for the recommender to go on with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from recbole_genrec.backbone.causal.backbone import CausalBackbone
from recbole_genrec.backbone.encoder_decoder.backbone import EncoderDecoderBackbone

BackboneT = TypeVar("BackboneT", CausalBackbone, EncoderDecoderBackbone)


@dataclass(frozen=True)
class PretrainedBackbone(Generic[BackboneT]):
    """What ``ItemTokenizer.hand_over`` returns.

    Attributes:
        backbone: the model.
        text_tokenizer: its text tokenizer.
        inject: map ``[d_in, d_model]`` from the tokenizer's vectors to the model's input, if any
            (STORE).
        code_rows: input embeddings ``[C, d_in]`` of the codes, by flat index, where the model was
            trained with codes as tokens (LMIndexer).
    """

    backbone: BackboneT
    text_tokenizer: PreTrainedTokenizerBase
    inject: Tensor | None = None
    code_rows: Tensor | None = None
