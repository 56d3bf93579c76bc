"""LETTER's losses against the published numbers and values computed by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from golden.loading import close, load_golden, our_name, rqvae_from_golden
from torch import nn

from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.tokenizer.letter_tokenizer import LETTERStage
from recbole_genrec.tokenizer.quantiser.balanced_kmeans import balanced_clusters
from recbole_genrec.tokenizer.quantiser.letter_loss import LETTERLoss, diversity, draw_positives
from recbole_genrec.tokenizer.quantiser.rqvae import RQVAE


def softmax_loss(scores, target, columns):
    return math.log(sum(math.exp(scores[k]) for k in columns)) - scores[target]


def tiny(reduction="mean", n=20, seed=0):
    """An RQ-VAE in float64, items, collaborative vectors, and labels of its codes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = RQVAE(7, [6], 4, (8, 12), reduction=reduction).double()
        x, cf = torch.randn(n, 7).double(), torch.randn(n, 4).double()
    model.codebook_init(x)
    return model, x, cf, [balanced_clusters(book, 3) for book in model.codebooks]


@pytest.mark.parametrize("mode", ["train_argmin", "train_sinkhorn", "eval"])
def test_every_part_and_gradient_equals_the_published_numbers(mode):
    data = load_golden("letter_rqvae")
    expected = {
        name.removeprefix(f"{mode}/"): value
        for name, value in data.items()
        if name.startswith(f"{mode}/")
    }
    model = rqvae_from_golden(data, sinkhorn=mode != "train_argmin").train(mode != "eval")
    letter = LETTERLoss(float(data["alpha"]), float(data["beta"]))
    cf = data["cf_table"][data["item_index"]].requires_grad_()
    losses = letter(
        model, data["x"], cf, labels=list(data["cluster_labels"]), positives=expected["positives"].T
    )
    names = {
        "recon": "recon_loss",
        "codebook": "codebook_per_level",
        "commitment": "commitment_per_level",
        "cf": "cf_loss",
    }
    names |= {"div": "div_per_level", "quant": "quant_loss", "total": "total_loss"}
    for ours, theirs in names.items():
        assert close(losses[ours], expected[theirs]), ours
    losses["total"].backward()
    gradients = {
        our_name(name.removeprefix("grad:")): value
        for name, value in expected.items()
        if name.startswith("grad:")
    }
    if mode != "eval":
        assert gradients.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        if name in gradients:
            assert close(parameter.grad, gradients[name]), name
    assert cf.grad is None


def test_collaborative_loss_by_hand():
    z = torch.tensor([[1.0, 0.0], [0.5, 2.0], [-1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    h = torch.tensor([[0.2, 1.0], [1.0, -1.0], [0.0, 3.0]], dtype=torch.float64, requires_grad=True)
    scores = [[0.2, 1.0, 0.0], [2.1, -1.5, 6.0], [0.8, -2.0, 3.0]]
    loss = LETTERLoss().collaborative(z, h)
    assert float(loss.detach()) == pytest.approx(
        sum(softmax_loss(row, i, range(3)) for i, row in enumerate(scores)) / 3, abs=1e-12
    )
    loss.backward()
    assert h.grad is None
    soft = [
        [math.exp(s) / sum(map(math.exp, row)) - (i == j) for j, s in enumerate(row)]
        for i, row in enumerate(scores)
    ]
    assert close(z.grad, torch.tensor(soft, dtype=torch.float64) @ h.detach() / 3, 1e-12)

    masked = LETTERLoss().collaborative(z, h, torch.tensor([True, False, True]))
    assert float(masked.detach()) == pytest.approx(
        (softmax_loss(scores[0], 0, (0, 2)) + softmax_loss(scores[2], 2, (0, 2))) / 2, abs=1e-12
    )
    nothing = LETTERLoss().collaborative(z, h, torch.zeros(3, dtype=torch.bool))
    nothing.backward()
    assert float(nothing.detach()) == 0

    cosine = LETTERLoss(cf_temperature=0.5, cf_normalize=True).collaborative(z, h)
    rows = [
        [2 * s / math.hypot(*z[i].tolist()) / math.hypot(*h[j].tolist()) for j, s in enumerate(row)]
        for i, row in enumerate(scores)
    ]
    assert float(cosine.detach()) == pytest.approx(
        sum(softmax_loss(row, i, range(3)) for i, row in enumerate(rows)) / 3, abs=1e-12
    )


def test_half_precision_around_it_does_not_reach_the_collaborative_loss():
    torch.manual_seed(0)
    letter = LETTERLoss(projection=nn.Linear(6, 4, bias=False))
    latents, cf = torch.randn(30, 4), torch.randn(30, 6)
    exact = letter.collaborative(latents, cf)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(letter.collaborative(latents, cf), exact)


def test_masked_items_change_nothing():
    model, x, cf, labels = tiny()
    keep = torch.ones(20, dtype=torch.bool)
    keep[[2, 11]] = False
    positives = draw_positives(model(x)[2], labels)
    letter = LETTERLoss(alpha=0.5)
    base = letter(model, x, cf, keep, labels, positives)
    cf[~keep] = 1e3
    assert torch.equal(letter(model, x, cf, keep, labels, positives)["total"], base["total"])
    assert not torch.equal(letter(model, x, cf, None, labels, positives)["total"], base["total"])


def test_diversity_by_hand():
    book = torch.tensor(
        [[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0], [0.5, 0.5]], dtype=torch.float64, requires_grad=True
    )
    codes, positives = torch.tensor([[0], [3], [0]]), torch.tensor([[3], [0], [3]])
    gram = [
        [1.0, 0.0, -1.0, 0.5],
        [0.0, 4.0, 2.0, 1.0],
        [-1.0, 2.0, 2.0, 0.0],
        [0.5, 1.0, 0.0, 0.5],
    ]
    loss = diversity([book], codes, positives)
    expected = (2 * softmax_loss(gram[0], 3, (1, 2, 3)) + softmax_loss(gram[3], 0, (0, 1, 2))) / 3
    assert loss.shape == (1,) and float(loss.detach()) == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(lambda vectors: diversity([vectors], codes, positives), book)
    loss.backward()
    assert (book.grad.abs().sum(1) > 0).all()


def test_items_that_share_codes_share_the_denominator_of_the_diversity_term():
    generator = torch.Generator().manual_seed(4)
    books = [torch.randn(size, 5, generator=generator, requires_grad=True) for size in (7, 12)]
    codes = torch.stack([torch.randint(len(book), (40,), generator=generator) for book in books], 1)
    steps = torch.randint(1, 7, (40, 2), generator=generator)
    positives = (codes + steps) % torch.tensor([7, 12])
    losses = diversity(books, codes, positives)
    for level, book in enumerate(books):
        total = torch.zeros(())
        for code, positive in zip(codes[:, level], positives[:, level], strict=True):
            others = [number for number in range(len(book)) if number != int(code)]
            logits = book[others] @ book[code]
            total = total + logits.logsumexp(0) - book[positive] @ book[code]
        torch.testing.assert_close(losses[level], total / 40)
        (expected,) = torch.autograd.grad(total / 40, book)
        (found,) = torch.autograd.grad(losses[level], book, retain_graph=True)
        torch.testing.assert_close(found, expected)


def test_positives_are_other_codes_of_the_cluster():
    labels = [torch.tensor([0, 1, 0, 2, 1, 2, 0, 1, 1]), torch.tensor([0, 0, 1, 1])]
    generator = torch.Generator().manual_seed(0)
    codes = torch.stack(
        [torch.randint(size, (8000,), generator=generator) for size in (9, 4)], dim=1
    )
    first, again = (
        draw_positives(codes, labels, torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(first, again) and not torch.equal(
        first, draw_positives(codes, labels, torch.Generator().manual_seed(2))
    )
    for level, label in enumerate(labels):
        own, drawn = codes[:, level], first[:, level]
        assert (own != drawn).all() and torch.equal(label[own], label[drawn])
        for code in range(len(label)):
            others = [k for k in range(len(label)) if k != code and label[k] == label[code]]
            share = (
                torch.bincount(drawn[own == code], minlength=len(label))[others]
                / (own == code).sum()
            )
            assert (share - 1 / len(others)).abs().max() < 0.06
    with pytest.raises(DataError, match="cluster 1 of level 0 has one code only"):
        draw_positives(codes[:, :1], [torch.tensor([0, 0, 1, 2, 2, 2, 0, 0, 0])])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_without_weights_it_is_the_plain_rqvae(reduction):
    model, x, cf, labels = tiny(reduction)
    plain = model(x)[3]["total"]
    gradients = torch.autograd.grad(plain, list(model.parameters()))
    letter = LETTERLoss(alpha=0, beta=0)
    for losses in (letter(model, x), letter(model, x, cf, labels=labels)):
        assert close(losses["total"], plain, 1e-12)
        for ours, theirs in zip(
            torch.autograd.grad(losses["total"], list(model.parameters())), gradients, strict=True
        ):
            assert close(ours, theirs, 1e-12)


def test_sum_reduction_adds_the_diversity_of_all_levels():
    model, x, cf, labels = tiny("sum")
    losses = LETTERLoss(alpha=0.3, beta=0.2)(
        model, x, cf, labels=labels, generator=torch.Generator().manual_seed(0)
    )
    expected = model(x)[3]["total"] + 0.3 * losses["cf"] + 0.2 * losses["div"].sum()
    assert close(losses["total"], expected, 1e-12) and (losses["div"] > 0).all()


def test_a_projection_bridges_other_dimensions():
    model, x, _, labels = tiny()
    cf = torch.randn(20, 9, generator=torch.Generator().manual_seed(0)).double()
    projection = nn.Linear(9, 4).double()
    letter = LETTERLoss(projection=projection)
    losses = letter(model, x, cf, labels=labels)
    losses["total"].backward()
    assert (
        projection.weight.grad.abs().sum() > 0
        and {"projection.weight", "projection.bias"} == dict(letter.named_parameters()).keys()
    )
    assert close(losses["cf"], LETTERLoss().collaborative(model(x)[1], projection(cf)), 1e-12)


def test_labels_of_a_fit_that_continues_go_to_the_device_of_the_items():
    """A file gives them back on the CPU; ``meta`` stands for a GPU here."""
    stage = object.__new__(LETTERStage)
    stage.x = torch.zeros(5, 3, device="meta")
    stage.cf = stage.cf_rows = stage.network = stage.generator = None
    stage.choice = SimpleNamespace(track={"labels": [torch.zeros(4), torch.zeros(6)]})
    stage.letter_loss = lambda network, x, cf, rows, labels, generator: labels
    labels = stage.losses(torch.arange(2))
    assert [of_level.device.type for of_level in labels] == ["meta", "meta"]

    stage.choice.track["labels"] = None  # without the diversity term
    assert stage.losses(torch.arange(2)) is None


def test_errors():
    model, x, cf, labels = tiny()
    for given in ({}, {"cf": cf}, {"labels": labels}):
        with pytest.raises(
            ConfigError, match="needs cf unless alpha is 0, and labels unless beta is 0"
        ):
            LETTERLoss()(model, x, **given)
    with pytest.raises(
        ConfigError, match=r"vectors \[20, 3\] and latents \[20, 4\] differ; give a projection"
    ):
        LETTERLoss()(model, x, cf[:, :3], labels=labels)
