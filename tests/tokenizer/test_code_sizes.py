"""Small catalogues get fewer codes than asked for: the same for every tokenizer, and it is said."""

from __future__ import annotations

import logging

import pytest
import torch
from toy import TINY, toy_model, write_dataset

from recbole_genrec.experiments.stages import start_summary
from recbole_genrec.tokenizer import make_tokenizer
from recbole_genrec.tokenizer.clusters import ClustersTokenizer
from recbole_genrec.tokenizer.code_sizes import sizes_asked, sizes_notice

WANTED = [1024, 8, 512]
USED = [10, 8, 10]  # a quarter of 40 items
NOTICE = f"codebook_sizes {WANTED} -> {USED} because of 40 items"
QUICK = {"hidden_sizes": [8], "code_dim": 4, "tokenizer_epochs": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


# case 46
@pytest.mark.parametrize("tokenizer", ["rkmeans", "text-hierarchical", "rqvae", "random", "mq"])
def test_every_tokenizer_gets_the_same_sizes_and_says_so(folder, tokenizer, caplog):
    options = QUICK if tokenizer in ("rqvae", "mq") else {}
    if tokenizer == "mq":
        options = {**options, "tokenizer_input": "text"}
    with caplog.at_level(logging.WARNING):
        model, config, loaders = toy_model(
            folder,
            "TIGER",
            tokenizer=tokenizer,
            codebook_sizes=WANTED,
            cache_dir=str(folder / "cache"),
            **options,
        )
    assert list(model.level_sizes[:3]) == USED
    assert NOTICE in caplog.text
    assert NOTICE in start_summary(config, loaders[0]._dataset)
    report = model.report()["tokenizer"]
    assert report["codebook_sizes_asked"] == WANTED
    assert report["codebook_sizes_used"] == USED


def test_store_gets_the_same_sizes():
    values = {**TINY, "codebook_sizes": WANTED, "collision": ["extra_token"], "dedup_spare": 0}
    values |= {"tokenizer": "store", "pca_l2": False}
    tokenizer = make_tokenizer(values, seed=0)
    dense = torch.randn(40, 3, 6, generator=torch.Generator().manual_seed(0))
    codes = tokenizer.quantise(dense, ["[PAD]", *map(str, range(40))])
    assert list(codes.sizes[:3]) == USED


def test_nothing_is_said_where_all_codes_are_there(folder, caplog):
    sizes = {"tokenizer": "random", "codebook_sizes": [8, 8], "cache_dir": str(folder / "cache")}
    with caplog.at_level(logging.WARNING):
        _, config, loaders = toy_model(folder, "TIGER", **sizes)
    assert "codebook_sizes" not in caplog.text
    assert "because of" not in start_summary(config, loaders[0]._dataset)


def test_equal_vectors_are_the_other_reason():
    notice = sizes_notice(400, [256, 256], [100, 3])
    assert notice.endswith(
        "[100, 3] because of 400 items, or because too few of their vectors differ"
    )


@pytest.mark.parametrize(
    ("counts", "size"), [((10_000, 3), 256), ((10_001,), 512), ((5, 22_363), 512)]
)
def test_auto_is_larger_for_large_data(counts, size):
    assert sizes_asked("auto", *counts) == [size] * 3
    assert sizes_asked([7, 8], *counts) == [7, 8]


def test_auto_sizes_of_users_and_items_follow_the_larger_side(monkeypatch, folder):
    """The codes are those of the list, under the key of the list."""
    options = {**QUICK, "graph_epochs": 1, "cache_dir": str(folder / "entities")}
    wanted = [256, 256, 256]
    model, _, _ = toy_model(folder, "TokenRec", codebook_sizes=wanted, **options)
    other, _, _ = toy_model(folder, "TokenRec", codebook_sizes="auto", **options)
    assert torch.equal(model.codes, other.codes)
    monkeypatch.setattr("recbole_genrec.tokenizer.code_sizes.LARGE", 50)
    large, _, _ = toy_model(folder, "TokenRec", codebook_sizes="auto", **options)
    assert len(list((folder / "entities").glob("mq-entities-*"))) == 2
    assert max(large.entities.sizes[1]) == 60, "as many codes as users"


@pytest.mark.parametrize(
    ("n_items", "clusters"),
    [(20, 5), (50, 8), (1682, 8), (12_101, 16), (562_500, 750), (1_000_000, 1000)],
)
def test_auto_gives_clusters_of_many_items(n_items, clusters):
    assert ClustersTokenizer.sizes_asked("auto", n_items, 10**9) == [clusters]
    assert ClustersTokenizer.sizes_asked([64], n_items) == [64]


def test_an_item_competes_with_all_others_of_its_cluster(folder):
    model = toy_model(folder, "TimelineRec", tokenizer="clusters", codebook_sizes="auto")[0]
    codes = model.codes[1:]
    assert codes.shape[1] == 2
    assert len(codes.unique(dim=0)) == len(codes)
    for cluster in codes[:, 0].unique():
        places = codes[codes[:, 0] == cluster, 1].sort().values
        assert torch.equal(places, torch.arange(len(places)))
