"""A share of each list for items without training interactions: against plain loops."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from toy import TINY_OF, toy_config, toy_model, write_dataset

from recbole_genrec.decoding import ItemTrie, SearchResult
from recbole_genrec.decoding.cold_share import ColdItems, with_cold_share
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.ensemble import make_ensemble
from recbole_genrec.experiments.ensemble_file import EnsembleFile
from recbole_genrec.experiments.loading import load_data_and_model, load_model, load_recommender
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.storage.artefacts import write_json
from recbole_genrec.storage.checkpoints import load_checkpoint, save_checkpoint
from recbole_genrec.training.trainer import GenRecTrainer


def by_hand(items, codes, is_cold, k, share, barred):
    """One list: see the docstring of ``with_cold_share``."""
    warm = [item for item in items if item > 0 and not is_cold[item]]
    listed, waiting, n_cold, seen = [], [], 0, set()
    while len(listed) < k:
        if waiting and n_cold + 1 <= share * (len(listed) + 1) + 1e-6:
            listed.append(waiting.pop(0))
            n_cold += 1
        elif warm:
            item = warm.pop(0)
            listed.append(item)
            if tuple(codes[item]) not in seen:
                seen.add(tuple(codes[item]))
                for other in range(1, len(codes)):
                    alike = tuple(codes[other]) == tuple(codes[item])
                    if alike and is_cold[other] and other not in barred:
                        waiting.append(other)
        else:
            break
    return listed + [0] * (k - len(listed))


@pytest.mark.parametrize("share", [0.125, 0.25, 0.5, 1.0])
def test_lists_are_those_of_plain_loops(share):
    draw = torch.Generator().manual_seed(int(1000 * share))
    n_items, k = 40, 8
    codes = torch.randint(0, 3, (n_items, 2), generator=draw)
    extra = torch.arange(n_items).unsqueeze(1)
    trie = ItemTrie(torch.cat([codes, extra], 1), (3, 3, n_items))
    is_cold = torch.rand(n_items, generator=draw) < 0.3
    is_cold[0] = False
    cold = ColdItems(codes, is_cold)

    order = torch.rand(16, n_items - 1, generator=draw).argsort(1) + 1
    items = order[:, :12]
    scores = -torch.rand(16, 12, generator=draw).sort(1).values
    items[3, 9:], scores[3, 9:] = 0, -torch.inf
    full = torch.full((16, n_items), -5.0).scatter(1, items, scores)
    full[:, 0] = -torch.inf
    excluded = order[:, -3:]
    bound = torch.full((16,), -1.0)
    result = with_cold_share(
        SearchResult(items, scores, bound, full), cold, trie, k, share, excluded
    )

    for row in range(16):
        barred = set(excluded[row].tolist())
        expected = by_hand(items[row].tolist(), codes.tolist(), is_cold, k, share, barred)
        assert result.items[row].tolist() == expected
        for length in range(1, k + 1):
            assert is_cold[expected[:length]].sum() <= share * length + 1e-6
        ranked = [item for item in expected if item]
        best = result.full[row].argsort(descending=True)[: len(ranked)].tolist()
        assert best == ranked
        assert bool(result.bound[row] == torch.inf) == bool(is_cold[expected].any())
    fall = result.scores[:, 1:] - result.scores[:, :-1]
    assert (fall[~fall.isnan()] < 0).all()
    assert is_cold[result.items].any()


@pytest.mark.parametrize("within", [None, "full", "subset"])
@pytest.mark.parametrize(
    "search", [{"score_mode": "exact"}, {"beam_width": "auto"}, {"beam_width": 5}], ids=str
)
def test_lists_are_full_and_keep_the_share_where_the_search_returns_k_items(
    tmp_path, search, within
):
    folder = write_dataset(tmp_path)
    settings = {"topk": [5], "valid_metric": "NDCG@5", "codebook_sizes": [4], **search}
    if within:
        (tmp_path / "chosen").write_text("\n".join(f"i{item}" for item in range(30)))
        settings |= {"candidate_file": str(tmp_path / "chosen"), "subset_norm": within}
    share = 0.4
    model, *_ = toy_model(
        folder,
        "TIGER",
        cold_share=share,
        tokenizer="random",
        score_type="renormalised",
        **settings,
    )
    history = torch.randint(1, 41, (12, 4), generator=torch.Generator().manual_seed(1))
    length = torch.full((12,), 4)
    members = model.search_trie.leaf_items
    model.cold_share._tokens = []
    alone = model.scores(history, length)
    model.cold_share._tokens = model.item_tokens[1::2]
    model.cold_share._items = None
    is_cold = model.cold_share.are_cold()
    assert 15 <= is_cold[members].sum() <= 20

    model.reset_search_log()
    result = model.search(history, length, 5, fill=True)
    shares = model.search_log.shares()
    assert shares["certified@5"] == float(result.certified(5).float().mean())
    assert shares["unfilled"] == 0 and (result.items > 0).all()
    assert is_cold[result.items].any()
    items, _ = model._best_of(5, history, length, None)
    assert torch.equal(items, result.items)
    for listed in range(1, 6):
        assert (is_cold[items[:, :listed]].sum(1) <= share * listed + 1e-6).all()

    # no cold item that is in no list stands before a warm one
    warm = members[~is_cold[members]]
    unlisted = is_cold.expand(12, -1).scatter(1, items, False)
    highest = result.full.masked_fill(~unlisted, -torch.inf).amax(1)
    assert (result.full[:, warm] > highest.unsqueeze(1)).all()
    assert (highest <= model.unranked_score).all()
    if search == {"score_mode": "exact"}:
        is_warm = ~is_cold[result.items]
        assert torch.allclose(result.scores[is_warm], alone.gather(1, items)[is_warm], atol=1e-4)


def test_cold_items_alone_stand_where_their_scores_put_them(tmp_path):
    model, *_ = toy_model(write_dataset(tmp_path), "TIGER", cold_share=0.5)
    chosen = model.item_tokens[1::4]
    plain = model.recommend(["i3"], k=5, candidates=chosen)
    model.cold_share._tokens = chosen
    model.cold_share._items = None
    assert model.recommend(["i3"], k=5, candidates=chosen) == plain and len(plain) == 5


def test_added_items_with_the_codes_of_others_enter_the_lists(tmp_path):
    folder = write_dataset(tmp_path)
    model, config, loaders = toy_model(folder, "TIGER", cold_share=0.5, dedup_spare=3)
    text = model.content.text[7]
    (twin,) = model.add_items([text], ["twin"])
    learned = model.codes[:, : model.item_codes.n_learned]
    assert learned[twin].tolist() == learned[7].tolist()

    batch = next(iter(loaders[2]))[0]
    lists = model.full_sort_predict(batch).argsort(1, descending=True)[:, :10]
    without = model.settings.cold_share
    config["cold_share"] = 0.0
    plain = model.full_sort_predict(batch).argsort(1, descending=True)[:, :11]
    config["cold_share"] = without
    alike = (learned == learned[twin]).all(1)
    alike[twin] = False
    for row, before in zip(lists.tolist(), plain.tolist(), strict=True):
        before = [item for item in before if item != twin]
        places = [place for place, item in enumerate(before) if alike[item]]
        if places and places[0] < 8:
            # behind the first item with these codes, where half of the places may be cold
            assert row.index(twin) == max(places[0] + 1, 1)
        assert [item for item in row if item != twin] == before[: 10 - (twin in row)]

    answer = model.recommend(["i3", "i4"], k=10)
    assert len(answer) == 10


def test_the_alphabet_of_the_extra_code_is_fixed(tmp_path):
    folder = write_dataset(tmp_path)
    model, *_ = toy_model(folder, "TIGER", extra_token_size=256, codebook_sizes=[4, 4])
    assert model.level_sizes == (4, 4, 256)
    assert model.vocabulary.level_sizes[-1] == 256


# --- checkpoints, evaluations, sums ---------------------------------------------------------------

SHARE = {"cold_share": 0.5, "catalogue": "item_file", "epochs": 1}


def write_twins(place: Path) -> Path:
    """The toy data, and for each fourth item one of the same text that nobody has chosen."""
    folder = write_dataset(place)
    file = folder / "toy" / "toy.item"
    lines = file.read_text().splitlines()
    for line in lines[1::4]:
        item, title, brand = line.split("\t")
        lines.append(f"twin-{item}\t{title}\t{brand}")
    file.write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The result of a run of TIGER with items that nobody has chosen, and its data."""
    place = tmp_path_factory.mktemp("run")
    folder = write_twins(place / "data")
    values = {**TINY_OF["TIGER"], **SHARE, "data_path": str(folder)}
    values |= {"cache_dir": str(place / "cache"), "checkpoint_dir": str(place / "saved")}
    return run_recbole_genrec("TIGER", "toy", config_dict=values)


def ranked(model):
    """Lists of a few histories, as raw ids and scores."""
    histories = [["i3", "i4"], ["i8"], ["i20", "i21", "i22"]]
    lists = [model.recommend(history, k=10) for history in histories]
    return [[(entry["item"], entry["score"]) for entry in entries] for entries in lists]


def test_the_cold_items_are_those_of_the_training_split(run):
    _, model, *_ = load_data_and_model(run["checkpoint"])
    is_cold = model.popularity() == 0
    is_cold[0] = False
    assert torch.equal(model.cold_share.are_cold(), is_cold)
    names = {model.item_tokens[item] for item in is_cold.nonzero().squeeze(1).tolist()}
    assert any(name.startswith("twin-") for name in names)


def test_a_checkpoint_without_its_data_gives_the_lists_of_the_evaluation(run, tmp_path):
    _, model, *_ = load_data_and_model(run["checkpoint"])
    elsewhere = load_model(run["checkpoint"], data_path=str(tmp_path)).model
    assert torch.equal(elsewhere.cold_share.are_cold(), model.cold_share.are_cold())
    lists = ranked(model)
    assert ranked(elsewhere) == lists
    assert any(item.startswith("twin-") for entries in lists for item, _ in entries)

    # and so after an item was added and the model was written again
    elsewhere.add_items([elsewhere.content.text[5]], ["new"])
    elsewhere.save(tmp_path / "again.pth")
    again = load_model(str(tmp_path / "again.pth"), data_path=str(tmp_path)).model
    assert again.cold_share.are_cold().tolist() == [*model.cold_share.are_cold().tolist(), True]
    assert ranked(again) == ranked(elsewhere)


def test_a_checkpoint_that_does_not_name_its_cold_items_says_so(run, tmp_path, caplog):
    state = load_checkpoint(run["checkpoint"])
    state["other_parameter"] = {**state["other_parameter"]}
    del state["other_parameter"]["cold_items"]
    file = tmp_path / "older.pth"
    save_checkpoint(file, state)
    _, with_data, *_ = load_data_and_model(str(file))
    _, model, *_ = load_data_and_model(run["checkpoint"])
    assert ranked(with_data) == ranked(model)
    assert "cold_share" not in caplog.text
    elsewhere = load_model(str(file), data_path=str(tmp_path)).model
    assert ranked(elsewhere)
    assert "does not say which items had no training interactions" in caplog.text


def test_lists_and_all_scores_give_the_same_metrics(run):
    changes = {"metrics": ["Recall", "NDCG", "ItemCoverage"], "topk": [5, 10]}
    ways = []
    for dense in (True, False):
        config, model, *_, test = load_data_and_model(
            run["checkpoint"], dense_scores=dense, exclude_history=True, **changes
        )
        trainer = GenRecTrainer(config, model)
        trainer.eval_collector.data_collect(load_data_and_model(run["checkpoint"]).train)
        metrics = trainer.evaluate(test, load_best_model=False)
        ways.append((metrics, trainer.eval_collector.lists))
        assert model.cold_share.are_cold()[trainer.eval_collector.lists].any()
    assert ways[0][0] == ways[1][0]
    assert torch.equal(ways[0][1], ways[1][1])


def test_a_given_item_has_its_score_in_the_list(run):
    _, model, *_, test = load_data_and_model(run["checkpoint"])
    batch = next(iter(test))[0]
    full = model.full_sort_predict(batch)
    best = full.topk(10, dim=1).indices
    assert model.cold_share.are_cold()[best].any()
    for column in best.unbind(1):
        batch = copy.copy(batch)
        batch.interaction = {**batch.interaction, model.ITEM_ID: column}
        assert torch.equal(model.predict(batch), full.gather(1, column.unsqueeze(1)).squeeze(1))


def test_sums_of_scores_and_samples_are_refused(run, tmp_path):
    checkpoints = [run["checkpoint"], run["checkpoint"]]
    output = str(tmp_path / "both.json")
    with pytest.raises(ConfigError, match="Use --TIGER.cold_share=0"):
        make_ensemble(checkpoints, output, [1.0, 1.0])
    changes = {"TIGER.cold_share": 0.0}
    assert make_ensemble(checkpoints, output, [1.0, 1.0], **changes)["test_result"]
    assert load_recommender(output).model  # the file keeps the change
    file = tmp_path / "file.json"
    write_json(file, EnsembleFile(tuple(checkpoints), (1.0, 1.0)).content(tmp_path))
    with pytest.raises(ConfigError, match="Use --TIGER.cold_share=0"):
        load_recommender(str(file))
    assert load_recommender(str(file), **changes).model

    folder = Path(run["config"]["data_path"]).parent
    with pytest.raises(ConfigError, match="cold_share: 0.5 gives items places in a list of all"):
        toy_config(folder, "TIGER", cold_share=0.5, eval_args={"mode": "uni100"})
