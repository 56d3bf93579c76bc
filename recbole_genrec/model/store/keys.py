"""Keys of STORE, and what they may hold."""

from __future__ import annotations

from typing import Literal

from recbole_genrec.settings.backbone_keys import CausalBackboneKeys
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.shared_keys import LabelSmoothingKeys, SharedSettings


class STORESettings(LabelSmoothingKeys, CausalBackboneKeys, SharedSettings):
    """Keys of STORE beside those of its tokenizer."""

    tokenizer: Literal["store"] = key("STORE brings its own tokenizer", affects="tokenizer")
    align_text_len: int = key("text tokens per item in the alignment task", ge=1)
    code_init: Literal["centroid", "random"] = key("start of the code embeddings")
    code_lr: float = key("learning rate of the code tables", ge=0)
    loss_positions: Literal["all", "target"] = key("which codes are targets")
    loss_vocab: Literal["full", "trie"] = key("codes among which a target competes")
    lambda_align: float = key("weight of the alignment task", ge=0)
    align_mode: Literal["joint", "alternate"] = key("when the alignment task trains")
    align_batch: int = key("items per batch of the alignment task", ge=1)
    item_prefix: Literal["sep", "number"] = key("what announces an item")
