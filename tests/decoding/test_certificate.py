"""The proof of exactness is never wrong, and the automatic width uses it."""

from __future__ import annotations

import pytest
import torch
from decoders import SparingDecoder, ToyDecoder, random_codes

from recbole_genrec.decoding import (
    SCORE_TYPES,
    ItemTrie,
    SearchResult,
    beam_search,
    beam_search_auto,
    exact_scores,
    exact_search,
)
from recbole_genrec.errors import ConfigError

CLOSE = {"atol": 1e-5, "rtol": 0}


def test_certificate_is_never_wrong():
    certified = wrong = cases = 0
    sizes = (4, 3, 5)
    for seed in range(21):
        score_type, scale = SCORE_TYPES[seed % 3], (1.0, 2.0, 5.0)[seed // 3 % 3]
        trie = ItemTrie(random_codes(sizes, 35, seed), sizes)
        decoder = ToyDecoder(48, sizes, score_type, scale, seed)
        best = (
            exact_scores(decoder, trie, score_type=score_type)[:, 1:]
            .sort(1, descending=True)
            .values
        )
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
    result = SearchResult(
        torch.ones(3, 2, dtype=torch.int64), scores, torch.tensor([-1.5, -3.0, -torch.inf])
    )
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
    assert 0 < capped.certified(5).sum() < 40 and torch.equal(
        capped.full[proven], narrow.full[proven]
    )
    accepted = beam_search_auto(decoder, trie, 5, beam_max=300, fill=True)
    exact = beam_search_auto(decoder, trie, 5, beam_max=12, uncertified="exact", fill=True)
    for result in (accepted, exact):
        assert (
            result.items.shape == (40, 5)
            and result.certified(5).all()
            and torch.equal(result.items, best.items)
        )
        torch.testing.assert_close(result.scores, best.scores, **CLOSE)
    first = beam_search_auto(decoder, trie, 1, beam_max=5)
    sure = first.certified(1)
    assert torch.equal(first.items[sure], best.items[sure, :1]) and sure.sum() > proven.sum()


@pytest.mark.parametrize("score_type", SCORE_TYPES)
@pytest.mark.parametrize("unique", [True, False])
def test_automatic_width_equals_the_exact_search_wherever_it_is_certified(score_type, unique):
    sizes, users = (32, 6, 6), 30
    trie = ItemTrie(random_codes(sizes, 260, unique=unique), sizes)
    proven = []
    for scale in (0.5, 1.0, 3.0):
        decoder = ToyDecoder(users, sizes, score_type, scale)
        exact = exact_search(decoder, trie, 4, score_type=score_type, fill=True)
        for beam_max in (4, 8, 20, 64):
            result = beam_search_auto(
                decoder, trie, 4, beam_max=beam_max, score_type=score_type, fill=True
            )
            sure = result.certified(4)
            proven.append(sure.float().mean().item())
            assert torch.equal(result.items[sure], exact.items[sure]) and torch.equal(
                result.full.topk(4).indices, result.items
            )
            torch.testing.assert_close(result.scores[sure], exact.scores[sure], **CLOSE)
            assert (
                result.full.sort(1).values[:, -4:] <= exact.full.sort(1).values[:, -4:] + 1e-5
            ).all()
            assert result.full.isfinite().all()
    assert (
        min(proven) < 0.5
        and max(proven) == 1
        and (score_type == "joint" or min(proven[3::4]) > 0.9)
    )


class NoisyDecoder(ToyDecoder):
    """First codes that are all but tied, and scores whose last bits are others in every batch."""

    batches = 0

    def start(self):
        NoisyDecoder.batches += 1
        values = super().start() * 1e-8
        return values + 5e-7 * torch.rand(
            values.shape, generator=torch.Generator().manual_seed(NoisyDecoder.batches)
        )


def test_no_first_code_is_left_out_when_scores_differ_between_batches():
    sizes = (24, 6)
    trie, wrong, sure = ItemTrie(random_codes(sizes, 100), sizes), 0, 0
    for seed in range(5):
        decoder = NoisyDecoder(40, sizes, "renormalised", 5.0, seed)
        best = exact_search(decoder, trie, 1, score_type="renormalised")
        result = beam_search_auto(decoder, trie, 1, beam_max=24, score_type="renormalised")
        proof = result.certified(1)
        wrong += int(((result.scores - best.scores).abs() > 1e-4)[proof].sum())
        sure += int(proof.sum())
    assert sure == 200 and wrong == 0


@pytest.mark.parametrize("score_type", SCORE_TYPES)
def test_dead_prefixes_are_not_decoded(score_type, monkeypatch):
    """A decoder that is told which queries are dead may leave them out; the lists stay the same
    and do not depend on the batch.
    """
    sizes = (32, 6, 6)
    trie, counts = ItemTrie(random_codes(sizes, 260), sizes), {"answered": 0, "asked": 0}
    decoders = [kind(30, sizes, score_type, 3.0) for kind in (ToyDecoder, SparingDecoder)]
    step = SparingDecoder.step

    def counted(self, codes, parents, live=None):
        counts["asked"] += codes.numel()
        counts["answered"] += codes.numel() if live is None else int(live.sum())
        return step(self, codes, parents, live)

    monkeypatch.setattr(SparingDecoder, "step", counted)
    plain, sparing = (
        beam_search_auto(decoder, trie, 4, score_type=score_type, fill=True) for decoder in decoders
    )
    assert torch.equal(plain.items, sparing.items) and torch.equal(plain.full, sparing.full)
    assert plain.certified(4).all() and counts["answered"] < 0.9 * counts["asked"]
    alone = beam_search_auto(
        decoders[1].select(torch.tensor([3])), trie, 4, score_type=score_type, fill=True
    )
    torch.testing.assert_close(alone.full, plain.full[3:4], **CLOSE)
