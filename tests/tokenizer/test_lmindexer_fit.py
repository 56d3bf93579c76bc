"""The stages of LMIndexer's tokenizer one after another, on small catalogues."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from lmindexer import KEYS, TINY_LM, catalogue, tokenizer

from recbole_genrec.backbone import load_encoder_decoder, train_text_vocabulary
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.runtime import interrupts
from recbole_genrec.tokenizer import NewItems, fit_or_load
from recbole_genrec.tokenizer.lmindexer.inspection import greedy_codes
from recbole_genrec.tokenizer.lmindexer.stages import IndexerStage
from recbole_genrec.tokenizer.lmindexer.tokenizer import LMIndexerTokenizer, check_settings
from recbole_genrec.tokenizer.training_loop import TrainingLoop

LEARNS = {"stage_epochs": [30, 40, 40], "mask_rate": [0.7, 0.8], "stage_batch": [8, 8]}


@pytest.fixture(scope="module")
def learned():
    """A tokenizer that has trained for some seconds, its codes and its texts."""
    indexer, content = tokenizer(**LEARNS), catalogue()
    return indexer, indexer.fit(content), content


@pytest.fixture(scope="module")
def fitted():
    """The same after an epoch a stage."""
    indexer, content = tokenizer(), catalogue()
    return indexer, indexer.fit(content), content


# --- what is learned ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_texts_are_restored_from_their_own_codes(learned):
    """With the codes of another item the same reconstructor does worse, at each position."""
    indexer, codes, _ = learned
    assert len(indexer.quality["positions"]) == 2
    for figures in indexer.quality["positions"]:
        assert figures["accuracy"] > figures["accuracy_exchanged"] + 0.05
        assert figures["perplexity"] < 0.8 * figures["perplexity_exchanged"]
        assert figures["codebook_perplexity"] > 2
    before = codes.stats_before
    assert before["unique_ids"] > 8, "two positions of 4 codes name 32 items"


@pytest.mark.slow
def test_the_contrast_tells_items_with_the_same_prefix_apart(learned):
    without = tokenizer(**LEARNS, w_contrast=0.0)
    without.fit(catalogue())
    shares = [
        indexer.quality["positions"][1]["distinct_share"] for indexer in (learned[0], without)
    ]
    assert shares[0] > shares[1]


def test_greedy_codes_are_mostly_the_stored_ones(fitted):
    indexer, codes, content = fitted
    consistency = indexer.quality["self_consistency"]
    greedy = indexer.encode(NewItems(content.text[1:]))
    equal = greedy == codes.codes[1:, :2]
    assert consistency["ids"] == pytest.approx(float(equal.all(1).float().mean()))
    assert consistency["positions"] == pytest.approx(equal.float().mean(0).tolist())
    assert consistency["ids"] > 0.5


# --- shapes of codes ----------------------------------------------------------------------------


def test_three_positions():
    codes = tokenizer(codebook_sizes=[3, 4, 2]).fit(catalogue())
    assert codes.n_learned == 3 and codes.sizes[:3] == (3, 4, 2)
    assert len(codes.codes[1:].unique(dim=0)) == 32


def test_the_index_column_is_as_large_as_the_largest_leaf():
    """A leaf of 6 items or more under 4 codes a position; every row is its own."""
    content = catalogue(repeats=6)
    codes = tokenizer(codebook_sizes=[4, 4], dedup_spare=3).fit(content)
    largest = codes.stats_before["largest_group"]
    assert largest >= 6 > 4 and codes.sizes == (4, 4, largest + 3)
    rows = codes.codes[1:]
    assert len(rows.unique(dim=0)) == len(rows)
    groups: dict[tuple, list[int]] = {}
    for _, (*prefix, index) in sorted(zip(codes.tokens[1:], rows.tolist(), strict=True)):
        groups.setdefault(tuple(prefix), []).append(index)
    for indices in groups.values():
        assert indices == list(range(len(indices))), "counted in the order of the raw ids"


@pytest.mark.parametrize(("n_items", "size"), [(32, 128), (20_000, 128), (20_001, 512)])
def test_sizes_that_follow_the_catalogue(n_items, size):
    assert LMIndexerTokenizer.sizes_asked("auto", n_items) == [size, size]
    assert LMIndexerTokenizer.sizes_asked([3, 4], n_items) == [3, 4]


def test_no_code_is_a_text_token(fitted):
    """Rows of codes are a table behind the text table, which may have padding rows."""
    indexer, _, _ = fitted
    pretrained = indexer.hand_over()
    n_text = pretrained.backbone.text_table.num_embeddings
    assert n_text >= len(pretrained.text_tokenizer)
    assert pretrained.code_rows.shape == (8, 32)
    network = indexer._finished()
    tokens = n_text + network.codes.tokens(torch.tensor([[0, 0], [3, 3]]))
    assert tokens.tolist() == [[n_text, n_text + 4], [n_text + 3, n_text + 7]]


def test_there_are_never_more_codes_than_different_texts():
    codes = tokenizer(codebook_sizes=[64, 3]).fit(catalogue())
    assert codes.sizes[:2] == (32, 3)


# --- stages -------------------------------------------------------------------------------------


def test_a_finished_codebook_is_the_embedding_of_its_tokens(monkeypatch):
    """When position t starts, the token of code k of position t - 1 has row k of its codebook."""
    seen = []
    original = TrainingLoop.train

    def watched(self, stage):
        network = stage.network
        table = network.codes.embedding.detach().clone()
        if stage.name == "no-code 2":
            finished = seen[-1][1][:4]
            codes = torch.arange(4)
            assert network.codes.embed_code(codes, 0).equal(finished)
            assert network.rows(codes.unsqueeze(1)).squeeze(1).equal(finished)
            assert network.codebook(0).equal(finished)
        original(self, stage)
        seen.append((stage.name, network.codes.embedding.detach().clone(), table))

    monkeypatch.setattr(TrainingLoop, "train", watched)
    tokenizer().fit(catalogue())
    names = [name for name, _, _ in seen]
    assert names == ["warm-up", "no-code 1", "joint 1", "no-code 2", "joint 2"]
    _, after, before = seen[0]
    assert after.equal(before), "the warm-up leaves the codebook as it is"


def test_unused_codes_are_revived():
    options = {"codebook_sizes": [8, 4], "stage_epochs": [1, 1, 3], "stage_lr": 0.01}
    used = {}
    for revive in (False, True):
        codes = tokenizer(**options, revive_dead=revive).fit(catalogue())
        used[revive] = codes.stats()["levels"][0]["used"]
    assert used[True] >= used[False]


# --- killed and resumed -------------------------------------------------------------------------


class Killer:
    """Sends SIGTERM in the given epoch or computation of a fit."""

    def __init__(self, monkeypatch) -> None:
        self.steps: list[str] = []
        self.at: str | None = None
        epoch, compute = TrainingLoop._epoch, TrainingLoop.compute

        def watched_epoch(loop, stage, number, *further):
            self.note(f"{stage.name}/{number}")
            return epoch(loop, stage, number, *further)

        def watched_compute(loop, name, function):
            def noted():
                self.note(name)
                return function()

            return compute(loop, name, noted)

        monkeypatch.setattr(TrainingLoop, "_epoch", watched_epoch)
        monkeypatch.setattr(TrainingLoop, "compute", watched_compute)

    def note(self, step: str) -> None:
        self.steps.append(step)
        if step == self.at:
            self.at = None
            os.kill(os.getpid(), signal.SIGTERM)


def test_killed_in_the_middle_of_each_stage(tmp_path, monkeypatch):
    """The fit goes on where it was, does nothing twice, and ends with the same result."""
    options = {"stage_epochs": [2, 2, 2], "codebook_sizes": [3, 3]}
    content, killer = catalogue(places=1), Killer(monkeypatch)

    def fit(cache: str):
        indexer = tokenizer(**options)
        codes = fit_or_load(indexer, content, tmp_path / cache, 3, lambda _: None)
        tensors, meta = indexer.state()
        quality = {key: value for key, value in meta["quality"].items() if "cpu" not in key}
        return {**tensors, "codes": codes.codes}, quality

    tensors, quality = fit("whole")
    steps = killer.steps
    assert steps == [
        *("warm-up/0", "warm-up/1", "no-code 1/0", "no-code 1/1", "k-means 1"),
        *("joint 1/0", "joint 1/1", "assign 1", "no-code 2/0", "no-code 2/1", "k-means 2"),
        *("joint 2/0", "joint 2/1", "assign 2", "greedy"),
    ]
    for number, step in enumerate(steps):
        if step.endswith("/1"):
            continue
        cache = f"killed-{number}"
        killer.steps, killer.at = [], step
        with interrupts.handled_signals(), pytest.raises(interrupts.Interrupted):
            fit(cache)
        assert killer.steps == steps[: number + 1]
        killer.steps = []
        again, quality_again = fit(cache)
        # An epoch that has begun is finished; a computation starts again.
        done = number + ("/" in step)
        assert killer.steps == steps[done:]
        assert again.keys() == tensors.keys()
        assert all(torch.equal(again[name], tensors[name]) for name in tensors)
        assert quality_again == quality


def test_a_stored_tokenizer_codes_and_hands_over_the_same(tmp_path):
    content = catalogue()
    first = tokenizer()
    codes = fit_or_load(first, content, tmp_path, 3, lambda _: None)
    second = tokenizer()
    again = fit_or_load(second, content, tmp_path, 3, lambda _: None)
    assert codes.codes.equal(again.codes)
    new = NewItems(["red comb garden", "white soap"])
    assert first.encode(new).equal(second.encode(new))
    for one, other in zip(
        first.hand_over().backbone.parameters(),
        second.hand_over().backbone.parameters(),
        strict=True,
    ):
        assert one.equal(other)
    assert first.hand_over().code_rows.equal(second.hand_over().code_rows)


def test_damaged_weights_are_refused(fitted):
    """A weight that is missing, surplus or of another shape is never replaced by random numbers."""
    tensors, meta = fitted[0].state()
    name = next(name for name in tensors if name.endswith("SelfAttention.q.weight"))
    missing = {key: value for key, value in tensors.items() if key != name}
    for wrong in (missing, {**tensors, "more": tensors[name]}, {**tensors, name: torch.ones(2)}):
        other = tokenizer()
        other.set_state(wrong, meta)
        with pytest.raises(ArtefactError, match="does not fit"):
            other.hand_over()
    with pytest.raises(KeyError):  # which fit_or_load explains
        tokenizer().set_state(tensors, {"vocabulary": None})


def test_a_language_model_of_a_folder(tmp_path):
    """One with more rows than words and a gated feed-forward."""
    config = {**TINY_LM, "feed_forward_proj": "gated-gelu"}
    words = train_text_vocabulary(catalogue().text, 400)
    lm = load_encoder_decoder("scratch", {**config, "vocab_size": len(words) + 20})
    lm.save_pretrained(tmp_path / "t5")
    words.save_pretrained(tmp_path / "t5")

    indexer = tokenizer(indexer_backbone=str(tmp_path / "t5"))
    codes = indexer.fit(catalogue())
    pretrained = indexer.hand_over()
    table = pretrained.backbone.text_table
    assert table.num_embeddings == len(words) + 20
    start = lm.get_input_embeddings().weight
    assert not table.weight.equal(start)
    assert indexer.fresh_backbone().text_table.weight.equal(start)

    again = tokenizer(indexer_backbone=str(tmp_path / "t5"))
    again.set_state(*indexer.state())
    new = NewItems(catalogue().text[1:])
    assert again.encode(new).equal(indexer.encode(new)) and len(codes.sizes) == 3


# --- new items ----------------------------------------------------------------------------------


def test_new_items_take_the_next_free_index(fitted):
    indexer, codes, content = fitted
    existing, sizes = codes.codes[1:], codes.sizes
    text = content.text[5]
    own = indexer.encode(NewItems([text]))[0]
    placed, moved = indexer.place(NewItems([text]), existing, sizes)
    assert moved == 0 and placed[0, :2].equal(own)
    taken = existing[(existing[:, :2] == own).all(1), 2].tolist()
    free = next(index for index in range(sizes[2]) if index not in taken)
    assert int(placed[0, 2]) == free


def test_without_a_free_index_the_likeliest_prefix_is_taken(fitted):
    indexer, codes, content = fitted
    sizes = (4, 4, 1)
    text = content.text[5]
    network = indexer._finished()
    texts = indexer._later_texts(NewItems([text]))
    own = greedy_codes(network, texts)
    with torch.no_grad():
        memory = network.read(texts[torch.tensor([0])])
        scores = {}
        for first in range(4):
            states = network.decode(memory, torch.tensor([[first]]))[0]
            for second in range(4):
                scores[first, second] = float(
                    network.codes.logits(states[0], 0).log_softmax(0)[first]
                    + network.codes.logits(states[1], 1).log_softmax(0)[second]
                )
    ranking = sorted(scores, key=scores.get, reverse=True)
    taken = {tuple(own[0].tolist()), ranking[0]}
    expected = next(prefix for prefix in ranking if prefix not in taken)
    existing = torch.tensor([[*prefix, 0] for prefix in taken])
    placed, moved = indexer.place(NewItems([text]), existing, sizes)
    assert moved == 1 and placed.tolist() == [[*expected, 0]]


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage_epochs": [1, 1]}, r"stage_epochs is \[1, 1\]; it takes 3 values"),
        ({"mask_rate": [0.5]}, "it takes 2 values"),
        ({"collision": ["nearest_free"]}, "by an index column"),
        ({"indexer_config": {**TINY_LM, "dropout_rate": 0.0}}, "both views of an item"),
    ],
)
def test_settings_that_cannot_work(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_settings(tokenizer(**changes).settings)


def test_every_declared_key_is_part_of_the_cache_key():
    names = LMIndexerTokenizer.cache_key_names()
    assert set(KEYS) - {"show_progress", "device"} <= set(names)
    assert IndexerStage.learning_rate_key in names
