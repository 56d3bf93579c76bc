"""How long and in which steps tokenizers train: learning rates against the formulas of the
schedules, the epochs of ``auto``, the number format of ``auto``.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from toy import toy_config, write_dataset

from recbole_genrec.collaborative.training_interactions import TrainingInteractions
from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.loaders import create_dataset
from recbole_genrec.tokenizer import make_tokenizer, rqvae_stage, rqvae_tokenizer

RATE = 0.004
SCHEDULED = {"tokenizer_lr": RATE, "tokenizer_batch_size": 8}
NETWORK = {"hidden_sizes": [16], "code_dim": 8, "codebook_sizes": [8, 8]}
TOKENIZERS = {
    "rqvae": ("TIGER", NETWORK),
    "letter": ("TIGER", {**NETWORK, "alpha": 0.0, "n_clusters": 2}),
    "mq": ("TIGER", {**NETWORK, "tokenizer_input": "text"}),
    "store": ("STORE", {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def seen():
    """The rate of each step of any optimiser."""
    rates: list[float] = []
    hook = register_optimizer_step_pre_hook(
        lambda optimiser, *_: rates.append(optimiser.param_groups[0]["lr"])
    )
    yield rates
    hook.remove()


def fit(name: str, folder, tmp_path, **changes):
    """The fitted tokenizer."""
    model, network = TOKENIZERS[name]
    values = {**SCHEDULED, **network, **changes}
    config = toy_config(folder, model, tokenizer=name, cache_dir=str(tmp_path), **values)
    content = ItemContent.from_dataset(create_dataset(config), config)
    content.interactions = TrainingInteractions(config, lambda _: None)
    tokenizer = make_tokenizer(config, 3)
    tokenizer.fit(content)
    return tokenizer


def cosine(step: int, steps: int) -> float:
    return RATE * (1 + math.cos(math.pi * step / steps)) / 2


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_rate_falls_as_a_cosine_to_zero(name, folder, tmp_path, seen):
    fit(name, folder, tmp_path, tokenizer_epochs=4, tokenizer_lr_scheduler="cosine")
    assert len(seen) % 4 == 0 and len(seen) >= 12
    expected = [cosine(step, len(seen)) for step in range(len(seen))]
    assert seen == pytest.approx(expected, abs=1e-12)


def test_the_rate_rises_first_and_then_falls_linearly(folder, tmp_path, seen):
    changes = {"tokenizer_lr_scheduler": "linear", "tokenizer_warmup_ratio": 0.25}
    fit("rqvae", folder, tmp_path, tokenizer_epochs=8, **changes)
    steps = len(seen)
    warm = steps // 4
    rising = [RATE * step / warm for step in range(warm)]
    falling = [RATE * (steps - step) / (steps - warm) for step in range(warm, steps)]
    assert seen == pytest.approx([*rising, *falling], abs=1e-12)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_constant_rate_stays(name, folder, tmp_path, seen):
    fit(name, folder, tmp_path, tokenizer_epochs=2, tokenizer_lr_scheduler="constant")
    assert set(seen) == {RATE}


@pytest.mark.parametrize(
    ("n_items", "epochs"), [(12_101, 125), (1_682, 500), (40, 500), (18_357, 83), (1_000_000, 50)]
)
def test_small_catalogues_train_for_more_epochs(n_items, epochs):
    n_batches = rqvae_stage.batch_count(n_items, 1024)
    assert rqvae_stage.epochs_asked("auto", n_batches) == epochs
    assert rqvae_stage.epochs_asked(7, n_batches) == 7


def test_the_shipped_number_of_epochs_is_trained(folder, tmp_path, seen, monkeypatch):
    monkeypatch.setattr(rqvae_stage, "MOST_EPOCHS", 6)
    fitted = fit("rqvae", folder, tmp_path, tokenizer_patience=6)
    assert fitted.settings.tokenizer_epochs == "auto"
    assert fitted.quality["curve"][-1]["epoch"] == 6


@pytest.mark.parametrize("there", [True, False])
def test_auto_is_bf16_where_the_processor_multiplies_it(folder, tmp_path, monkeypatch, there):
    def weights(precision):
        fitted = fit("rqvae", folder, tmp_path, tokenizer_epochs=2, tokenizer_precision=precision)
        return fitted.network.state_dict()

    monkeypatch.setattr(rqvae_tokenizer, "multiplies_bf16", lambda device: there)
    auto, fp32, bf16 = weights("auto"), weights("fp32"), weights("bf16")
    same, other = (bf16, fp32) if there else (fp32, bf16)
    assert all(torch.equal(value, same[name]) for name, value in auto.items())
    assert not all(torch.equal(value, other[name]) for name, value in auto.items())


def test_one_pass_of_the_optimiser_gives_the_numbers_of_several(folder, tmp_path, monkeypatch):
    one = fit("rqvae", folder, tmp_path, tokenizer_epochs=3).network.state_dict()
    monkeypatch.setattr(rqvae_stage, "in_one_pass", lambda optimiser: optimiser)
    several = fit("rqvae", folder, tmp_path, tokenizer_epochs=3).network.state_dict()
    for name, value in one.items():
        torch.testing.assert_close(value, several[name], rtol=1e-4, atol=1e-5)
