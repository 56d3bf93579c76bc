"""The order of the rows in the files changes no item's codes."""

from __future__ import annotations

import numpy as np
import pytest
from toy import toy_model, write_dataset

LONG_MQ = {"codebook_sizes": [16, 16], "tokenizer_epochs": 40, "tokenizer_batch_size": 8}
"""Enough steps that another order of the rows would give other codes."""
PARALLEL = {"generator": "parallel", "collision": ["nearest_free"], "item_parts": ["code"]}
PARALLEL |= {"depth": "none", "positions": "relative", "norm": "post", "score_mode": "auto"}
CASES = [
    ("store", "STORE", {}),
    ("lmindexer", "LMIndexer", {}),
    ("rkmeans", "TimelineRec", {}),
    ("clusters", "TimelineRec", {"codebook_sizes": [8]}),
    ("rqvae", "TIGER", {"tokenizer_epochs": 2}),
    ("text-hierarchical", "TimelineRec", {}),
    ("random", "TimelineRec", {}),
    ("cid", "TimelineRec", {}),
    ("letter", "LETTER", {}),
    ("opq", "TimelineRec", PARALLEL),
    ("mq", "TIGER", LONG_MQ),
    ("mq", "TokenRec", LONG_MQ),
    ("metapath", "MetaID", {}),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The toy dataset, and the same with all rows in another order."""
    folders = []
    for name in ("plain", "shuffled"):
        folder = write_dataset(tmp_path_factory.mktemp(name))
        folders.append(folder)
    draw = np.random.default_rng(0)
    for file in sorted((folders[1] / "toy").iterdir()):
        header, *rows = file.read_text().splitlines()
        rows = [rows[row] for row in draw.permutation(len(rows))]
        file.write_text("\n".join([header, *rows]) + "\n")
    return folders


@pytest.mark.parametrize(("name", "method", "settings"), CASES)
def test_codes_belong_to_raw_ids(folders, tmp_path, name, method, settings):
    codes, users = [], []
    for number, folder in enumerate(folders):
        values = {**settings, "tokenizer": name, "cache_dir": str(tmp_path / str(number))}
        model, *_ = toy_model(folder, method, **values)
        item_codes = model.item_codes
        of_items = dict(zip(item_codes.tokens, item_codes.codes.tolist(), strict=True))
        of_users = {}
        if hasattr(model, "user_codes"):
            of_users = dict(zip(model.user_tokens, model.user_codes.tolist(), strict=True))
        codes.append(of_items)
        users.append(of_users)
    assert codes[0] == codes[1] and users[0] == users[1]
    assert list(codes[0]) != list(codes[1])  # the items have other numbers
