"""What holds for every tokenizer of item vectors, and what LETTER's losses are for."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import toy_config, write_dataset

from recbole_genrec.collaborative.training_interactions import TrainingInteractions
from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.data.vectors import text_encoding
from recbole_genrec.data.vectors.text_encoding import TextEncoding
from recbole_genrec.decoding import ItemTrie
from recbole_genrec.errors import ConfigError, GenRecError
from recbole_genrec.settings.parsing import read_yaml
from recbole_genrec.settings.property_files import properties_folder
from recbole_genrec.storage.digests import digest
from recbole_genrec.tokenizer import NewItems, fit_or_load, make_tokenizer
from recbole_genrec.tokenizer.collapse import refuse_single_codes
from recbole_genrec.tokenizer.collision import collision_stats
from recbole_genrec.tokenizer.quantiser.residual_kmeans import ResidualKMeans
from recbole_genrec.tokenizer.quantiser.rqvae import RQVAE
from recbole_genrec.tokenizer.training_loop import TrainingLoop

TEXT = ["rkmeans", "clusters", "rqvae", "letter", "text-hierarchical", "mq", "opq"]
NAMES = [*TEXT, "cid"]
NEW = NewItems(
    ["red soap no 3", "dark oil of another brand", "red soap no 3", "an entirely different thing"]
)
SMALL = {
    "codebook_sizes": [8, 8],
    "spectral_dim": 8,
    "hidden_sizes": [16],
    "code_dim": 8,
    "tokenizer_batch_size": 16,
}
SMALL |= {"tokenizer_epochs": 3, "tokenizer_eval_interval": 1, "n_clusters": 3, "div_refresh": 2}


def fake_encoder(_, texts, __=None) -> np.ndarray:
    """Sums of random vectors of the words; a row depends on its text alone."""
    table = [
        [
            np.random.default_rng(zlib.crc32(word.encode())).standard_normal(12)
            for word in text.split()
        ]
        for text in texts
    ]
    return np.array(
        [np.sum(words, axis=0) if words else np.zeros(12) for words in table], dtype=np.float32
    )


@pytest.fixture(autouse=True)
def _encoder(monkeypatch):
    monkeypatch.setattr(TextEncoding, "vectors", fake_encoder)
    monkeypatch.setattr(
        text_encoding, "encoder_identity", lambda encoder, _: f"identity of {encoder}"
    )


def settings(name: str, **changes) -> dict:
    """The tokenizer's own file, made small."""
    values = read_yaml(properties_folder() / "tokenizer" / f"{name}.yaml")
    values |= {key: value for key, value in SMALL.items() if key in values}
    values |= (
        {"tokenizer_input": "text"} if "tokenizer_input" in values else {}
    )  # also where that is not the default
    return {
        **values,
        "tokenizer": name,
        "text_encoder": "default",
        "device": "cpu",
        "show_progress": False,
        **changes,
    }


def tokenizer(name: str, seed: int = 1, **changes):
    return make_tokenizer(settings(name, **changes), seed)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    config = toy_config(
        write_dataset(folder),
        cache_dir=str(folder / "cache"),
        cf_dim=8,
        cf_epochs=1,
        graph_epochs=2,
    )
    dataset = create_dataset(config)
    return ItemContent.from_dataset(dataset, config), TrainingInteractions(config)


@pytest.fixture
def content(loaded) -> ItemContent:
    return replace(loaded[0], interactions=loaded[1])


class Given:
    """Interactions that are simply given."""

    def __init__(self, tokens=(), cf=None, sequences=None):
        self.tokens, self.cf, self.sequences = list(tokens), cf, sequences or {}

    @property
    def fingerprint(self) -> str:
        return digest(self.tokens, None if self.cf is None else self.cf.tolist(), self.sequences)

    def vectors(self):
        return self.tokens, self.cf

    graph_fingerprint = "edges"
    graph = vectors


def by_token(codes) -> dict:
    return dict(zip(codes.tokens, codes.codes.tolist(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_fit(name, content):
    """tiger.md: distinct ids, ids and items are one to one, the padding item is in no trie; the
    same seed gives the same codes.
    """
    fitted = tokenizer(name)
    codes = fitted.fit(content)
    assert codes.tokens == content.tokens and codes.n_learned == 2 and codes.sizes[:2] == (8, 8)
    assert codes.stats()["unique_ids"] == content.n_items - 1
    assert fitted.quality["reconstruction_error"] >= 0
    trie = ItemTrie(codes.codes, codes.sizes)
    assert sorted(trie.leaf_items.tolist()) == list(range(1, content.n_items)) and torch.equal(
        trie.leaf_of_row, torch.arange(40)
    )
    for level, nodes in enumerate(trie.paths(torch.arange(40))[1:]):
        assert torch.equal(
            trie.levels[level].code[nodes].long(), codes.codes[trie.leaf_items, level]
        )
    again = tokenizer(name).fit(content)
    assert torch.equal(again.codes, codes.codes) and again.sizes == codes.sizes


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_items_changes_no_code(name, content):
    order = [0, *(1 + np.random.default_rng(0).permutation(content.n_items - 1))]
    shuffled = replace(
        content,
        tokens=[content.tokens[row] for row in order],
        text=[content.text[row] for row in order],
    )
    codes, other = tokenizer(name).fit(content), tokenizer(name).fit(shuffled)
    assert (
        by_token(other) == by_token(codes)
        and other.sizes == codes.sizes
        and other.tokens == shuffled.tokens
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_tokenizer_is_the_fitted_one(name, content, tmp_path):
    first, second, lines = (
        tokenizer(name, collision=["extra_token"]),
        tokenizer(name, collision=["extra_token"]),
        [],
    )
    torch.manual_seed(5)
    codes = fit_or_load(first, content, tmp_path, 1, lines.append)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    reused = fit_or_load(second, content, tmp_path, 1, lines.append)
    assert torch.equal(
        torch.rand(3), drawn
    )  # neither fit nor reload touches the caller's random numbers
    assert (
        torch.equal(reused.codes, codes.codes)
        and sum("not fitted again" in line for line in lines) == 1
    )
    assert second.quality == first.quality
    if name == "cid":
        for use in (second.encode, lambda texts: second.place(texts, codes.codes[1:], codes.sizes)):
            with pytest.raises(
                ConfigError, match="training interactions, which new items do not have"
            ):
                use(NEW)
        return
    encoded = first.encode(NEW)
    assert torch.equal(second.encode(NEW), encoded) and torch.equal(encoded[0], encoded[2])
    assert torch.equal(first.encode(NewItems(content.text[1:]))[:, :2], codes.codes[1:, :2])
    placed, moved = first.place(NEW, codes.codes[1:], codes.sizes)
    assert second.place(NEW, codes.codes[1:], codes.sizes)[1] == moved == 0
    assert torch.equal(second.place(NEW, codes.codes[1:], codes.sizes)[0], placed)
    assert collision_stats(torch.cat([codes.codes[1:], placed]))[
        "unique_ids"
    ] == content.n_items - 1 + len(NEW)


@pytest.mark.parametrize("name", TEXT)
def test_vectors_that_are_all_equal_are_refused(name, content):
    content._embeddings = np.ones((content.n_items, 12), dtype=np.float32)
    with pytest.raises(GenRecError, match="The tokenizer collapsed: 40 of 40 items"):
        tokenizer(name).fit(content)


def test_a_level_with_a_single_code_is_refused_where_it_is_needed(content):
    fitted = tokenizer("rkmeans", codebook_sizes=[1, 8, 1])
    assert fitted.fit(content).sizes[:3] == (1, 8, 1)  # sizes of one are what was asked for
    x = torch.arange(6.0).unsqueeze(1)
    for codes in ([[0, 0, 0], [0, 0, 1], [0, 1, 0]] * 2, [[0, 0], [1, 0]] * 3):
        with pytest.raises(GenRecError, match="all items have the same code at level"):
            refuse_single_codes(torch.tensor(codes), (2, 2, 2), x)
    refuse_single_codes(
        torch.tensor([[code, 0] for code in range(6)]), (6, 6), x
    )  # all are told apart already


def test_interactions_without_co_occurrences_are_refused(content):
    content.interactions = Given(
        sequences={f"u{item}": [token] for item, token in enumerate(content.tokens[1:])}
    )
    with pytest.raises(GenRecError, match="The tokenizer collapsed: 40 of 40 items"):
        tokenizer("cid").fit(content)


@pytest.mark.parametrize(
    "policies", [["sinkhorn", "extra_token"], ["nearest_free"], ["sinkhorn", "nearest_free"]]
)
@pytest.mark.parametrize("name", NAMES)
def test_collision_policies_leave_no_shared_ids(name, policies, content):
    codes = tokenizer(name, codebook_sizes=[6, 8], collision=policies).fit(content)
    assert codes.stats_before["colliding_items"] or name in ("text-hierarchical", "cid")
    assert codes.stats()["unique_ids"] == content.n_items - 1


# --- collaborative input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source"), [*((name, "cf") for name in TEXT), ("rkmeans", "graph"), ("mq", "graph")]
)
def test_collaborative_input(name, source, content, monkeypatch):
    monkeypatch.setattr(TextEncoding, "vectors", None)  # no text is read
    cf = np.random.default_rng(0).standard_normal((39, 8)).astype(np.float32)
    cf[3] = cf[17]
    content.interactions = Given(content.tokens[1:-1], cf)  # the last item has no vector
    options = {}
    if name == "opq":  # its own policy, nearest_free, moves learned codes
        options["collision"] = ["extra_token"]
    fitted = tokenizer(name, tokenizer_input=source, **options)
    codes = fitted.fit(content)
    assert torch.equal(codes.codes[4, :2], codes.codes[18, :2])
    assert codes.stats()["unique_ids"] == 40
    with pytest.raises(ConfigError, match="Use tokenizer_input: text"):
        fitted.encode(NEW)
    source_vectors = content.graph if source == "graph" else content.collaborative
    again = NewItems(content.text[1:-1], torch.from_numpy(source_vectors()[1:-1]))
    # Collision policies may change the last level.
    assert torch.equal(fitted.encode(again)[:, 0], codes.codes[1:-1, 0])
    for wrong in (torch.zeros(38, 8), torch.zeros(39, 7), torch.full((39, 8), torch.nan)):
        with pytest.raises(ConfigError, match=r"needs finite numbers of shape \[39, 8\]"):
            fitted.encode(NewItems(content.text[1:-1], wrong))
    assert fitted.uses_interactions and "text_encoder" not in fitted.config_key()
    assert ("edges" in fitted.interactions_key(content)) == (source == "graph")
    text = tokenizer(name)
    assert (
        text.uses_interactions == (name == "letter")
        and text.config_key()["text_encoder"] == "identity of default"
    )


def test_mq_quantises_the_vectors_of_lightgcn_unless_told_otherwise(content):
    assert read_yaml(properties_folder() / "tokenizer" / "mq.yaml")["tokenizer_input"] == "graph"
    content.interactions = TrainingInteractions(content.interactions.run_config, lambda _: None)
    fitted = tokenizer("mq", tokenizer_input="graph")
    codes = fitted.fit(content)
    learned = fitted.quantiser.assign(fitted.scale.apply(content.graph()[1:]))
    assert (
        torch.equal(codes.codes[1:, :2], learned)
        and codes.stats()["unique_ids"] == content.n_items - 1
    )
    assert (
        fitted.quality["used"] == [len(column.unique()) for column in learned.T]
        and fitted.quality["n"] == content.n_items - 1
    )


@pytest.mark.parametrize("name", ["rkmeans", "mq"])
def test_items_without_an_interaction_stay_zero_vectors_and_do_not_shift_the_others(content, name):
    cf = np.random.default_rng(0).normal(3, 1, (content.n_items, 8)).astype(np.float32)
    cf[[0, 4, 5, 6]] = 0
    content.interactions, fitted, seen = (
        Given(content.tokens, cf),
        tokenizer(name, tokenizer_input="cf"),
        [],
    )
    learn = fitted.learn
    fitted.learn = lambda x, content: (seen.append(x), learn(x, content))
    codes = fitted.fit(content)
    np.testing.assert_allclose(fitted.scale.centre, cf[(cf != 0).any(1)].mean(0), rtol=1e-5)
    without = [fitted.order.index(item) for item in (4, 5, 6)]
    assert (seen[0][without] == 0).all() and len(codes.codes[[4, 5, 6], :2].unique(dim=0)) == 1
    assert name != "mq" or fitted.quality["n"] == content.n_items - 4


def test_co_occurrence_decides_the_codes_of_cid(content):
    tokens = content.tokens[1:]
    sequences = {
        f"u{user}": [tokens[10 * (user % 3) + (user * 7 + step) % 10] for step in range(6)]
        for user in range(60)
    }
    content.interactions = Given(sequences=sequences)
    fitted = tokenizer("cid", spectral_dim=3, codebook_sizes=[4, 10])
    codes = fitted.fit(content).codes[1:]
    first = codes[:, 0].reshape(4, 10)  # the last ten have no training interactions
    assert (first == first[:, :1]).all() and len(first[:3, 0].unique()) == 3
    assert (
        fitted.quality["items_without_co_occurrence"] == 10
        and len(codes[30:, :2].unique(dim=0)) == 1
    )
    assert fitted.uses_interactions
    names = set(fitted.cache_key_names())
    assert names == set(settings("cid")) - {
        "tokenizer",
        "text_encoder",
        "device",
        "show_progress",
    }
    without_effect = {"sinkhorn_epsilon", "sinkhorn_iterations", "sinkhorn_rounds"}
    without_effect |= {"extra_token_size"}
    assert set(fitted.config_key()) == names - without_effect


# --- LETTER: what alpha and beta do ---------------------------------------------------------------


def synthetic(
    seed: int, skew: float = 0.0, n: int = 120, blocks: int = 6
) -> tuple[ItemContent, np.ndarray]:
    """Text vectors are noise, whose lengths differ with ``skew``; collaborative vectors lie near
    one of six directions.
    """
    draw = np.random.default_rng(seed)
    block = np.arange(n) % blocks
    cf = (
        2 * np.linalg.qr(draw.standard_normal((8, 8)))[0][block]
        + 0.1 * draw.standard_normal((n, 8))
    ).astype(np.float32)
    tokens = ["[PAD]", *(f"i{item:03d}" for item in range(n))]
    content = ItemContent(tokens, ["", *tokens[1:]], interactions=Given(tokens[1:], cf))
    noise = draw.standard_normal((n, 16)) * np.exp(skew * draw.standard_normal((n, 1)))
    content._embeddings = np.concatenate([np.zeros((1, 16)), noise]).astype(np.float32)
    return content, block


def letter_codes(content: ItemContent, seed: int, **changes) -> torch.Tensor:
    values = {
        "tokenizer_epochs": 20,
        "tokenizer_eval_interval": 20,
        "tokenizer_batch_size": 60,
        "tokenizer_lr": 0.01,
        "hidden_sizes": [32],
        "sinkhorn_epsilon": 0.0,
    }
    return tokenizer("letter", seed, **values, **changes).fit(content).codes[1:, :2]


def overlap(codes: torch.Tensor, block: np.ndarray) -> float:
    """Mean share of equal codes of two items of the same block."""
    together = torch.from_numpy(block[:, None] == block) & ~torch.eye(len(block), dtype=torch.bool)
    return float((codes[:, None] == codes).double().mean(-1)[together].mean())


def test_alpha_brings_items_with_like_collaborative_vectors_together():
    for seed in range(5):
        content, block = synthetic(seed)
        plain, aligned = (
            overlap(letter_codes(content, seed, alpha=alpha, beta=0.0), block)
            for alpha in (0.0, 1.0)
        )
        assert aligned > plain


def test_beta_does_not_lower_the_entropy_of_the_first_code():
    """On vectors of very different lengths, whose first codes are used unevenly; where they are
    not, chance decides.
    """

    def entropy(beta: float) -> float:
        options = {"alpha": 0.0, "beta": beta, "codebook_sizes": [16, 16], "div_refresh": 10}
        codes = [
            letter_codes(synthetic(seed, skew=1.0)[0], seed, **options)[:, 0] for seed in range(5)
        ]
        shares = [column.unique(return_counts=True)[1].double() / len(column) for column in codes]
        return -sum(float((share * share.log()).sum()) for share in shares) / 5

    assert entropy(0.1) > entropy(0.0)


# --- TIGER's published optimiser ------------------------------------------------------------------

PUBLISHED = {
    "tokenizer_learner": "adagrad",
    "tokenizer_lr": 0.4,
    "tokenizer_weight_decay": 0.0,
    "tokenizer_batch_size": 120,
    "tokenizer_eval_interval": 5,
    "tokenizer_patience": 100,
    "hidden_sizes": [32],
    "codebook_sizes": [16, 16, 16],
}


def test_adagrad_starts_as_published():
    """From 0, torch's own start, the first step at .4 moves every weight by .4."""
    content, _ = synthetic(0)
    made = tokenizer("rqvae", **PUBLISHED, tokenizer_epochs=40)
    made.fit(content)
    last = made.quality["curve"][-1]
    assert last["distinct_ids"] > 60
    assert last["excess_rate"] == (120 - last["distinct_ids"]) / 120


def test_a_collapse_is_seen_while_it_trains(monkeypatch):
    content, _ = synthetic(0)
    monkeypatch.setattr(RQVAE, "assign", lambda _, x: torch.zeros(len(x), 3, dtype=torch.long))
    message = "collapsed by epoch 15: 120 items have 1 distinct ids"
    with pytest.raises(GenRecError, match=message):
        tokenizer("rqvae", **PUBLISHED, tokenizer_epochs=200).fit(content)


def test_centroids_from_some_items_place_all(content):
    every = tokenizer("rkmeans", codebook_sizes=[4, 4])
    all_rows = tokenizer("rkmeans", codebook_sizes=[4, 4], kmeans_rows=10**6)
    some = tokenizer("rkmeans", codebook_sizes=[4, 4], kmeans_rows=25)
    codes = every.fit(content)
    assert torch.equal(all_rows.fit(content).codes, codes.codes)

    sampled = some.fit(content)
    assert sampled.n_items == codes.n_items
    x = some.scale.apply(some.vectors(content)[some.order])
    rows = np.sort(np.random.default_rng(1).choice(len(x), 25, replace=False))
    expected = ResidualKMeans.fit(x[rows], [4, 4], 1)
    assert all(map(torch.equal, some.quantiser.codebooks, expected.codebooks))
    assert torch.equal(some.quantiser.assign(x), expected.assign(x))
    assert "kmeans_rows" not in every.config_key()
    assert "revision" not in every.config_key() and some.config_key()["revision"] == 1


def test_centroids_from_some_items_have_the_sizes_of_the_catalogue(content):
    fitted = tokenizer("rkmeans", codebook_sizes=[8, 8], kmeans_rows=20)
    assert fitted.fit(content).sizes[:2] == (8, 8)
    few = tokenizer("rkmeans", codebook_sizes=[8, 8], kmeans_rows=7)
    with pytest.raises(ConfigError, match="kmeans_rows: 7 items cannot give a level of 8 codes"):
        few.fit(content)


@pytest.mark.parametrize("name", ["rqvae", "letter", "mq", "opq"])
def test_sizes_that_few_items_cap_are_checked_before_the_training(name, content, monkeypatch):
    def fail(*_):
        raise AssertionError("trains")

    monkeypatch.setattr(TrainingLoop, "train", fail)
    capped = tokenizer(name, codebook_sizes=[1000], collision=["nearest_free"])
    with pytest.raises(ConfigError, match=r"levels of \[10\] codes can name 10.*quarter as many"):
        capped.fit(content)


def test_mq_checks_the_sizes_that_few_different_vectors_leave(content, monkeypatch):
    monkeypatch.setattr(TrainingLoop, "train", None)
    same = np.repeat(np.eye(3, 6, dtype=np.float32), 14, axis=0)[:41]
    monkeypatch.setattr(ItemContent, "vectors", lambda self, kind: same)
    with pytest.raises(ConfigError, match=r"levels of \[3, 3\] codes can name 9 only"):
        tokenizer("mq", collision=["nearest_free"]).fit(content)


@pytest.mark.parametrize("name", ["rkmeans", "rqvae"])
def test_a_new_item_without_interaction_has_the_codes_of_fitted_ones(content, name, monkeypatch):
    table = np.random.default_rng(0).standard_normal((41, 6)).astype(np.float32) + 3
    table[0] = table[-4:] = 0
    monkeypatch.setattr(ItemContent, "vectors", lambda self, kind: table)
    fitted = tokenizer(name, tokenizer_input="cf", standardize=True)
    codes = fitted.fit(content).codes[:, :2]
    new = NewItems(["x", "y"], torch.from_numpy(table[[-1, 5]]))
    assert torch.equal(fitted.encode(new), codes[[-1, 5]])
