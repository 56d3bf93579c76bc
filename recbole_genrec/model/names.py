"""The names of our models and of RecBole's: where their classes are."""

from __future__ import annotations

from pathlib import Path

MODELS = {
    "STORE": "recbole_genrec.model.store.model:STORE",
    "TIGER": "recbole_genrec.model.tiger:TIGER",
    "LETTER": "recbole_genrec.model.letter:LETTER",
    "LCRec": "recbole_genrec.model.lcrec.model:LCRec",
    "TimelineRec": "recbole_genrec.model.timeline.model:TimelineRec",
    "TokenRec": "recbole_genrec.model.tokenrec.model:TokenRec",
    "SETRec": "recbole_genrec.model.setrec.model:SETRec",
    "MetaID": "recbole_genrec.model.metaid.model:MetaID",
    "LMIndexer": "recbole_genrec.model.lmindexer:LMIndexer",
    "LightGCN": "recbole_genrec.model.baselines.lightgcn:LightGCN",
    "LightGCNDot": "recbole_genrec.model.baselines.lightgcn_ranking:LightGCNDot",
    "LightGCNCosine": "recbole_genrec.model.baselines.lightgcn_ranking:LightGCNCosine",
    "Pop": "recbole_genrec.model.baselines.pop:Pop",
}

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
