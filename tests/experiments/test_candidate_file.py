"""Candidate files: evaluations and recommendations among some items, with errors that name the
line's item.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from toy import toy_config, toy_model, write_dataset

from recbole_genrec.cli import main
from recbole_genrec.decoding import SearchLog, SearchResult
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import evaluate, recommend
from recbole_genrec.model.search.item_tries import ItemTries
from recbole_genrec.storage.digests import digest

NAMES = [f"i{number}" for number in (3, 4, 8, 11, 15, 16, 21, 27, 33, 38, 39)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "fresh.txt"
    path.write_text("\n".join(["", *NAMES, NAMES[0]]) + "\r\n", encoding="utf-8-sig")
    return str(path)


@pytest.mark.parametrize(
    "settings",
    [{}, {"beam_width": "auto"}, {"constraint": "level", "score_type": "level", "beam_width": 40}],
)
def test_evaluations_rank_the_candidates_above_all_others(folder, file, settings):
    everything, _, loaders = toy_model(folder, "TIGER", tokenizer="random", **settings)
    model, *_ = toy_model(folder, "TIGER", tokenizer="random", candidate_file=file, **settings)
    model.load_state_dict(everything.state_dict())
    members = torch.tensor(model.item_ids(NAMES))
    others = torch.tensor([item for item in range(1, 41) if item not in members.tolist()])
    batch = next(iter(loaders[2]))[0]
    scores = model.full_sort_predict(batch)
    assert (scores[:, members].amin(1) > scores[:, others].amax(1)).all() and scores[
        :, 1:
    ].isfinite().all()
    history, length = batch["item_id_list"], batch["item_length"]
    restricted = model.search(history, length, k=10).items[:, :10]
    assert torch.isin(restricted[restricted > 0], members).all()
    if "constraint" not in settings:  # else beams leave the catalogue
        everywhere = everything.search(
            history, length, k=40
        ).items.tolist()  # 40 beams reach every item
        assert restricted.tolist() == [
            [item for item in row if item in members.tolist()][:10] for row in everywhere
        ]
    batch["item_id"] = members[:1].expand(len(length))
    torch.testing.assert_close(model.predict(batch), everything.predict(batch), atol=1e-5, rtol=0)
    batch["item_id"] = others[:1].expand(len(length))
    assert (model.predict(batch) < everything.predict(batch).amin() - 100).all()


def test_scores_within_the_candidates(folder, file):
    settings = {"tokenizer": "random", "score_type": "renormalised", "candidate_file": file}
    whole, _, loaders = toy_model(folder, "TIGER", **settings)
    within, *_ = toy_model(folder, "TIGER", subset_norm="subset", **settings)
    within.load_state_dict(whole.state_dict())
    members, batch = torch.tensor(whole.item_ids(NAMES)), next(iter(loaders[2]))[0]
    sums = [model.full_sort_predict(batch)[:, members].exp().sum(1) for model in (whole, within)]
    assert (sums[0] < 0.99).all() and sums[1] == pytest.approx(torch.ones(len(sums[1])), abs=1e-4)
    assert within.report()["search"]["subset_norm"] == "subset"


def test_candidates_go_to_the_device_of_the_trie(monkeypatch):
    """The file is read on the CPU; ``meta`` stands for a GPU here."""

    def equal(one, other):
        assert one.device == other.device
        return one.shape == other.shape

    monkeypatch.setattr(torch, "equal", equal)  # meta tensors hold nothing to compare
    seen = []
    trie = SimpleNamespace(device=torch.device("meta"), subset=lambda *given: seen.append(given))
    tries = ItemTries(SimpleNamespace(subset_norm="full"), torch.tensor([3, 4]))
    tries.of_candidates(trie)
    tries.among(trie, torch.tensor([5], device="meta"))
    tries.among(trie, torch.tensor([5]))
    assert [items.device.type for items, _ in seen] == ["meta", "meta"]


def test_a_run_and_the_command(folder, file, tmp_path, capsys, caplog):
    settings = {
        "data_path": str(folder),
        "checkpoint_dir": str(tmp_path / "saved"),
        "cache_dir": str(tmp_path / "cache"),
        "epochs": 1,
    }
    config = toy_config(folder, "TIGER", tokenizer="random", **settings)
    values = {
        key: config[key]
        for key in (
            "tokenizer",
            "backbone_config",
            "codebook_sizes",
            "item_text_fields",
            "topk",
            "show_progress",
            "gpu_id",
        )
    }
    with caplog.at_level(logging.INFO):
        result = run_recbole_genrec(
            "TIGER", "toy", config_dict={**values, **settings, "candidate_file": file}
        )
    assert result["report"]["search"]["candidates"] == len(NAMES)
    assert result["candidates"] == {"items": len(NAMES), "digest": digest(sorted(NAMES))}
    assert evaluate(result["checkpoint"])["candidates"] == result["candidates"]
    assert evaluate(result["checkpoint"], candidate_file=None)["candidates"] is None
    assert "certified lists: " in caplog.text and "of the top 10 (60 users)" in caplog.text
    rows = recommend(result["checkpoint"], history=["i1", "i2"], k=30, candidate_file=file)
    assert {row["item"] for row in rows} == set(NAMES)
    assert (
        main(
            [
                "recommend",
                "--checkpoint",
                result["checkpoint"],
                "--history",
                "i1,i2",
                "--top",
                "3",
                "--candidate_file",
                file,
            ]
        )
        == 0
    )
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[-3:]] == [
        row["item"] for row in rows[:3]
    ]
    assert len(recommend(result["checkpoint"], history=["i1", "i2"], k=40)) == 40, (
        "without the file, all items"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read.*one raw item id a line"),
        ("\n \n", "names no item"),
        ("i1\ni2\n", "names 2 items, but topk asks for 10"),
        (
            "\n".join([*NAMES, "x7", "x8"]),
            r"There is no item 'x7' \(2 of 13 ids are unknown\) in .*bad.txt",
        ),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_files_that_cannot_work(folder, tmp_path, text, message):
    path = tmp_path / "bad.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        toy_model(folder, "TIGER", tokenizer="random", candidate_file=str(path))


def test_other_models_refuse_a_candidate_file(folder, file):
    from recbole_genrec.config import GenRecConfig

    with pytest.raises(ConfigError, match="SASRec ranks all items"):
        GenRecConfig(
            "SASRec", "toy", config_dict={"data_path": str(folder), "candidate_file": file}
        )


def test_the_log_line_of_an_evaluation():
    log = SearchLog([1, 2])
    assert str(log) == "certified lists: no search (0 users)"
    scores, bound = (
        torch.tensor([[-1.0, -3.0], [-1.0, -2.0], [-4.0, -5.0]]),
        torch.tensor([-2.0, -2.0, -2.0]),
    )
    log.add(SearchResult(torch.ones(3, 2, dtype=torch.int64), scores, bound))
    assert str(log) == "certified lists: 66.67% of the top 1, 33.33% of the top 2 (3 users)"
