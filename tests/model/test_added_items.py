"""New items leave the scores of all others as they are, to the last bit."""

from __future__ import annotations

import pytest
import torch
from toy import toy_model, write_dataset

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
SCORE_TYPES = ["joint", "level", "renormalised"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("score_type", SCORE_TYPES)
@pytest.mark.parametrize("method", METHODS)
def test_scores_of_all_others_stay(folder, method, score_type):
    changes = {"score_type": score_type, "beam_width": 60, "score_mode": "exact"}
    model, _, _ = toy_model(
        folder, method, cache_dir=str(folder / "cache"), **METHODS[method], **changes
    )
    model.eval()
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
