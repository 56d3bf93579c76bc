"""The codes as words of LC-Rec's language model: how their tables start."""

from __future__ import annotations

from recbole_genrec.backbone import CausalBackbone, CodeVocabulary

# How far new code vectors lie from the mean of the text vectors, as a share of their spread:
# among random words, or near the mean of known ones.
SPREAD_FROM_SCRATCH = 1.0
SPREAD_PRETRAINED = 0.02


def code_vocabulary(
    backbone: CausalBackbone, sizes: tuple[int, ...], from_scratch: bool
) -> CodeVocabulary:
    """Tables of the codes, which start like those of the text.

    Args:
        backbone: the language model.
        sizes: alphabet size of each code of an item.
        from_scratch: whether the language model has random weights.
    """
    vocabulary = CodeVocabulary(sizes, backbone.d_in, backbone.d_out, tied=backbone.tied)
    spread = SPREAD_PRETRAINED
    if from_scratch:
        spread = SPREAD_FROM_SCRATCH
    inputs = backbone.text_table.weight
    outputs = backbone.lm.get_output_embeddings().weight
    vocabulary.start_like(inputs, outputs, spread)
    return vocabulary
