"""RQ-VAE against the published numbers and plain definitions."""

import pytest
import torch
from golden.loading import close, load_golden, rqvae_from_golden
from threadpoolctl import threadpool_limits

from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.tokenizer.collision import collision_stats, resolve_collisions
from recbole_genrec.tokenizer.quantiser.rqvae import RQVAE
from recbole_genrec.tokenizer.quantiser.sinkhorn import sinkhorn_codes


def blobs(n=400, d=12, centres=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(centres, d, generator=generator))[
        torch.arange(n) % centres
    ] + torch.randn(n, d, generator=generator)


def rqvae(d_in=12, sizes=(8, 8, 8), seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RQVAE(d_in, [10], 6, sizes, **options)


@pytest.mark.parametrize("mode", ["train_argmin", "train_sinkhorn", "eval"])
def test_forward_equals_the_published_numbers(mode):
    data = load_golden("letter_rqvae")
    expected = {
        name.removeprefix(f"{mode}/"): value
        for name, value in data.items()
        if name.startswith(f"{mode}/")
    }
    model = rqvae_from_golden(data, sinkhorn=mode != "train_argmin").train(mode != "eval")
    recon, z_q, codes, losses = model(data["x"])
    assert torch.equal(codes, expected["codes"])
    assert (
        close(model.encoder(data["x"]), expected["z"])
        and close(z_q, expected["z_q"])
        and close(recon, expected["x_rec"])
    )
    assert close(losses["recon"], expected["recon_loss"])
    assert close(losses["codebook"], expected["codebook_per_level"])
    assert close(losses["commitment"], expected["commitment_per_level"])
    plain = (
        expected["codebook_per_level"] + data["mu"] * expected["commitment_per_level"]
    ).mean()  # the file's includes diversity
    assert close(losses["quant"], plain)
    assert close(losses["total"], expected["recon_loss"] + data["quant_loss_weight"] * plain)
    if mode == "eval":
        assert torch.equal(model.assign(data["x"]), expected["get_indices"])
    if mode != "train_sinkhorn":
        for level, distances in enumerate(model.level_distances(data["x"])):
            reference = (
                (expected["residual_in"][level][:, None] - data[f"w:codebook.{level}"])
                .square()
                .sum(-1)
            )
            assert close(distances, reference)


def test_float32_returns_the_same_codes():
    data = load_golden("letter_rqvae")
    model = rqvae_from_golden(data, sinkhorn=True).float()
    for mode in ("train_sinkhorn", "eval"):
        _, z_q, codes, losses = model.train(mode != "eval")(data["x"].float())
        assert (
            torch.equal(codes, data[f"{mode}/codes"])
            and z_q.dtype == losses["total"].dtype == torch.float32
        )
        assert close(losses["recon"].double(), data[f"{mode}/recon_loss"], 1e-4)


def test_reconstruction_gradient_passes_straight_through():
    model, x = rqvae().double(), blobs().double()
    z = model.encoder(x).detach().requires_grad_()
    z_q, _, _, _ = model.quantise(z)
    decoder_input = z_q.detach().requires_grad_()
    (model.decoder(z_q) - x).square().mean().backward()
    assert all(book.grad is None for book in model.codebooks)
    (model.decoder(decoder_input) - x).square().mean().backward()
    assert torch.equal(z.grad, decoder_input.grad) and z.grad.abs().sum() > 0


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_equal_the_formula(reduction):
    model, x = (
        rqvae(reduction=reduction, mu=0.3, quant_loss_weight=0.7).double(),
        blobs(n=30).double(),
    )
    recon, z_q, codes, losses = model(x)
    residual, terms = model.encoder(x), []
    for book, column in zip(model.codebooks, codes.unbind(1), strict=True):
        assert torch.equal(column, torch.cdist(residual, book).argmin(1))
        squares = (residual - book[column]).square()
        terms.append(squares.sum() / 30 if reduction == "sum" else squares.mean())
        residual = residual - book[column]
    squares = (x - recon).square()
    error = squares.sum() / 30 if reduction == "sum" else squares.mean()
    quant = 1.3 * (sum(terms) if reduction == "sum" else sum(terms) / 3)
    assert close(losses["total"], error + 0.7 * quant) and close(losses["quant"], quant)
    assert close(losses["codebook"], torch.stack(terms)) and close(z_q, model.encoder(x) - residual)
    commitment = torch.autograd.grad(
        losses["commitment"].sum(), list(model.parameters()), allow_unused=True
    )
    level0 = torch.autograd.grad(
        model(x)[3]["commitment"][0], list(model.parameters()), allow_unused=True
    )
    for whole, first in zip(
        commitment, level0, strict=True
    ):  # later levels' commitment moves nothing
        assert (whole is None and first is None) or close(whole, first)


def test_encoding_is_a_function_of_the_row(monkeypatch):
    x = blobs(n=1500)
    x[700] = x[3].clone()
    model = rqvae(sizes=(32, 32, 32), last_epsilon=0.01)
    model.codebook_init(x)
    codes = model.assign(x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert (
        codes.dtype == torch.long and not codes.requires_grad and torch.equal(codes[700], codes[3])
    )
    assert torch.equal(model.assign(x[order]), codes[order])
    assert torch.equal(torch.cat([model.assign(part) for part in x.split(7)]), codes)
    assert torch.equal(model.eval().assign(x), codes) and torch.equal(model(x)[2], codes)
    monkeypatch.setattr("recbole_genrec.tokenizer.quantiser.codebook_network.CHUNK", 500)
    assert torch.equal(model.assign(x), codes)
    assert torch.equal(
        torch.stack([level.argmin(1) for level in model.level_distances(x)], dim=1), codes
    )


def test_the_last_level_is_balanced_in_training_only():
    x = blobs(n=64)
    model = rqvae(last_epsilon=0.05, sinkhorn_iterations=30)
    distances = model.level_distances(x)
    trained, evaluated = model(x)[2], model.eval()(x)[2]
    assert torch.equal(trained[:, :2], evaluated[:, :2])
    assert torch.equal(trained[:, 2], sinkhorn_codes(distances[2], 0.05, 30))
    assert torch.equal(evaluated[:, 2], distances[2].argmin(1))


def test_half_precision_around_it_does_not_reach_the_distances():
    model, z = rqvae(), blobs(d=6)
    plain = model.quantise(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = model.quantise(z)
        assert model(blobs())[3]["total"].dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


def test_initial_codes_are_in_use_and_repeatable():
    x = blobs(n=2000, centres=400)
    first, second = rqvae(sizes=(256, 256, 256)), rqvae(sizes=(256, 256, 256))
    first.codebook_init(x, seed=3)
    with threadpool_limits(2):
        second.codebook_init(x, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first.codebooks, second.codebooks, strict=True))
    codes = first.assign(x)
    assert len(codes[:, 0].unique()) >= 0.8 * 256
    left = [distances.amin(1).mean() for distances in first.level_distances(x)]
    assert left[0] > left[1] > left[2]


@pytest.mark.parametrize("n", [1, 2, 9, 100])
def test_initial_codes_with_fewer_items_than_codes(n):
    model, x = rqvae(sizes=(64, 64)), blobs(n=n)
    model.codebook_init(x)
    assert [book.shape for book in model.codebooks] == [(64, 6), (64, 6)]
    assert all(torch.isfinite(book).all() for book in model.codebooks)
    if n == 100:
        assert len(model.assign(x).unique(dim=0)) > 60


def test_large_catalogues_start_from_a_sample(monkeypatch):
    monkeypatch.setattr("recbole_genrec.tokenizer.quantiser.rqvae.INIT_ROWS", 200)
    model, x = rqvae(sizes=(16, 16)), blobs(n=1000)
    model.codebook_init(x)
    assert len(model.assign(x)[:, 0].unique()) == 16


def test_dead_codes_move_to_residuals():
    model, x = rqvae(sizes=(16, 16)).double(), blobs(n=60).double()
    model.codebook_init(x)
    with torch.no_grad():
        model.codebooks[0][4:] += 1000
    codes, before = model.assign(x), [book.detach().clone() for book in model.codebooks]
    dead = [[code for code in range(16) if code not in column] for column in codes.unbind(1)]
    assert len(dead[0]) >= 12
    moved = model.revive_dead_codes(x, torch.Generator().manual_seed(0))
    assert moved == [len(level) for level in dead]
    residual = model.encoder(x).detach()
    for level in range(2):
        book, used = (
            model.codebooks[level].detach(),
            [code for code in range(16) if code not in dead[level]],
        )
        assert torch.equal(book[used], before[level][used])
        nearest = torch.cdist(book[dead[level]], residual).argmin(1)
        assert close(book[dead[level]], residual[nearest], 1e-12) and len(nearest.unique()) == len(
            nearest
        )
        residual = residual - before[level][codes[:, level]]
    assert len(model.assign(x)[:, 0].unique()) == 16
    assert (
        rqvae(sizes=(16, 16)).revive_dead_codes(x[:2].float(), torch.Generator())[0] >= 14
    )  # more dead codes than rows


def test_repair_from_level_distances():
    x = blobs(n=120)
    model = rqvae(sizes=(8, 16))
    model.codebook_init(x)
    codes = model.assign(x)

    def distances(rows):
        return model.level_distances(x[rows])

    repaired, sizes = resolve_collisions(codes, model.sizes, "nearest_free", distances=distances)
    assert (
        sizes == (8, 16)
        and collision_stats(codes)["unique_ids"] < 120 == collision_stats(repaired)["unique_ids"]
    )
    whole, _ = resolve_collisions(codes, model.sizes, "both", distances=distances)
    assert collision_stats(whole)["unique_ids"] == 120 and torch.equal(whole[:, 0], codes[:, 0])


def test_training_lowers_the_reconstruction_error():
    x, model = blobs(), rqvae(sizes=(16, 16))
    model.codebook_init(x)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    history = []
    for _ in range(100):
        losses = model(x)[3]
        optimiser.zero_grad()
        losses["total"].backward()
        optimiser.step()
        history.append(float(losses["recon"].detach()))
    assert history[-1] < 0.6 * history[0]


def test_weights_at_the_start():
    model = rqvae(d_in=300)
    layers = [layer for layer in model.encoder if hasattr(layer, "weight")]
    assert [tuple(layer.weight.shape) for layer in layers] == [(10, 300), (6, 10)]
    assert [tuple(layer.weight.shape) for layer in model.decoder if hasattr(layer, "weight")] == [
        (10, 6),
        (300, 10),
    ]
    assert not any(layer.bias.any() for layer in layers)
    assert float(layers[0].weight.detach().std()) == pytest.approx(
        (2 / 310) ** 0.5, rel=0.05
    )  # Xavier-normal


def test_errors():
    with pytest.raises(ConfigError, match="reduction is 'max'"):
        rqvae(reduction="max")
    with pytest.raises(ConfigError, match="the Sinkhorn epsilon is -0.1"):
        rqvae(last_epsilon=-0.1)
    with pytest.raises(ConfigError, match=r"codebook_sizes \[8, 0\]"):
        rqvae(sizes=(8, 0))
    x = blobs()
    x[5, 0] = float("inf")
    for use in (
        rqvae().assign,
        rqvae().codebook_init,
        lambda rows: rqvae().revive_dead_codes(rows, torch.Generator()),
    ):
        with pytest.raises(DataError, match=r"1 of 400 rows are not, the first is row \[5\]"):
            use(x)
