"""Keys of the search over item codes, which never change what is trained."""

from __future__ import annotations

from typing import Literal

from recbole_genrec.settings.declaration import GIVEN, Settings, key

WIDENS = ("beam_width", "auto")


class SearchKeys(Settings):
    """How the best items of a user are found and scored."""

    beam_width: int | Literal["auto"] = key("beams per user, or 'auto'", ge=1, affects="search")
    beam_max: int = key("widest beam of beam_width: auto", ge=1, affects="search", only_if=WIDENS)
    uncertified: Literal["accept", "exact"] = key(
        "what to do with unproven users at beam_max", affects="search", only_if=WIDENS
    )
    score_type: Literal["joint", "level", "renormalised"] = key(
        "score of an item", affects="search"
    )
    score_mode: Literal["beam", "exact", "auto"] = key(
        "beam search, every item, or every item where one product scores them all",
        affects="search",
    )
    constraint: Literal["trie", "level", "slice"] = key("what the beam may emit", affects="search")
    exclude_history: bool = key(
        "items of the user's history never enter a list, of any model",
        affects="search",
        neutral=False,
    )
    search_batch_size: int = key("users searched at once", ge=1, affects="display", evaluate=True)
    dense_scores: bool | Literal["auto"] = key(
        "whether an evaluation holds the scores of all items for its users, or their lists alone; "
        "auto = lists with more than 50,000 items, where the metrics allow it",
        affects="display",
        default="auto",
        evaluate=True,
    )
    candidate_file: str | None = key(
        "file of raw item ids, one a line; evaluations rank these above all others",
        affects="search",
    )
    subset_norm: Literal["full", "subset"] = key(
        "over what renormalised scores of candidates sum",
        affects="search",
        only_if=("candidate_file", GIVEN),
    )
    trie_budget_mb: float = key("memory for dense trie tables, MiB", ge=0, affects="search")


class CompiledSearchKeys(Settings):
    """Of methods whose search ``torch.compile`` can take."""

    compile_search: bool = key("torch.compile for the search", affects="display", evaluate=True)
