"""STORE: one causal language model codes items and recommends over the codes."""

from recbole_genrec.model.store.model import STORE

__all__ = ["STORE"]
