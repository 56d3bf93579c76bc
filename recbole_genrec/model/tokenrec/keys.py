"""Keys of TokenRec."""

from __future__ import annotations

from typing import Literal

from recbole_genrec.model.common_keys import OneTargetSettings
from recbole_genrec.model.ranking import VectorMethodSettings
from recbole_genrec.settings.backbone_keys import BackboneKeys
from recbole_genrec.settings.declaration import key


class TokenRecSettings(BackboneKeys, OneTargetSettings, VectorMethodSettings):
    """Keys of TokenRec beside those of its tokenizer."""

    tokenizer: Literal["mq"] = key("TokenRec quantises collaborative vectors", affects="tokenizer")
    source_len: int = key(
        "longest encoder input, in tokens; the last items that fit are kept",
        ge=1,
    )
    dec_len: int = key("length of the constant decoder input, in tokens", ge=1)
    proj_hidden: int = key("width between the decoder's states and the projected vector", ge=1)
    proj_dropout: float = key("dropout of the projection", ge=0, le=1)
    gamma: float = key("cosine that a negative may have without a loss", ge=-1, le=1)
    shuffle_history: bool = key("train on the history in random order")
    user_only_prob: float = key("share of the training samples without a history", ge=0, le=1)
    init_token_from_codebook: bool = key(
        "start the token embeddings from the codebooks, whose size must be the backbone's width",
    )
    eval_prompt: Literal["seen", "unseen"] = key("template at test time", affects="search")
