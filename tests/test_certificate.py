"""The proof of exactness is never wrong, and the automatic width uses it."""

from __future__ import annotations

import pytest
import torch
from decoders import ToyDecoder, random_codes

from recbole_genrec.decoding import SCORE_TYPES, ItemTrie, SearchResult, beam_search, beam_search_auto, exact_scores, exact_search
from recbole_genrec.errors import ConfigError

CLOSE = {"atol": 1e-5, "rtol": 0}


def test_certificate_is_never_wrong():
    certified = wrong = cases = 0
    sizes = (4, 3, 5)
    for seed in range(21):
        score_type, scale = SCORE_TYPES[seed % 3], (1.0, 2.0, 5.0)[seed // 3 % 3]
        trie = ItemTrie(random_codes(sizes, 35, seed), sizes)
        decoder = ToyDecoder(48, sizes, score_type, scale, seed)
        best = exact_scores(decoder, trie, score_type=score_type)[:, 1:].sort(1, descending=True).values
        for width in (1, 2, 5, 10, 20):
            result = beam_search(decoder, trie, width, score_type=score_type)
            cases += 48
            for k in range(1, width + 1):
                proof = result.certified(k)
                certified += int(proof.sum())
                difference = (result.scores[proof, :k] - best[proof, :k]).abs()
                wrong += int((difference > 1e-5).any(1).sum())
    assert cases >= 1000 and certified > 1000 and wrong == 0


def test_certificate_needs_enough_items():
    scores = torch.tensor([[-1.0, -2.0], [-1.0, -torch.inf], [-1.0, -torch.inf]])
    result = SearchResult(torch.ones(3, 2, dtype=torch.int64), scores, torch.tensor([-1.5, -3.0, -torch.inf]))
    assert result.certified(1).tolist() == [True, True, True]
    assert result.certified(2).tolist() == [False, False, True]
    with pytest.raises(ConfigError, match="Raise beam_width to at least 3"):
        result.certified(3)


def test_automatic_width_widens_for_uncertified_users_only():
    sizes, codes = (16, 8, 8), random_codes((16, 8, 8), 300)
    decoder, trie = ToyDecoder(40, sizes, scale=0.7), ItemTrie(codes, sizes)
    best = exact_search(decoder, trie, 5, fill=True)
    narrow = beam_search(decoder, trie, 5, fill=True)
    proven = narrow.certified(5)
    capped = beam_search_auto(decoder, trie, 5, beam_max=12, fill=True)
    assert 0 < capped.certified(5).sum() < 40 and torch.equal(capped.full[proven], narrow.full[proven])
    accepted = beam_search_auto(decoder, trie, 5, beam_max=300, fill=True)
    exact = beam_search_auto(decoder, trie, 5, beam_max=12, uncertified="exact", fill=True)
    for result in (accepted, exact):
        assert result.items.shape == (40, 5) and result.certified(5).all() and torch.equal(result.items, best.items)
        torch.testing.assert_close(result.scores, best.scores, **CLOSE)
    first = beam_search_auto(decoder, trie, 5, k=1, beam_max=5)
    assert torch.equal(first.items, narrow.items) and (first.certified(1).sum() > proven.sum())
