"""SIGTERM in the middle of each kind of fit: it goes on from there and ends with the same
result.
"""

from __future__ import annotations

import logging
import os
import signal

import pytest
import torch
from toy import toy_config, write_dataset

from recbole_genrec.collaborative.training_interactions import TrainingInteractions
from recbole_genrec.data.content import ItemContent
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.model.tokenrec.entities import Entities
from recbole_genrec.runtime import interrupts
from recbole_genrec.tokenizer import fit_or_load, make_tokenizer
from recbole_genrec.tokenizer.training_loop import TrainingLoop
from recbole_genrec.training.trainer import GenRecTrainer

SCHEDULE = {"tokenizer_lr_scheduler": "cosine", "tokenizer_warmup_ratio": 0.2}
NETWORK = {"hidden_sizes": [16], "code_dim": 8, "tokenizer_batch_size": 16}
FITS = {
    "store": ("STORE", {"tokenizer_epochs": 5, **SCHEDULE}),
    "rqvae": ("TIGER", {"tokenizer": "rqvae", "tokenizer_epochs": 12, **SCHEDULE, **NETWORK}),
    "letter": (
        "TIGER",
        {
            "tokenizer": "letter",
            "tokenizer_epochs": 12,
            "n_clusters": 2,
            "alpha": 0.1,
            "cf_dim": 4,
            "cf_epochs": 1,
            **NETWORK,
        },
    ),
    "metapath": (
        "TIGER",
        {
            "tokenizer": "metapath",
            "tokenizer_epochs": 6,
            "tokenizer_batch_size": 64,
            "codebook_sizes": [6],
            "walk_length": 8,
            "path_dim": 8,
        },
    ),
    "mq": (
        "TIGER",
        {"tokenizer": "mq", "tokenizer_epochs": 14, "graph_epochs": 1, **SCHEDULE, **NETWORK},
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


class Interrupter:
    """Counts the calls of a method, and sends a signal to this process in one of them."""

    def __init__(self, monkeypatch, owner: type, method: str) -> None:
        self.calls = 0
        self.at: int | None = None
        original = getattr(owner, method)

        def watched(*args, **kwargs):
            if self.calls == self.at:
                self.at = None
                os.kill(os.getpid(), signal.SIGTERM)
            self.calls += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, method, watched)

    def interrupted(self, fit, at: int) -> None:
        """Run ``fit`` until the signal comes in call number ``at``, from 0."""
        self.calls, self.at = 0, at
        with interrupts.handled_signals(), pytest.raises(interrupts.Interrupted):
            fit()

    def count(self, fit) -> tuple[int, object]:
        """Number of calls in ``fit``, and what it returns."""
        self.calls, self.at = 0, None
        result = fit()
        return self.calls, result


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", FITS)
def test_a_tokenizer(name, folder, tmp_path, monkeypatch, caplog):
    model, changes = FITS[name]
    shared = str(tmp_path / "shared")
    config = toy_config(folder, model, cache_dir=shared, **changes)
    dataset = create_dataset(config)
    content = ItemContent.from_dataset(dataset, config)
    content.interactions = TrainingInteractions(config, lambda _: None)
    content.users = [str(token) for token in dataset.field2id_token["user_id"]]
    vectors = {"letter": content.collaborative, "mq": content.graph}
    vectors.get(name, content.embeddings if name == "rqvae" else lambda: None)()

    def fit(cache: str):
        tokenizer = make_tokenizer(config, 3)
        codes = fit_or_load(tokenizer, content, tmp_path / cache, 3, lambda _: None)
        tensors, meta = tokenizer.state()
        quality = {key: value for key, value in meta["quality"].items() if "cpu" not in key}
        return {**tensors, "codes": codes.codes}, quality

    interrupter = Interrupter(monkeypatch, TrainingLoop, "_epoch")
    epochs, (tensors, quality) = interrupter.count(lambda: fit("whole"))
    assert epochs == changes["tokenizer_epochs"]

    # Twice, the second time in the last epoch: what is left is all that follows the training.
    interrupter.interrupted(lambda: fit("killed"), at=epochs // 2)
    (saved,) = (tmp_path / "killed").glob(f"fit-{name}-*.pth")
    interrupter.interrupted(lambda: fit("killed"), at=epochs - epochs // 2 - 2)
    with caplog.at_level(logging.INFO):
        remaining, (again, quality_again) = interrupter.count(lambda: fit("killed"))
    assert remaining == 0 and not saved.exists()
    assert same(again, tensors) and quality_again == quality

    saved.touch()  # as a run leaves it that is killed when it has stored its result
    fit("killed")
    assert not saved.exists()


@pytest.mark.parametrize(("at", "remaining"), [(3, 24), (17, 10), (13, 14), (27, 0)])
def test_the_tokenizer_of_users_and_items(folder, tmp_path, monkeypatch, at, remaining):
    shared = {"graph_epochs": 1, "tokenizer_epochs": 14, "cache_dir": str(tmp_path / "shared")}
    config = toy_config(folder, "TokenRec", **shared)
    loaders = make_loaders(config, create_dataset(config), True)
    dataset = loaders[0]._dataset
    tokens = {
        "items": [str(token) for token in dataset.field2id_token["item_id"]],
        "users": [str(token) for token in dataset.field2id_token["user_id"]],
    }

    def fit(seed: int):
        config["seed"] = seed
        entities = Entities.fit(config, dataset, tokens, lambda _: None)
        states = {
            f"{side}.{name}": value
            for side, quantiser in entities.quantisers.items()
            for name, value in quantiser.state()[0].items()
        }
        return {**states, "items": entities.tables()[0], "users": entities.tables()[1]}

    fit(1)  # the collaborative vectors
    interrupter = Interrupter(monkeypatch, TrainingLoop, "_epoch")
    interrupter.interrupted(lambda: fit(2), at=at)
    epochs, killed = interrupter.count(lambda: fit(2))
    assert epochs == remaining
    for stored in (tmp_path / "shared").glob("mq-entities-*"):
        stored.rename(tmp_path / stored.name)
    epochs, whole = interrupter.count(lambda: fit(2))
    assert epochs == 28 and same(killed, whole)


@pytest.mark.parametrize("kind", ["sasrec", "lightgcn"])
def test_collaborative_vectors(kind, folder, tmp_path, monkeypatch):
    def fit(cache: str):
        changes = {"cf_epochs": 4, "cf_dim": 4}
        changes |= {"graph_epochs": 4, "graph_dim": 4, "graph_batch": 64}
        config = toy_config(folder, "TIGER", cache_dir=str(tmp_path / cache), **changes)
        interactions = TrainingInteractions(config, lambda _: None)
        tokens, vectors = interactions.vectors() if kind == "sasrec" else interactions.graph()
        return tokens, vectors.tolist()

    monkeypatch.chdir(tmp_path)
    interrupter = Interrupter(monkeypatch, GenRecTrainer, "_optimiser_step")
    steps, whole = interrupter.count(lambda: fit("whole"))
    assert steps == 4 if kind == "sasrec" else steps > 8
    interrupter.interrupted(lambda: fit("killed"), at=steps // 2)
    remaining, again = interrupter.count(lambda: fit("killed"))
    assert remaining == steps - steps // 2 - 1 and again == whole
