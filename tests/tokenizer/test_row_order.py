"""The order of the rows in the files changes no item's codes."""

from __future__ import annotations

import numpy as np
import pytest
from toy import toy_model, write_dataset

SETTINGS = {
    "store": ("STORE", {}),
    "lmindexer": ("LMIndexer", {}),
    "rkmeans": ("TimelineRec", {}),
    "clusters": ("TimelineRec", {"codebook_sizes": [8]}),
    "rqvae": ("TIGER", {"tokenizer_epochs": 2}),
    "text-hierarchical": ("TimelineRec", {}),
    "random": ("TimelineRec", {}),
    "cid": ("TimelineRec", {}),
    "letter": ("LETTER", {}),
    "mq": ("TokenRec", {}),
    "metapath": ("MetaID", {}),
}


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


@pytest.mark.parametrize("name", SETTINGS)
def test_codes_belong_to_raw_ids(folders, tmp_path, name):
    method, settings = SETTINGS[name]
    codes = []
    for number, folder in enumerate(folders):
        values = {**settings, "tokenizer": name, "cache_dir": str(tmp_path / str(number))}
        model, *_ = toy_model(folder, method, **values)
        item_codes = model.item_codes
        codes.append(dict(zip(item_codes.tokens, item_codes.codes.tolist(), strict=True)))
    assert codes[0] == codes[1]
    assert list(codes[0]) != list(codes[1])  # the items have other numbers
