"""MQ against the published numbers, the formulas, and what the released program got wrong."""

from __future__ import annotations

import math

import pytest
import torch
from golden.loading import close, load_golden
from golden.loading_mq import mq_from_golden

from recbole_genrec.errors import ArtefactError, ConfigError, DataError, GenRecError
from recbole_genrec.settings.parsing import read_yaml
from recbole_genrec.settings.property_files import properties_folder
from recbole_genrec.storage.artefacts import load_artefact, save_artefact
from recbole_genrec.tokenizer import mq_quantiser
from recbole_genrec.tokenizer.mq_quantiser import MQQuantiser, agreement
from recbole_genrec.tokenizer.quantiser.mq import MQ

SMALL = {
    "codebook_sizes": [8, 8, 8],
    "hidden_sizes": [16, 24],
    "code_dim": 6,
    "tokenizer_epochs": 15,
    "tokenizer_batch_size": 64,
}


def blobs(n=240, d=12, centres=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(centres, d, generator=generator))[
        torch.arange(n) % centres
    ] + 0.3 * torch.randn(n, d, generator=generator)


def network(seed=0, sizes=(5, 7, 9), **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MQ(12, sizes, 6, [16, 24], **options).double()


def quantiser(seed=1, **changes) -> MQQuantiser:
    values = read_yaml(properties_folder() / "tokenizer" / "mq.yaml") | {
        "device": "cpu",
        "show_progress": False,
    }
    return MQQuantiser({**values, **SMALL, **changes}, seed)


def quiet(_: str) -> None:
    pass


# --- the published numbers ------------------------------------------------------------------------


def test_evaluation_equals_the_published_numbers():
    data = load_golden("tokenrec_mq")
    model = mq_from_golden(data)
    x = data["x"]
    recon, codes, losses = model(x)
    assert torch.equal(codes, data["codes"]) and torch.equal(model.assign(x), data["codes"])
    assert (
        close(model.encoder(x), data["z"])
        and close(recon, data["x_rec"])
        and close(model.reconstruct(codes), data["x_rec"])
    )
    chosen = torch.stack(
        [book[column] for book, column in zip(model.codebooks, codes.T, strict=True)]
    )
    assert close(chosen, data["chosen"])
    assert close(losses["recon"], data["recon_loss"]) and close(
        losses["codebook"], data["codebook_loss_per_book"]
    )
    for k, distances in enumerate(model.level_distances(x)):
        assert close(distances, (data["z"][k][:, None] - data[f"w:codebook.{k}"]).square().sum(-1))
    half = mq_from_golden(data).float()
    assert torch.equal(half(x.float())[1], data["codes"]) and torch.equal(
        half.assign(x.float()), data["codes"]
    )


# --- formulas -------------------------------------------------------------------------------------


def test_losses_equal_the_formula_and_their_gradients_go_where_they_should():
    model, x = network(beta=0.3).eval(), blobs(40).double()
    recon, codes, losses = model(x)
    z = model.encoder(x)
    terms = [
        (z[k] - book[codes[:, k]]).square().sum() / z[k].numel()
        for k, book in enumerate(model.codebooks)
    ]
    assert all(
        torch.equal(codes[:, k], torch.cdist(z[k], book).argmin(1))
        for k, book in enumerate(model.codebooks)
    )
    assert close(losses["codebook"], torch.stack(terms)) and close(
        losses["commitment"], torch.stack(terms)
    )
    assert close(losses["total"], (recon - x).square().mean() + 1.3 * sum(terms))
    books, encoder = list(model.codebooks), list(model.encoder.parameters())

    def reached(loss, parameters):
        return [
            g is not None and bool(g.any())
            for g in torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        ]

    assert all(reached(losses["codebook"].sum(), books)) and not any(
        reached(losses["codebook"].sum(), encoder)
    )
    assert all(reached(losses["commitment"].sum(), encoder)) and not any(
        reached(losses["commitment"].sum(), books)
    )
    assert all(reached(losses["recon"], encoder)) and not any(reached(losses["recon"], books))


def test_reconstruction_gradient_passes_straight_through_to_every_encoder():
    model, x = network().eval(), blobs(40).double()
    captured = []
    model.encoder.register_forward_hook(
        lambda *arguments: captured.append(arguments[-1]) or arguments[-1].retain_grad()
    )
    recon, codes, _ = model(x)
    (recon - x).square().mean().backward()
    summed = (
        sum(book[codes[:, k]] for k, book in enumerate(model.codebooks)).detach().requires_grad_()
    )
    (model.decoder(summed) - x).square().mean().backward()
    for gradient in captured[0].grad:
        assert close(gradient, summed.grad) and gradient.abs().sum() > 0


@pytest.mark.parametrize("official_compat", [False, True])
def test_one_step_reaches_every_encoder_unless_the_release_is_imitated(official_compat):
    model, x = network(official_compat=official_compat).train(), blobs().double()
    before = {name: value.clone() for name, value in model.named_parameters()}
    model(x)[-1]["total"].backward()
    torch.optim.AdamW(model.parameters(), weight_decay=0.0).step()
    for name, value in model.named_parameters():
        moved = value.grad is not None and bool(value.grad.any())
        frozen = official_compat and name.startswith("encoder.")
        # a constant in front of batch norm has no effect
        if not name.endswith((".0.bias", ".4.bias")):
            assert moved != frozen, name
            assert torch.equal(value, before[name]) == frozen, name


def test_mask_is_drawn_for_each_sample_and_dimension_in_training_only():
    model = network(mask_ratio=0.2)
    x = torch.full((2000, 12), 2.0, dtype=torch.float64)
    torch.manual_seed(3)
    masked = model.train().masked(x)
    kept = masked != 0
    assert set(masked.unique().tolist()) == {0.0, 2.0} and torch.equal(x, torch.full_like(x, 2.0))
    assert (
        abs(kept.double().mean() - 0.8) < 0.01
    )  # four standard deviations of the mean of 24,000 draws
    assert (abs(kept.double().mean(0) - 0.8) < 0.04).all() and len(kept.unique(dim=0)) > 500
    assert torch.equal(model.eval().masked(x), x)


def test_target_of_the_reconstruction_has_no_mask():
    model, x = network(mask_ratio=0.5).train(), blobs(60).double()
    torch.manual_seed(0)
    recon, _, losses = model(x)
    assert close(losses["recon"], (recon - x).square().mean())
    torch.manual_seed(0)
    assert not close(losses["recon"], (recon - model.masked(x)).square().mean(), 1e-3)


def test_bad_shapes_are_refused():
    with pytest.raises(ConfigError, match="must be 1 or more"):
        MQ(4, [3, 0], 2)
    with pytest.raises(ConfigError, match="must be 1 or more"):
        MQ(4, [], 2)


# --- codes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [True, False])
def test_codes_are_a_function_of_the_row(mode):
    model, x = network().train(mode), blobs(40).double()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    codes = model.assign(x)
    assert torch.equal(torch.cat([model.assign(row[None]) for row in x]), codes)
    assert torch.equal(model.assign(x.flip(0)).flip(0), codes) and torch.equal(
        model.eval()(x)[1], codes
    )
    assert all(
        torch.equal(value, buffers[name]) for name, value in model.named_buffers()
    )  # batch norm counts no row


def test_start_is_k_means_on_all_latents_and_dead_codes_come_back():
    model, x = network(sizes=(6, 6)), blobs().double()
    model.codebook_init(x, seed=0)
    inner = model.encoder[1][0](x)  # what the first batch norm sees
    assert close(model.encoder[1][1].running_mean, inner.mean(0)) and close(
        model.encoder[1][1].running_var, inner.var(0)
    )
    assert model.encoder[1][1].momentum == 0.1
    for k, (z, book) in enumerate(zip(model.eval().encoder(x), model.codebooks, strict=True)):
        codes = model.assign(x)[:, k]
        assert sorted(codes.unique().tolist()) == list(range(6))
        for code in range(6):  # a fixed point of k-means
            assert close(z[codes == code].mean(0), book[code], 1e-3)
    with torch.no_grad():
        model.codebooks[1][2:5] = 1e3
    assert model.revive_dead_codes(x, torch.Generator().manual_seed(0)) == [0, 3]
    revived, z = model.codebooks[1][2:5], model.encoder(x)[1]
    assert (
        float(torch.cdist(revived, z).detach().min(1).values.max()) < 1e-6
    )  # outputs of the encoder
    assert len(model.assign(x)[:, 1].unique()) == 6


# --- the quantiser --------------------------------------------------------------------------------


def test_vectors_stay_and_codes_repeat():
    vectors = blobs()
    vectors[0] = vectors[17] = 0  # padding, and someone without training interactions
    before = vectors.clone()
    fitted = quantiser()
    torch.manual_seed(5)
    codes = fitted.fit(vectors, quiet)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), after)  # the caller's random numbers
    assert (
        torch.equal(vectors, before)
        and codes.shape == (240, 3)
        and codes.dtype == torch.long
        and int(codes.max()) < 8
    )
    assert torch.equal(fitted.assign(vectors), codes)
    assert torch.equal(torch.cat([fitted.assign(row[None]) for row in vectors[:30]]), codes[:30])
    assert torch.equal(vectors, before)
    assert torch.equal(quantiser().fit(vectors, quiet), codes) and not torch.equal(
        quantiser(seed=2).fit(vectors, quiet), codes
    )
    assert fitted.quality["n"] == 238
    real = vectors[(vectors != 0).any(1)]
    torch.testing.assert_close(fitted.scale.centre.float(), real.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        1 / fitted.scale.factor.float(), real.std(0, correction=0), atol=1e-5, rtol=0
    )


def test_rows_of_zeros_are_not_learned_from():
    vectors = blobs()
    padded = torch.cat([torch.zeros(1, 12), vectors, torch.zeros(3, 12)])
    fitted, other = quantiser(), quantiser()
    assert torch.equal(fitted.fit(vectors, quiet), other.fit(padded, quiet)[1:-3])
    assert all(
        torch.equal(a, b)
        for a, b in zip(fitted.state()[0].values(), other.state()[0].values(), strict=True)
    )


def test_clustered_vectors_use_the_codebooks_and_clusters_share_codes():
    """More than 80 % of the tokens of each book are in use, and members of a cluster share more
    of them than random pairs.
    """
    vectors, messages = blobs(n=600, centres=60), []
    fitted = quantiser(codebook_sizes=[32, 32, 32], tokenizer_epochs=30)
    codes = fitted.fit(vectors, messages.append)
    used = [len(column.unique()) for column in codes.T]
    assert min(used) > 0.8 * 32 and fitted.quality["used"] == used
    cluster = torch.arange(600) % 60
    equal = (codes[:, None] == codes).sum(-1).double()
    together = (cluster[:, None] == cluster) & ~torch.eye(600, dtype=torch.bool)
    assert equal[together].mean() > 3 * equal[cluster[:, None] != cluster].mean()
    assert fitted.quality["shared_near"] > 3 * fitted.quality["shared_random"]
    assert fitted.quality["distinct_share"] == len(codes.unique(dim=0)) / 600
    (message,) = messages
    assert f"codes in use {used} of [32, 32, 32]" in message and "600 vectors" in message
    near_codes = fitted.level_distances(vectors)
    assert torch.equal(torch.stack([distances.argmin(1) for distances in near_codes], dim=1), codes)
    error = (fitted.reconstruct(codes) - vectors).square().mean() / vectors.var()
    assert error < 0.5


def test_revival_ends_ten_epochs_before_the_end(monkeypatch):
    calls = []
    revive = MQ.revive_dead_codes
    monkeypatch.setattr(
        MQ, "revive_dead_codes", lambda self, *rest: calls.append(1) or revive(self, *rest)
    )
    quantiser(tokenizer_epochs=13).fit(blobs(), quiet)
    assert len(calls) == 3


def test_the_epoch_with_the_lowest_loss_on_held_out_rows_is_kept(monkeypatch):
    """On noise, where training on four fifths soon raises the loss of the rest."""
    seen, forward = [], MQ.forward

    def spy(self, x):
        found = forward(self, x)
        if not self.training:
            seen.append((len(x), float(found[-1]["total"])))
        return found

    monkeypatch.setattr(MQ, "forward", spy)
    noise = torch.randn(60, 12, generator=torch.Generator().manual_seed(0))
    fitted = quantiser(tokenizer_lr=0.02, tokenizer_epochs=30)
    fitted.fit(noise, quiet)
    losses = [loss for _, loss in seen]
    assert len(seen) == 30 and {rows for rows, _ in seen} == {12}  # a fifth
    assert fitted.quality["loss"] == min(losses) and losses[
        fitted.quality["best_epoch"] - 1
    ] == min(losses)
    assert fitted.quality["best_epoch"] < 30  # so that keeping the last epoch would be seen
    held = torch.randperm(60, generator=torch.Generator().manual_seed(1))[:12]
    again = forward(fitted.network, fitted.scale.apply(noise[held]))[-1]["total"].item()
    assert math.isclose(again, min(losses), rel_tol=1e-5)


def test_state_survives_the_disk(tmp_path):
    fitted = quantiser()
    vectors = blobs()
    codes = fitted.fit(vectors, quiet)
    save_artefact(tmp_path / "mq", *fitted.state())
    restored = quantiser(seed=9)
    restored.set_state(*load_artefact(tmp_path / "mq"))
    new = blobs(n=30, seed=4)
    assert torch.equal(restored.assign(vectors), codes) and torch.equal(
        restored.assign(new), fitted.assign(new)
    )
    assert restored.quality == fitted.quality and restored.sizes == (8, 8, 8)
    next((tmp_path / "mq").glob("*.safetensors")).write_bytes(b"half")
    with pytest.raises(ArtefactError):
        load_artefact(tmp_path / "mq")


def test_progress_is_shown_when_asked(capsys):
    quantiser(show_progress=True, tokenizer_epochs=1).fit(blobs(20), quiet)
    assert "mq of vectors: 100%" in capsys.readouterr().err
    quantiser(tokenizer_epochs=1).fit(blobs(20), quiet)
    assert not capsys.readouterr().err


def test_codebooks_are_never_larger_than_the_number_of_distinct_vectors():
    vectors = blobs(n=9, centres=9)[torch.arange(18) % 9]
    fitted = quantiser(codebook_sizes=[64, 4])
    codes = fitted.fit(vectors, quiet)
    assert fitted.sizes == (9, 4) and torch.equal(codes[:9], codes[9:])
    assert quantiser().fit(blobs(n=2), quiet).shape == (2, 3)


@pytest.mark.parametrize(
    ("changes", "vectors", "error", "message"),
    [
        (
            {"codebook_sizes": [3, 2]},
            blobs(n=7),
            ConfigError,
            r"codebook_sizes \[3, 2\] can name 6 vectors, but there are 7",
        ),
        ({}, torch.zeros(5, 12), DataError, "two different vectors or more"),
        ({}, torch.ones(5, 12), DataError, "two different vectors or more"),
        (
            {},
            torch.full((5, 12), math.nan).index_fill(0, torch.tensor([1]), 1.0),
            DataError,
            "finite",
        ),
        ({"tokenizer_lr": 1e30}, blobs(), GenRecError, "lower --tokenizer_lr"),
    ],
)
def test_errors(changes, vectors, error, message):
    with pytest.raises(error, match=message):
        quantiser(**changes).fit(vectors, quiet)


def test_agreement_counts_equal_codes_of_neighbours(monkeypatch):
    monkeypatch.setattr(mq_quantiser, "NEIGHBOURS", 1)
    vectors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    near, chance = agreement(torch.tensor([[0, 1], [0, 1], [1, 1], [1, 2]]), vectors)
    assert near == 1.5 and 0 <= chance <= 2
    assert agreement(torch.zeros(4, 2, dtype=torch.long), vectors) == (2.0, 2.0)


def test_agreement_is_the_same_in_blocks_of_rows(monkeypatch):
    vectors = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    codes = torch.randint(3, (50, 3), generator=torch.Generator().manual_seed(1))
    whole = agreement(codes, vectors)
    monkeypatch.setattr(mq_quantiser, "MOST_COSINES", 120)
    largest = []
    topk = torch.Tensor.topk
    monkeypatch.setattr(
        torch.Tensor, "topk", lambda x, *args: (largest.append(x.numel()), topk(x, *args))[1]
    )
    assert agreement(codes, vectors) == whole
    assert max(largest) <= 120
