"""LLM-based generative recommendation with learned item tokenisation, inside RecBole."""

__version__ = "0.1.0"
__all__ = ["load_data_and_model", "recommend", "run_recbole_genrec"]


def __getattr__(name: str):
    if name in __all__:
        from recbole_genrec import quick_start

        return getattr(quick_start, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
