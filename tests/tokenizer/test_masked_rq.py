"""TokenRec's ablation, residual codebooks, against the formula and through the quantiser."""

import pytest
import torch
from golden.loading import close
from test_mq import blobs, quantiser, quiet
from toy import toy_model, write_dataset

from recbole_genrec.errors import ConfigError
from recbole_genrec.tokenizer.quantiser.masked_rq import MaskedRQ


def network(sizes=(5, 7, 9), **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaskedRQ(12, sizes, 6, [16, 24], **options).double()


def test_losses_equal_the_formula_and_gradients_pass_straight_through():
    model, x = network(beta=0.3).eval(), blobs(n=30).double()
    recon, codes, losses = model(x)
    latent = model.encoder(x)
    residual, total, terms = latent, torch.zeros_like(latent), []
    for book, column in zip(model.codebooks, codes.unbind(1), strict=True):
        assert torch.equal(column, torch.cdist(residual, book).argmin(1))
        terms.append((residual - book[column]).square().mean())
        total = total + book[column]
        residual = residual - book[column]
    assert close(recon, model.decoder(total))
    assert close(losses["codebook"], torch.stack(terms))
    assert close(losses["commitment"], torch.stack(terms))
    assert close(losses["total"], (x - recon).square().mean() + 1.3 * sum(terms))
    assert torch.equal(model.assign(x), codes)

    (gradient,) = torch.autograd.grad(losses["recon"], [model.encoder[-1].bias], retain_graph=True)
    entry = total.detach().requires_grad_()
    (at_decoder,) = torch.autograd.grad((x - model.decoder(entry)).square().mean(), [entry])
    assert close(gradient, at_decoder.sum(0))
    losses["total"].backward()
    assert all(book.grad.abs().sum() > 0 for book in model.codebooks)


def test_codes_start_by_residual_k_means_and_the_mask_hides_in_training_only():
    model, x = network(mask_ratio=0.5), blobs().double()
    model.codebook_init(x, seed=1)
    residual = model.eval().encoder(x).detach()
    for book in model.codebooks:
        nearest = torch.cdist(residual, book.detach()).argmin(1)
        means = [residual[nearest == code].mean(0) for code in range(len(book))]
        assert close(book.detach(), torch.stack(means), 1e-5), "k-means has come to rest"
        residual = residual - book.detach()[nearest]
    assert torch.equal(model.masked(x), x)
    hidden = (model.train().masked(x) == 0).double().mean()
    assert hidden == pytest.approx(0.5, abs=0.05)


def test_the_quantiser_learns_either(tmp_path):
    x = blobs()
    made = quantiser(vq="rq")
    lines = []
    codes = made.fit(x, lines.append)
    assert isinstance(made.network, MaskedRQ) and lines[0].startswith("RQ of 240 vectors")
    assert made.quality["distinct_share"] > 0.1
    assert made.quality["shared_near"] > made.quality["shared_random"] + 0.5
    again = quantiser(vq="rq")
    again.set_state(*made.state())
    assert torch.equal(again.assign(x), codes)
    assert not torch.equal(quantiser().fit(x, quiet), codes)
    with pytest.raises(ConfigError, match="official_compat is what the released program does"):
        quantiser(vq="rq", official_compat=True).fit(x, quiet)


def test_tokenrec_trains_on_residual_codes(tmp_path):
    folder = write_dataset(tmp_path)
    options = {"graph_epochs": 1, "tokenizer_epochs": 2, "code_dim": 8, "hidden_sizes": [16]}
    model, config, _ = toy_model(folder, "TokenRec", vq="rq", **options)
    networks = [quantiser.network for quantiser in model.entities.quantisers.values()]
    assert all(isinstance(network, MaskedRQ) for network in networks)
    plain, other, _ = toy_model(folder, "TokenRec", **options)
    assert config.run_name() != other.run_name()
    assert not torch.equal(plain.codes, model.codes)
