"""One sentence a method, for people who choose: what it is, and where it was published."""

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


MODEL_DESCRIPTIONS = {
    "STORE": Description(
        "one causal language model turns item text into codes and recommends over them",
        "arXiv 2409.07276, version 1",
    ),
    "TIGER": Description(
        "residual codes of item vectors; a T5 from random weights generates them",
        "arXiv 2305.05065",
    ),
    "LETTER": Description(
        "TIGER's generator on codes learned with collaborative and diversity losses",
        "arXiv 2405.07314",
    ),
    "LCRec": Description(
        "a causal language model learns the codes as words, by six families of instructions",
        "arXiv 2311.09049",
    ),
    "TokenRec": Description(
        "masked vector-quantised tokens of users and items; a T5 reads them, items are retrieved "
        "by cosine without a beam",
        "arXiv 2406.10450",
    ),
    "SETRec": Description(
        "a set of continuous tokens an item, from SASRec's vectors and from its text, predicted "
        "all at once; items are ranked by inner products without a beam",
        "arXiv 2502.10833",
    ),
    "MetaID": Description(
        "users and items as pairs of tokens from clusters of random walks; a T5 reads both, every "
        "item is scored by two decisions",
        "arXiv 2406.08477",
    ),
    "LMIndexer": Description(
        "a T5 learns without labels to name items by restoring their hidden texts, then goes on "
        "to recommend them",
        "arXiv 2310.07815",
    ),
    "TimelineRec": Description(
        "one position an item, a small head along its codes; trains on a laptop with the codes "
        "of any tokenizer",
        "ours, unpublished",
    ),
    "Pop": Description(
        "the most popular items, for everyone; counts every interaction once", "RecBole"
    ),
    "LightGCN": Description(
        "RecBole's, with its adjacency matrix built anew (the original fails on current scipy)",
        "arXiv 2002.02126",
    ),
    "LightGCNDot": Description(
        "the vectors that TokenRec quantises, ranked by their dot product", "RecBole's LightGCN"
    ),
    "LightGCNCosine": Description(
        "the vectors that TokenRec quantises, ranked by their cosine", "RecBole's LightGCN"
    ),
}
"""By the name that ``--model`` takes."""

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
