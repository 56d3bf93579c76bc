"""What the tokenizers are, for people who choose one."""

from __future__ import annotations

from typing import NamedTuple


class Description(NamedTuple):
    """What people read about a method or a tokenizer.

    Attributes:
        text: what it is.
        source: where it was published.
    """

    text: str
    source: str


TOKENIZER_DESCRIPTIONS = {
    "rkmeans": Description(
        "residual k-means on sentence embeddings; seconds, no training; default of TIGER",
        "our default",
    ),
    "clusters": Description(
        "a coarse k-means cluster of sentence embeddings and a place in it; seconds, no training; "
        "default of TimelineRec",
        "ours, unpublished",
    ),
    "rqvae": Description("RQ-VAE on sentence embeddings", "TIGER, arXiv 2305.05065"),
    "letter": Description(
        "RQ-VAE + alignment with SASRec's item vectors + diversity of the codes; default of LETTER",
        "LETTER, arXiv 2405.07314",
    ),
    "store": Description(
        "dense tokens of a causal language model, PCA and k-means; for STORE, LCRec and "
        "TimelineRec",
        "STORE, arXiv 2409.07276",
    ),
    "text-hierarchical": Description("a tree of k-means splits of sentence embeddings", "ours"),
    "cid": Description(
        "the same tree on a spectral embedding of which items occur together; needs no text",
        "P5-CID, arXiv 2305.06569",
    ),
    "opq": Description(
        "many parallel codes by product quantisation after a learned rotation; for "
        "generator: parallel of TimelineRec",
        "RPG, arXiv 2506.05781",
    ),
    "mq": Description(
        "parallel codebooks over LightGCN's item vectors; needs no text; default of TokenRec",
        "TokenRec, arXiv 2406.10450",
    ),
    "metapath": Description(
        "a cluster and a rank there, of skip-gram vectors of walks among users and items; needs "
        "no text; default of MetaID",
        "META ID, arXiv 2406.08477",
    ),
    "lmindexer": Description(
        "codes that a T5 gives an item text so that a weak layer can restore it, position after "
        "position; default of LMIndexer",
        "LMIndexer, arXiv 2310.07815",
    ),
    "random": Description("uniform random codes: what is the content of the codes worth?", "ours"),
}
"""By the name that ``--tokenizer`` takes."""
