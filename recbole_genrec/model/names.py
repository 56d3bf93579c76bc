"""The names of our models and of RecBole's: where their classes are, and what they are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Method(NamedTuple):
    """A model of this package.

    Attributes:
        location: its class, as ``package.module:Class``.
        text: what people read about it.
        source: where it was published.
    """

    location: str
    text: str
    source: str


MODELS = {
    "STORE": Method(
        "recbole_genrec.model.store.model:STORE",
        "one causal language model turns item text into codes and recommends over them",
        "arXiv 2409.07276, version 1",
    ),
    "TIGER": Method(
        "recbole_genrec.model.tiger:TIGER",
        "residual codes of item vectors; a T5 from random weights generates them",
        "arXiv 2305.05065",
    ),
    "LETTER": Method(
        "recbole_genrec.model.letter:LETTER",
        "TIGER's generator on codes learned with collaborative and diversity losses",
        "arXiv 2405.07314",
    ),
    "LCRec": Method(
        "recbole_genrec.model.lcrec.model:LCRec",
        "a causal language model learns the codes as words, by six families of instructions",
        "arXiv 2311.09049",
    ),
    "TimelineRec": Method(
        "recbole_genrec.model.timeline.model:TimelineRec",
        "one position an item, a small head along its codes; trains on a laptop with the codes "
        "of any tokenizer",
        "ours, unpublished",
    ),
    "TokenRec": Method(
        "recbole_genrec.model.tokenrec.model:TokenRec",
        "masked vector-quantised tokens of users and items; a T5 reads them, items are retrieved "
        "by cosine without a beam",
        "arXiv 2406.10450",
    ),
    "SETRec": Method(
        "recbole_genrec.model.setrec.model:SETRec",
        "a set of continuous tokens an item, from SASRec's vectors and from its text, predicted "
        "all at once; items are ranked by inner products without a beam",
        "arXiv 2502.10833",
    ),
    "MetaID": Method(
        "recbole_genrec.model.metaid.model:MetaID",
        "users and items as pairs of tokens from clusters of random walks; a T5 reads both, every "
        "item is scored by two decisions",
        "arXiv 2406.08477",
    ),
    "LMIndexer": Method(
        "recbole_genrec.model.lmindexer:LMIndexer",
        "a T5 learns without labels to name items by restoring their hidden texts, then goes on "
        "to recommend them",
        "arXiv 2310.07815",
    ),
    "LightGCN": Method(
        "recbole_genrec.model.baselines.lightgcn:LightGCN",
        "RecBole's, with its adjacency matrix built anew (the original fails on current scipy)",
        "arXiv 2002.02126",
    ),
    "LightGCNDot": Method(
        "recbole_genrec.model.baselines.lightgcn_ranking:LightGCNDot",
        "the vectors that TokenRec quantises, ranked by their dot product",
        "RecBole's LightGCN",
    ),
    "LightGCNCosine": Method(
        "recbole_genrec.model.baselines.lightgcn_ranking:LightGCNCosine",
        "the vectors that TokenRec quantises, ranked by their cosine",
        "RecBole's LightGCN",
    ),
    "Pop": Method(
        "recbole_genrec.model.baselines.pop:Pop",
        "the most popular items, for everyone; counts every interaction once",
        "RecBole",
    ),
}
"""Our models by the name that ``--model`` takes."""

# (model, generator) -> the model that runs instead, on the tokenizer of the first and with the
# section of its files that is named after the second
GENERATORS = {
    ("TIGER", "timeline"): "TimelineRec",
    ("LETTER", "timeline"): "TimelineRec",
    ("TIGER", "lcrec"): "LCRec",
    ("LETTER", "lcrec"): "LCRec",
}


def recbole_model_names() -> list[str]:
    """Names of the models that RecBole ships (its model YAMLs)."""
    import recbole

    return sorted(
        path.stem
        for path in (Path(recbole.__file__).parent / "properties" / "model").glob("*.yaml")
    )
