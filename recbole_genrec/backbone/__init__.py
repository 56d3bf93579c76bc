"""Language models behind one interface: built from a configuration, a folder or a hub id, with or without LoRA."""

from recbole_genrec.backbone.causal.backbone import CausalBackbone, CausalDecoder
from recbole_genrec.backbone.causal.branches import branch_states
from recbole_genrec.backbone.causal.greedy import greedy_text
from recbole_genrec.backbone.causal.load import (
    apply_tuning,
    backbone_identity,
    build_backbone,
    load_causal_lm,
    load_text_tokenizer,
)
from recbole_genrec.backbone.code_vocabulary import CodeVocabulary
from recbole_genrec.backbone.dropout import cheapen
from recbole_genrec.backbone.encoder_decoder.backbone import (
    EncoderDecoderBackbone,
    load_encoder_decoder,
)
from recbole_genrec.backbone.encoder_decoder.beam_decoder import BeamDecoder
from recbole_genrec.backbone.sequences import compose, constant, embed_mixed, stack_rows
from recbole_genrec.backbone.soft_prefix import SoftPrefix
from recbole_genrec.backbone.text_vocabulary import pad_rows, tokenise_texts, train_text_vocabulary
from recbole_genrec.backbone.tied_code_vocabulary import TiedCodeVocabulary

__all__ = [
    "BeamDecoder",
    "CausalBackbone",
    "CausalDecoder",
    "CodeVocabulary",
    "EncoderDecoderBackbone",
    "SoftPrefix",
    "TiedCodeVocabulary",
    "apply_tuning",
    "backbone_identity",
    "branch_states",
    "build_backbone",
    "cheapen",
    "compose",
    "constant",
    "embed_mixed",
    "greedy_text",
    "load_causal_lm",
    "load_encoder_decoder",
    "load_text_tokenizer",
    "pad_rows",
    "stack_rows",
    "tokenise_texts",
    "train_text_vocabulary",
]
