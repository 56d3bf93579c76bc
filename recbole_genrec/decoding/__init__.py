"""Search over item codes: trie, beam search with proof, exact scores; losses over them.

Tensors only.
"""

from recbole_genrec.decoding.auto import beam_search_auto
from recbole_genrec.decoding.cached_softmax import cached_cross_entropy
from recbole_genrec.decoding.closed_codes import (
    ALL_OPEN,
    ClosedCodes,
    histories_of,
    without_targets,
)
from recbole_genrec.decoding.code_tuples import (
    AdjustedDecoder,
    grammar_tuples,
    sampled_tuples,
    tuple_scores,
)
from recbole_genrec.decoding.edges import edge_leaf_scores, segment_log_softmax
from recbole_genrec.decoding.exact import exact_scores, exact_search, path_scores
from recbole_genrec.decoding.grammar import grammar_search
from recbole_genrec.decoding.likelihood import item_cross_entropy, level_logits
from recbole_genrec.decoding.log_probs import cached_log_probs
from recbole_genrec.decoding.protocol import SCORE_TYPES, CodeDecoder, SearchResult
from recbole_genrec.decoding.search import beam_search
from recbole_genrec.decoding.search_log import SearchLog
from recbole_genrec.decoding.smoothing import ranking_guided_loss, smoothed_cross_entropy
from recbole_genrec.decoding.trie import ItemTrie
from recbole_genrec.decoding.whole_catalogue import catalogue_search

__all__ = [
    "ALL_OPEN",
    "SCORE_TYPES",
    "AdjustedDecoder",
    "ClosedCodes",
    "CodeDecoder",
    "ItemTrie",
    "SearchLog",
    "SearchResult",
    "beam_search",
    "beam_search_auto",
    "cached_cross_entropy",
    "cached_log_probs",
    "catalogue_search",
    "edge_leaf_scores",
    "exact_scores",
    "exact_search",
    "grammar_tuples",
    "grammar_search",
    "histories_of",
    "item_cross_entropy",
    "level_logits",
    "path_scores",
    "ranking_guided_loss",
    "sampled_tuples",
    "segment_log_softmax",
    "smoothed_cross_entropy",
    "tuple_scores",
    "without_targets",
]
