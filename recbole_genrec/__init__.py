"""LLM-based generative recommendation with learned item tokenisation, inside RecBole."""

import importlib

__version__ = "0.1.0"

PROVIDED = {
    "GenRecModel": "recbole_genrec.model.base",
    "GenerativeRecommender": "recbole_genrec.model.generative",
    "SharedSettings": "recbole_genrec.settings.shared_keys",
    "TokenizerSettings": "recbole_genrec.settings.tokenizer_keys",
    "VectorRecommender": "recbole_genrec.model.ranking",
    "balanced": "recbole_genrec.runtime.processes",
    "key": "recbole_genrec.settings.declaration",
    "list_datasets": "recbole_genrec.experiments.offers",
    "list_models": "recbole_genrec.experiments.offers",
    "list_tokenizers": "recbole_genrec.experiments.offers",
    "load": "recbole_genrec.experiments.loading",
    "load_data_and_model": "recbole_genrec.experiments.trained",
    "recommend": "recbole_genrec.experiments.trained",
    "recommend_to_file": "recbole_genrec.serving.lists",
    "register": "recbole_genrec.model.outside",
    "run_recbole_genrec": "recbole_genrec.experiments.run",
}
__all__ = [
    "GenRecModel",
    "GenerativeRecommender",
    "SharedSettings",
    "TokenizerSettings",
    "VectorRecommender",
    "balanced",
    "key",
    "list_datasets",
    "list_models",
    "list_tokenizers",
    "load",
    "load_data_and_model",
    "recommend",
    "recommend_to_file",
    "register",
    "run_recbole_genrec",
]


def __getattr__(name: str):
    if name in PROVIDED:
        return getattr(importlib.import_module(PROVIDED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
