"""Language models behind one protocol, and what goes in and out of them: text and code tables."""

from recbole_genrec.backbone.causal.backbone import CausalBackbone
from recbole_genrec.backbone.causal.branches import branch_states
from recbole_genrec.backbone.causal.build import apply_tuning, build_backbone
from recbole_genrec.backbone.causal.decoder import CausalDecoder
from recbole_genrec.backbone.causal.greedy import greedy_text
from recbole_genrec.backbone.causal.load import load_causal_lm
from recbole_genrec.backbone.code_vocabulary import CodeVocabulary
from recbole_genrec.backbone.dropout import cheapen
from recbole_genrec.backbone.encoder_decoder.backbone import EncoderDecoderBackbone
from recbole_genrec.backbone.encoder_decoder.beam_decoder import BeamDecoder
from recbole_genrec.backbone.encoder_decoder.load import load_encoder_decoder
from recbole_genrec.backbone.encoder_decoder.query_stream import QueryStream
from recbole_genrec.backbone.pretrained import PretrainedBackbone
from recbole_genrec.backbone.protocol import Backbone
from recbole_genrec.backbone.sequences import (
    compose,
    constant,
    embed_mixed,
    length_mask,
    stack_rows,
    whole,
)
from recbole_genrec.backbone.soft_prefix import SoftPrefix
from recbole_genrec.backbone.sources import (
    backbone_identity,
    is_identity_of,
    load_text_tokenizer,
)
from recbole_genrec.backbone.text_and_codes import TextAndCodes
from recbole_genrec.backbone.text_table import TextTable
from recbole_genrec.backbone.text_vocabulary import (
    pad_rows,
    serialised,
    text_vocabulary,
    token_ids,
    tokenise_texts,
    train_text_vocabulary,
)
from recbole_genrec.backbone.tied_code_vocabulary import TiedCodeVocabulary

__all__ = [
    "Backbone",
    "BeamDecoder",
    "CausalBackbone",
    "CausalDecoder",
    "CodeVocabulary",
    "EncoderDecoderBackbone",
    "PretrainedBackbone",
    "QueryStream",
    "SoftPrefix",
    "TextAndCodes",
    "TextTable",
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
    "is_identity_of",
    "length_mask",
    "load_causal_lm",
    "load_encoder_decoder",
    "load_text_tokenizer",
    "pad_rows",
    "serialised",
    "stack_rows",
    "text_vocabulary",
    "token_ids",
    "tokenise_texts",
    "train_text_vocabulary",
    "whole",
]
