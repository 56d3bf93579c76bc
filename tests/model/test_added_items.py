"""New items leave the scores of all others as they are, to the last bit."""

from __future__ import annotations

import pytest
import torch
from toy import toy_model, write_dataset

from recbole_genrec.tokenizer import NewItems

NEW = ["title: red soap no 1, brand: brand0", "title: green lamp, brand: brand9"]
SIZES = {"codebook_sizes": [4, 4]}
METHODS = {
    "TIGER": SIZES,
    "LETTER": SIZES,
    "LCRec": SIZES,
    "MetaID": {},
    "LMIndexer": {"codebook_sizes": [4, 4]},
    "STORE": {"codebook_sizes": [4, 4, 4], "collision": ["extra_token"]},
}
TIMELINES = {
    "tree": {"depth": "none"},
    "tree without ids": {"depth": "none", "item_parts": ["text"]},
    "flat": {"output": "items"},
    "mlp": {"depth": "mlp"},
}
SCORE_TYPES = ["joint", "level", "renormalised"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def made(folder, method, **changes):
    model, _, _ = toy_model(
        folder,
        method,
        cache_dir=str(folder / "cache"),
        beam_width=60,
        score_mode="exact",
        **changes,
    )
    return model.eval()


@pytest.mark.parametrize("score_type", SCORE_TYPES)
@pytest.mark.parametrize("method", METHODS)
def test_scores_of_all_others_stay(folder, method, score_type):
    model = made(folder, method, score_type=score_type, **METHODS[method])
    torch.manual_seed(0)
    history = torch.randint(1, model.n_items, (6, 5))
    length = torch.tensor([5, 5, 3, 1, 2, 4])
    history = history * (torch.arange(5) < length.unsqueeze(1))
    user = {}
    if model.uses_users:
        user["user"] = torch.arange(1, 7)
    before = model.scores(history, length, **user)

    chosen_by = {}
    if method == "MetaID":  # its tokenizer places items by the users who chose them
        chosen_by["users"] = [["u1", "u2"], ["u3"]]
    added = model.add_items(NEW, **chosen_by)
    after = model.scores(history, length, **user)
    assert torch.equal(after[:, : before.shape[1]], before)
    assert after[:, added].isfinite().all()

    if method == "MetaID":
        chosen_by["users"] = [["u5"]]
    model.add_items(["title: blue comb, brand: brand3"], **chosen_by)
    assert torch.equal(model.scores(history, length, **user)[:, : before.shape[1]], before)


@pytest.mark.parametrize("score_type", SCORE_TYPES)
@pytest.mark.parametrize("kind", TIMELINES)
def test_scores_of_timelines_stay(folder, kind, score_type):
    """Products with one row more may differ in the last bit, so here up to 1e-6."""
    model = made(folder, "TimelineRec", score_type=score_type, **SIZES, **TIMELINES[kind])
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    history = torch.randint(1, model.n_items, (4, 5))
    length = torch.full((4,), 5)
    before = model.scores(history, length)
    added = model.add_items(NEW)
    after = model.scores(history, length)
    torch.testing.assert_close(after[:, 1 : before.shape[1]], before[:, 1:], atol=1e-5, rtol=1e-6)
    assert after[:, added].isfinite().all()


def test_texts_of_others_stay_whatever_the_length_of_a_new_one(folder):
    """A longer text in a batch of the encoder moves the last digits of the others."""
    model = made(folder, "TimelineRec", **SIZES, **TIMELINES["tree without ids"])
    texts = model.texts.clone()
    assert len(texts) > 30
    store = folder / "cache" / "text-embeddings"
    entries = sorted(store.iterdir())
    model.add_items([" ".join(f"word{n}" for n in range(200))])
    model.add_items(NEW)
    assert torch.equal(model.texts[: len(texts)], texts)
    assert model.texts.shape[0] == len(texts) + 3 and model.texts[len(texts) :].abs().sum() > 0
    assert sorted(store.iterdir()) == entries, "nothing is stored for new items"

    whole = toy_model(
        folder,
        "TimelineRec",
        cache_dir=str(folder / "cache"),
        **SIZES,
        **TIMELINES["tree without ids"],
    )
    whole[0].add_items([*NEW])
    torch.testing.assert_close(whole[0].texts[len(texts) :], model.texts[-2:], atol=1e-5, rtol=0)


def test_each_tree_takes_the_vectors_of_its_own_kind(folder, tmp_path):
    """The first tokenizer reads SASRec's vectors, the second texts: it does not take the former."""
    model, *_ = toy_model(
        folder,
        "TimelineRec",
        cache_dir=str(tmp_path),
        depth="none",
        score_mode="exact",
        tokenizer="rkmeans",
        tokenizer_input="cf",
        cf_dim=8,
        cf_epochs=1,
        tokenizers=["rkmeans", "text-hierarchical"],
    )
    (of_texts,) = model.further_codes
    texts = ["a red soap", "a soft brush"]
    existing = of_texts.item_codes.codes[1:]
    expected, _ = of_texts.tokenizer.place(NewItems(texts), existing, of_texts.item_codes.sizes)
    model.add_items(texts, vectors=torch.randn(2, 8))
    assert torch.equal(of_texts.item_codes.codes[-2:], expected)
