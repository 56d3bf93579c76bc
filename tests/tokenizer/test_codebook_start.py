"""How an RQ-VAE's codebooks start, and how Sinkhorn's keys reach the repair of collisions."""

import pytest
import torch
from golden.loading import load_golden

from recbole_genrec.data.content import ItemContent
from recbole_genrec.tokenizer.quantiser.balanced_kmeans import assign_within
from recbole_genrec.tokenizer.quantiser.codebook_start import (
    constrained_codebooks,
    constrained_kmeans,
    size_limits,
)
from recbole_genrec.tokenizer.quantiser.residual_kmeans import ResidualKMeans
from recbole_genrec.tokenizer.quantiser.rqvae import RQVAE
from recbole_genrec.tokenizer.quantiser.sinkhorn import sinkhorn_codes
from recbole_genrec.tokenizer.registry import make_tokenizer
from recbole_genrec.tokenizer.rqvae_stage import RQVAEStage
from recbole_genrec.tokenizer.vector_tokenizer import VectorTokenizer


def crowded(n=700, seed=0):
    """Nearly all points in one place, a few far away."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, 4, generator=generator)
    points[:20] += 30 * torch.randn(20, 4, generator=generator)
    return points.double()


@pytest.mark.parametrize(
    ("n", "size", "limits"),
    [
        (12_101, 256, (23, 92)),
        (20_000, 256, (39, 156)),
        (51_200, 256, (50, 200)),
        (100_000, 256, (50, 782)),  # 256 x 200 would not hold all
        (400, 256, (0, 4)),
    ],
)
def test_limits_hold_all_rows(n, size, limits):
    low, high = size_limits(n, size)
    assert (low, high) == limits
    assert low == min(n // 512, 50)
    assert size * low <= n <= size * high


def test_clusters_keep_their_bounds_and_their_means():
    points = crowded()
    centres = constrained_kmeans(points, 8, seed=0)
    low, high = size_limits(700, 8)
    distances = torch.cdist(points, centres).square()
    labels = torch.from_numpy(assign_within(distances.numpy(), low, high))
    counts = labels.bincount(minlength=8)
    assert low <= counts.min() and counts.max() <= high

    ordinary = ResidualKMeans.fit(points, [8]).codebooks[0]
    free = torch.cdist(points, ordinary).argmin(1).bincount(minlength=8)
    assert free.min() < low, "without bounds some clusters hold the far points alone"

    again = constrained_kmeans(points, 8, seed=0)
    assert torch.equal(again, centres)
    few = constrained_kmeans(points[:300], 8, seed=0)
    torch.testing.assert_close(few, ResidualKMeans.fit(points[:300], [8]).codebooks[0])


def test_levels_start_on_residuals_and_the_last_one_by_sinkhorn():
    points = crowded()
    books, codes = constrained_codebooks(points, [8, 8, 16], 0, epsilon=0.05, iterations=30)
    plain_books, plain = constrained_codebooks(points, [8, 8, 16], 0, epsilon=0.0, iterations=30)
    residual = points
    for level, book in enumerate(books):
        assert torch.equal(book, plain_books[level])
        distances = torch.cdist(residual, book).square()
        assert torch.equal(plain[:, level], distances.argmin(1))
        if level < 2:
            assert torch.equal(codes[:, level], plain[:, level])
        else:
            assert torch.equal(codes[:, level], sinkhorn_codes(distances, 0.05, 30))
        residual = residual - book[plain[:, level]]
    assert not torch.equal(codes[:, 2], plain[:, 2])


def content_of(vectors):
    tokens = ["[PAD]", *(f"i{row:04d}" for row in range(len(vectors)))]
    content = ItemContent(tokens, ["", *tokens[1:]])
    padding = torch.zeros(1, vectors.shape[1], dtype=vectors.dtype)
    content._embeddings = torch.cat([padding, vectors]).float().numpy()
    return content


VALUES = {
    "tokenizer": "rqvae",
    "tokenizer_input": "text",
    "text_encoder": "default",
    "standardize": False,
    "codebook_sizes": [8, 8],
    "hidden_sizes": [8],
    "code_dim": 4,
    "commitment_weight": 0.25,
    "rq_reduction": "mean",
    "sinkhorn_epsilon": 0.05,
    "dead_code_reset": False,
    "tokenizer_learner": "adamw",
    "tokenizer_lr": 0.001,
    "tokenizer_weight_decay": 0.0,
    "tokenizer_batch_size": 128,
    "tokenizer_epochs": 0,
    "tokenizer_eval_interval": 1,
    "tokenizer_patience": 5,
    "collision": ["extra_token"],
    "dedup_spare": 0,
    "show_progress": False,
    "device": "cpu",
}


@pytest.mark.parametrize("start", ["all", "first_batch", "constrained"])
def test_the_key_says_what_the_codebooks_start_from(start):
    x = crowded()
    made = make_tokenizer({**VALUES, "codebook_init": start}, seed=3)
    made.fit(content_of(x))
    network = made.network
    latents = network.encoder(x.float()).detach().double()
    rows = torch.arange(len(x))
    if start == "first_batch":
        stage = RQVAEStage("a test", network, x.float(), made.settings, 3)
        rows = stage.batches(0)[0]
        assert len(rows) == 140, "700 items in five batches of nearly 128"
    if start == "constrained":
        expected, _ = constrained_codebooks(latents, network.sizes, 3, 0.05, 50)
    else:
        expected = ResidualKMeans.fit(latents[rows], network.sizes, 3).codebooks
        assert [len(book) for book in expected] == list(network.sizes), "no code is a copy"
    for book, reference in zip(network.codebooks, expected, strict=True):
        torch.testing.assert_close(book.detach().double(), reference, atol=1e-4, rtol=1e-4)
    figures = made.quality["start"]
    assert figures["items"] == len(rows)
    assert figures["distinct_ids"] >= max(figures["used"])


@pytest.mark.parametrize("n_rows", [64, 128, 640])
def test_a_small_batch_leaves_something_for_every_level(n_rows):
    torch.manual_seed(0)
    x = torch.randn(1500, 12)
    network = RQVAE(12, [], 12, [64, 64, 64]).eval()
    network.codebook_init(x[:n_rows], seed=1)
    codes = network.assign(x)
    used = [len(column.unique()) for column in codes.unbind(1)]
    assert min(used) > 40, used
    assert len(codes.unique(dim=0)) > 1400


def test_a_start_that_is_not_named_keeps_the_key_of_the_stored_result():
    plain = make_tokenizer(VALUES, 0).config_key()
    for name, value in {"codebook_init": "all", "sinkhorn_iterations": 50}.items():
        assert make_tokenizer({**VALUES, name: value}, 0).config_key() == plain
    for name, value in {"codebook_init": "constrained", "sinkhorn_rounds": 3}.items():
        assert make_tokenizer({**VALUES, name: value}, 0).config_key() != plain


class Golden:
    """Codes and distances of the published repair."""

    def __init__(self, data):
        self.data = data
        self.sizes = [data["codebooks"].shape[1]] * 3

    def assign(self, x):
        return self.data["codes_in"]

    def reconstruct(self, codes):
        return torch.zeros(len(codes), self.data["z"].shape[1])

    def level_distances(self, x):
        rows = torch.cdist(x.double(), self.data["z"]).argmin(1)
        last = self.data["last_level_distances"][rows]
        return [torch.zeros_like(last), torch.zeros_like(last), last]


@pytest.mark.parametrize("name", ["collision_repair", "collision_repair_cap"])
def test_the_repair_takes_epsilon_iterations_and_rounds_of_the_keys(name, monkeypatch):
    data = load_golden(name)
    keys = {
        "collision": ["sinkhorn"],
        "sinkhorn_epsilon": float(data["epsilon"]),
        "sinkhorn_iterations": int(data["iters"]),
    }

    def fitted(rounds):
        class Fixed(VectorTokenizer):
            name = "fixed"

            def learn(self, x, content):
                self.quantiser = Golden(data)

        made = Fixed({**VALUES, **keys, "sinkhorn_rounds": rounds}, 0)
        return made.fit(content_of(data["z"])).codes[1:]

    whole = fitted(int(data["max_rounds"]))
    assert len(whole.unique(dim=0)) == len(data["codes_out"].unique(dim=0))
    if name == "collision_repair":
        assert torch.equal(whole, data["codes_out"])
        unique = data["unique_per_round"].tolist()
        first = max(range(3), key=lambda number: (unique[number], number))
        assert torch.equal(fitted(2), data["codes_per_round"][first])
        keys["sinkhorn_epsilon"] = 0.003
        assert not torch.equal(fitted(2), data["codes_per_round"][first])
