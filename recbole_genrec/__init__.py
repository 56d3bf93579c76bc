"""LLM-based generative recommendation with learned item tokenisation, inside RecBole."""

import importlib

__version__ = "0.1.0"

PROVIDED = {
    "load_data_and_model": "recbole_genrec.experiments.trained",
    "recommend": "recbole_genrec.experiments.trained",
    "run_recbole_genrec": "recbole_genrec.experiments.run",
}
__all__ = ["load_data_and_model", "recommend", "run_recbole_genrec"]


def __getattr__(name: str):
    if name in PROVIDED:
        return getattr(importlib.import_module(PROVIDED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
