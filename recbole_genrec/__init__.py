"""LLM-based generative recommendation with learned item tokenisation, inside RecBole."""

import importlib

__version__ = "0.1.0"

PROVIDED = {
    "GenRecModel": "recbole_genrec.model.base",
    "GenerativeRecommender": "recbole_genrec.model.generative",
    "SharedSettings": "recbole_genrec.settings.shared_keys",
    "TokenizerSettings": "recbole_genrec.settings.tokenizer_keys",
    "VectorRecommender": "recbole_genrec.model.ranking",
    "Leaderboard": "recbole_genrec.report.leaderboard",
    "Result": "recbole_genrec.report.objects",
    "Results": "recbole_genrec.report.objects",
    "balanced": "recbole_genrec.runtime.processes",
    "benchmark": "recbole_genrec.experiments.opening",
    "evaluate": "recbole_genrec.experiments.trained",
    "key": "recbole_genrec.settings.declaration",
    "list_datasets": "recbole_genrec.experiments.offers",
    "list_models": "recbole_genrec.experiments.offers",
    "list_tokenizers": "recbole_genrec.experiments.offers",
    "load": "recbole_genrec.experiments.opening",
    "load_data_and_model": "recbole_genrec.experiments.trained",
    "recommend": "recbole_genrec.experiments.trained",
    "recommend_to_file": "recbole_genrec.serving.lists",
    "register": "recbole_genrec.model.outside",
    "run_recbole_genrec": "recbole_genrec.experiments.run",
    "write_report": "recbole_genrec.experiments.report",
}
__all__ = [
    "GenRecModel",
    "GenerativeRecommender",
    "Leaderboard",
    "Result",
    "Results",
    "SharedSettings",
    "TokenizerSettings",
    "VectorRecommender",
    "balanced",
    "benchmark",
    "evaluate",
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
    "write_report",
]


def __getattr__(name: str):
    if name in PROVIDED:
        return getattr(importlib.import_module(PROVIDED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
