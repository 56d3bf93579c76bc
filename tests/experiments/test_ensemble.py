"""Ensembles of runs: aligned rows, weights from validation, lists, refusals."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import SMALL, TINY_OF, write_dataset

import recbole_genrec
from recbole_genrec.cli import main
from recbole_genrec.data.histories.evaluated_histories import EXCLUDED
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.experiments import ensemble
from recbole_genrec.experiments.ensemble import make_ensemble
from recbole_genrec.experiments.ensemble_file import FORMAT, EnsembleFile
from recbole_genrec.experiments.ensemble_lists import EnsembleLists
from recbole_genrec.experiments.ensemble_members import load_members
from recbole_genrec.experiments.loading import load_data_and_model, load_model, load_recommender
from recbole_genrec.experiments.report import write_report
from recbole_genrec.experiments.results_beside import cost_of_trainings
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import evaluate, recommend
from recbole_genrec.model import outside
from recbole_genrec.model.lists.catalogue import Catalogue
from recbole_genrec.report.comparable import different_settings
from recbole_genrec.report.leaderboard import make_leaderboard
from recbole_genrec.report.ranks import UserRanks, evaluated_cases
from recbole_genrec.serving.job_key import weights_key
from recbole_genrec.storage.artefacts import write_json


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("ensemble")


@pytest.fixture(scope="module")
def runs(home):
    """Results of a tree, of SASRec with shorter histories, and of LightGCN."""
    folder = write_dataset(home / "data")
    shared = {
        "data_path": str(folder),
        "checkpoint_dir": str(home / "saved"),
        "cache_dir": str(home / "cache"),
        "save_ranks": True,
        "topk": [5, 10],
        "valid_users": 0,
    }
    tree = {**TINY_OF["TimelineRec"], "depth": "none", "item_parts": ["id"], "score_mode": "auto"}
    results = {}
    for model, values in {
        "TimelineRec": tree,
        "SASRec": {**SMALL, "MAX_ITEM_LIST_LENGTH": 5},
        "LightGCN": SMALL,
    }.items():
        settings = {**values, **shared}
        results[model] = run_recbole_genrec(model, "toy", config_dict=settings)
    return {name: result["checkpoint"] for name, result in results.items()}


@pytest.fixture(scope="module")
def searched(home, runs):
    """The file of an ensemble of two TIGERs with a narrow search, and their checkpoints."""
    settings = {
        **TINY_OF["TIGER"],
        "data_path": str(home / "data"),
        "checkpoint_dir": str(home / "saved"),
        "cache_dir": str(home / "cache"),
        "epochs": 1,
        "topk": [3],
        "valid_metric": "NDCG@3",
        "beam_width": 3,
    }
    checkpoints = [
        run_recbole_genrec("TIGER", "toy", config_dict={**settings, "seed": seed})["checkpoint"]
        for seed in (1, 2)
    ]
    file = home / "searched.json"
    make_ensemble(checkpoints, file, weights=[1.0, 1.0])
    return str(file), checkpoints


def log_probs(checkpoint):
    """log-softmax of the test scores by user and target; the slow way, batch by batch."""
    _, model, dataset, _, _, test = load_data_and_model(checkpoint)
    users, targets = evaluated_cases(test)
    tokens = dataset.field2id_token[dataset.iid_field]
    rows = []
    with torch.no_grad():
        for interaction, *_ in test:
            scores = model.full_sort_predict(interaction).view(-1, len(tokens)).clone()
            scores[:, 0] = -torch.inf
            rows.append(scores.log_softmax(1))
    return dict(zip(zip(users, targets, strict=True), torch.cat(rows), strict=True)), tokens


def rank_of(scores, tokens, target):
    column = list(tokens).index(target)
    return int((scores > scores[column]).sum()) + 1


@pytest.mark.parametrize("other", ["SASRec", "LightGCN"])
def test_the_sum_is_made_of_the_rows_of_the_same_user(runs, home, other):
    output = home / f"sum-{other}.json"
    result = make_ensemble([runs["TimelineRec"], runs[other]], output, weights=[1.0, 2.0])
    one, tokens = log_probs(runs["TimelineRec"])
    two, other_tokens = log_probs(runs[other])
    assert list(tokens) == list(other_tokens)
    ranks = UserRanks.load(output.parent / result["ranks"])
    expected = [
        rank_of(one[user, target] + 2 * two[user, target], tokens, target)
        for user, target in zip(ranks.users, ranks.targets, strict=True)
    ]
    shown = [rank if rank <= 10 else 0 for rank in expected]
    assert ranks.ranks.tolist() == shown
    hits = np.mean([1 <= rank <= 10 for rank in expected])
    assert result["test_result"]["recall@10"] == pytest.approx(hits, abs=1e-5)


def test_a_model_added_to_itself_is_the_model(runs, home):
    alone = evaluate(runs["TimelineRec"])["test_result"]
    twice = make_ensemble([runs["TimelineRec"]] * 2, home / "twice.json")
    assert twice["test_result"] == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("dense", [False, "auto"])
def test_members_whose_evaluations_hold_lists_are_added(runs, home, monkeypatch, dense):
    """The sum needs the scores of all items, whatever the members or the catalogue ask for."""
    checkpoints = [runs["TimelineRec"], runs["SASRec"]]
    expected = make_ensemble(checkpoints, home / "dense.json", weights=[1.0, 2.0])
    monkeypatch.setattr("recbole_genrec.training.list_evaluation.LARGE_CATALOGUE", 10)
    file = home / f"lists-{dense}.json"
    result = make_ensemble(checkpoints, file, weights=[1.0, 2.0], dense_scores=dense)
    assert result["test_result"] == expected["test_result"]
    assert evaluate(str(file), dense_scores=dense)["test_result"] == expected["test_result"]


def test_weights_come_from_validation(runs, home):
    checkpoints = [runs["SASRec"], runs["TimelineRec"]]
    result = make_ensemble(checkpoints, home / "chosen.json")
    chosen = [member["weight"] for member in result["members"]]
    valid = {}
    for weight in (0.25, 0.5, 1.0, 2.0, 4.0):
        # the validation rows of both, added the slow way
        members = [load_data_and_model(checkpoint) for checkpoint in checkpoints]
        totals = None
        for factor, (_, model, *_, loader, _) in zip((1.0, weight), members, strict=True):
            with torch.no_grad():
                scores = torch.cat([model.full_sort_predict(batch[0]) for batch in loader])
            scores = scores.clone()
            scores[:, 0] = -torch.inf
            part = factor * scores.log_softmax(1)
            totals = part if totals is None else totals + part
        targets = members[0].valid._dataset.inter_feat["item_id"]
        of_target = totals.gather(1, targets.unsqueeze(1))
        rank = (totals >= of_target).sum(1)
        valid[weight] = float(torch.where(rank <= 10, 1 / torch.log2(rank + 1.0), 0.0).mean())
    assert valid[chosen[1]] == pytest.approx(max(valid.values()), abs=1e-6)
    assert result["best_valid_score"] == pytest.approx(max(valid.values()), abs=1e-5)


def test_members_are_tested_on_the_items_of_the_data_alone(searched, tmp_path):
    checkpoints = []
    for number, checkpoint in enumerate(searched[1]):
        model = load_model(checkpoint).model
        model.add_items(["soft new soap"], ["new"])
        checkpoints.append(str(tmp_path / f"{number}.pth"))
        model.save(checkpoints[-1])
    with pytest.raises(ArtefactError, match=r"0\.pth holds items that add_items added \(1\)"):
        make_ensemble(checkpoints, tmp_path / "both.json", weights=[1, 1])


def test_lists_longer_than_the_catalogue_are_refused(runs, tmp_path):
    members = [runs["LightGCN"], runs["SASRec"]]
    with pytest.raises(ConfigError, match="asks for more items than the 40 of toy"):
        make_ensemble(members, tmp_path / "both.json", weights=[1, 1], topk=[41])


def test_it_is_tested_recommended_and_ranked_like_a_model(runs, home):
    folder = home / "ranked"
    folder.mkdir()
    output = folder / "both.json"
    result = make_ensemble([runs["TimelineRec"], runs["SASRec"]], output, weights=[1, 1])
    again = evaluate(str(output))
    assert again["test_result"] == result["test_result"]
    trained = [
        json.loads(Path(runs[name]).with_suffix(".json").read_text())["cpu_seconds"]["train"]
        for name in ("TimelineRec", "SASRec")
    ]
    for tested in (result, again):
        assert tested["cpu_seconds"]["train"] == pytest.approx(sum(trained))
    masked_file = home / "masked.json"
    masked = evaluate(str(output), result_file=masked_file, exclude_history=True)
    assert masked["history_masked"]
    ranks = UserRanks.load(home / "masked.ranks")
    assert ranks.ndcg(10).mean() == pytest.approx(masked["test_result"]["ndcg@10"], abs=1e-6)
    for file in (folder / "both.result.json", masked_file):
        page = write_report([file]).read_text()
        assert "An ensemble has no codes and no search of its own" in page

    history = ["i1", "i2", "i3", "i4", "i5", "i6", "i7"]
    rows = recommend(str(output), history=history, k=40)
    one = {
        row["item"]: row["score"] for row in recommend(runs["TimelineRec"], history=history, k=40)
    }
    two = {row["item"]: row["score"] for row in recommend(runs["SASRec"], history=history, k=40)}
    normal = torch.tensor(list(two.values())).logsumexp(0).item()
    for row in rows:
        expected = one[row["item"]] + two[row["item"]] - normal
        assert row["score"] == pytest.approx(expected, abs=1e-3)
    table = load_recommender(str(output)).model.recommend_all(users=["u1", "u2"], k=3)
    assert table["user_id"].tolist() == ["u1"] * 3 + ["u2"] * 3
    assert "TimelineRec + SASRec" in make_leaderboard([str(folder)], None, None)
    assert recbole_genrec.load(output).recommend(history, k=40) == rows
    opened = recbole_genrec.load(output.with_suffix(".result.json"))
    assert opened["test_result"] == result["test_result"]


@pytest.mark.parametrize("masked", [False, True])
def test_lists_are_what_the_test_ranks(searched, masked):
    file, checkpoints = searched
    total = 0.0
    for checkpoint in checkpoints:
        _, model, *_, test = load_data_and_model(checkpoint, exclude_history=masked)
        batch = next(iter(test))[0]
        total = total + model.full_sort_predict(batch).log_softmax(1)
    lists = load_recommender(file).model
    tokens = lists.item_tokens
    for row, best in enumerate(total.topk(3).indices.tolist()):
        history = batch["item_id_list"][row, : batch["item_length"][row]].tolist()
        excluded = [item for item in batch[EXCLUDED][row].tolist() if item] if masked else []
        rows = lists.recommend(
            [tokens[item] for item in history],
            k=3,
            excluded=[tokens[item] for item in excluded],
        )
        assert [shown["item"] for shown in rows] == [tokens[item] for item in best]


@pytest.mark.parametrize(
    "options", [{}, {"exclude_seen": False}, {"candidates": [f"i{n}" for n in range(20)]}]
)
def test_longer_lists_are_those_of_all_scores(searched, options):
    """Members search as wide as a list is long, among the items that may be in it."""
    beams = load_recommender(searched[0]).model.recommend_all(k=10, **options)
    exact = load_recommender(searched[0], score_mode="exact").model.recommend_all(k=10, **options)
    assert beams["item_id"].tolist() == exact["item_id"].tolist()
    assert len(beams) == 10 * beams["user_id"].nunique()


def test_it_keeps_the_settings_that_it_was_judged_with(runs, searched, home):
    checkpoints = [runs["TimelineRec"], runs["SASRec"]]
    file = home / "masked-sum.json"
    changes = {"exclude_history": True, "show_progress": False}
    made = make_ensemble(checkpoints, file, weights=[1.0, 1.0], **changes)
    assert json.loads(file.read_text())["changes"] == {"exclude_history": True}
    again = evaluate(str(file))
    assert made["history_masked"] and again["history_masked"]
    assert again["test_result"] == made["test_result"]
    assert not evaluate(str(file), exclude_history=False)["history_masked"]
    history = ["i1", "i2", "i3"]
    items = {row["item"] for row in recommend(str(file), history=history, k=40)}
    assert items.isdisjoint(history) and len(items) == 37

    kept = EnsembleFile(("a", "b"), (1.0, 1.0), {"TIGER.cold_share": 0, "topk": [3]})
    assert kept.changed({"cold_share": 0.5}) == {"cold_share": 0.5, "topk": [3]}
    with pytest.raises(ConfigError, match="hidden_size cannot be changed for a trained model"):
        make_ensemble(checkpoints, file, weights=[1.0, 1.0], hidden_size=8)


def test_paths_may_begin_with_the_home_folder(runs, home, tmp_path, monkeypatch):
    for name in ("TimelineRec", "SASRec"):
        shutil.copy(runs[name], tmp_path / f"{name}.pth")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(home)
    checkpoints = ["~/TimelineRec.pth", "~/SASRec.pth"]
    made = make_ensemble(checkpoints, "~/both.json", weights=[1.0, 1.0])
    again = evaluate("~/both.json", result_file="~/again.json")
    assert again["test_result"] == made["test_result"]
    assert (tmp_path / "again.json").is_file() and not (home / "~").exists()
    assert recommend("~/both.json", history=["i1", "i2"])
    assert recbole_genrec.load("~/both.json").recommend(["i1", "i2"])


def test_a_result_is_not_taken_for_what_was_tested(runs, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_ensemble([runs["TimelineRec"], runs["SASRec"]], "both.json", exclude_history=True)
    evaluate("both.json", result_file="again.json")
    single = str(Path(runs["SASRec"]).with_suffix(".json"))
    tested = {"both.result.json": "both.json", "again.json": "both.json", single: runs["SASRec"]}
    for result, name in tested.items():
        for use in (evaluate, load_recommender, load_data_and_model):
            with pytest.raises(ArtefactError, match=f"holds no model. Name what was .*: {name}"):
                use(result)
        assert recbole_genrec.load(result)["test_result"]
    Path("other.json").write_text("{}")
    with pytest.raises(ArtefactError, match=r"other\.json is no ensemble and no checkpoint"):
        evaluate("other.json")


def test_given_and_chosen_weights_are_no_seeds_of_one_row(runs, home, tmp_path):
    members = [runs["TimelineRec"], runs["SASRec"]]
    results = {}
    for name, weights in {"chosen": None, "equal": [1, 1], "other": [1, 4]}.items():
        file = tmp_path / f"{name}.json"
        results[name] = make_ensemble(members, file, weights)["config"]
        assert evaluate(str(file))["config"]["weights"] == results[name]["weights"]
    assert results["chosen"]["weights"] == "chosen" and results["equal"]["weights"] == [1, 1]
    for one, other in itertools.combinations(results.values(), 2):
        assert different_settings(one, other) == ["weights"]
    older = json.loads((tmp_path / "chosen.json").read_text())
    del older["chosen"]
    write_json(tmp_path / "older.json", older)
    assert "weights" not in evaluate(str(tmp_path / "older.json"))["config"]


def test_quiet_commands(runs, home, capsys):
    checkpoints = f"--checkpoints={runs['TimelineRec']},{runs['SASRec']}"
    file = home / "quiet.json"
    assert main(["ensemble", checkpoints, "--weights=1,1", f"--output={file}", "--quiet"]) == 0
    assert main(["evaluate", f"--checkpoint={file}", "--quiet"]) == 0
    assert "history masked" in capsys.readouterr().out


def test_a_new_item_that_a_member_lacks_stays_out(runs, searched, home, tmp_path, caplog):
    """Ours takes it in without training, RecBole's cannot."""
    later = tmp_path / "later"
    shutil.copytree(home / "data", later)
    with (later / "toy" / "toy.inter").open("a") as rows:
        rows.write("u1\ti40\t98\nu2\ti40\t99\n")
    with (later / "toy" / "toy.item").open("a") as rows:
        rows.write("i40\tsoft soap no 40\tbrand4\n")
    ours = searched[1][0]
    assert load_recommender(ours, data_path=str(later)).model.catalogue.has_item("i40")
    for number, members in enumerate([(ours, runs["SASRec"]), (runs["SASRec"], ours)]):
        file = tmp_path / f"{number}.json"
        write_json(file, EnsembleFile(members, (1.0, 1.0)).content(tmp_path))
        with caplog.at_level(logging.WARNING):
            lists = load_recommender(str(file), data_path=str(later)).model
        assert "1 items are not known to all members" in caplog.text
        assert "'i40', which SASRec does not know" in caplog.text
        caplog.clear()
        table = lists.recommend_all(k=40, exclude_seen=False)
        assert set(table["item_id"]) == {f"i{item}" for item in range(40)}
        titles = dict(zip(table["item_id"], table["title"], strict=True))
        assert titles["i3"].startswith("red mirror")


def test_a_member_that_needs_users_of_its_training_gets_no_other(runs, tmp_path):
    file = tmp_path / "both.json"
    members = runs["LightGCN"], runs["SASRec"]
    write_json(file, EnsembleFile(members, (1.0, 1.0)).content(tmp_path))
    with pytest.raises(ConfigError, match="LightGCN knows people by their user ids alone"):
        recommend(str(file), history=["i1", "i2"])
    assert recommend(str(file), user="u1")


def test_a_class_from_outside_is_named_for_its_members_alone(
    runs, home, tmp_path, monkeypatch, capsys
):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "model" / "outside"))
    settings = {**SMALL, "data_path": str(home / "data"), "checkpoint_dir": str(tmp_path)}
    name = "mean_text:MeanText"
    own = run_recbole_genrec(name, "toy", config_dict={**settings, "epochs": 1})["checkpoint"]
    monkeypatch.setattr(outside, "_classes", cache(outside._classes.__wrapped__))  # another process

    file = tmp_path / "both.json"
    words = ["ensemble", f"--checkpoints={runs['SASRec']},{own}", f"--output={file}"]
    assert main([*words, "--weights=1,1"]) == 2
    assert f"--model={name}" in capsys.readouterr().err
    assert main([*words, "--weights=1,1", f"--model={name}"]) == 0
    for use in (evaluate, load_recommender):
        monkeypatch.setattr(outside, "_classes", cache(outside._classes.__wrapped__))
        with pytest.raises(ArtefactError, match="not part of this package"):
            use(str(file))
        assert use(str(file), model_class=name)


def test_what_members_decided_after_their_training_is_part_of_the_cost(tmp_path):
    cost = {"data": 9.0, "train": 4.0, "fit": 6.0, "valid": 1.0, "test": 9.0}
    write_json(tmp_path / "a.json", {"cpu_seconds": {**cost, "after_fit": 2.0}})
    write_json(tmp_path / "b.json", {"cpu_seconds": cost})
    both = cost_of_trainings([str(tmp_path / "a.pth"), str(tmp_path / "b.pth")])
    assert both == {"train": 8.0, "fit": 12.0, "valid": 2.0, "after_fit": 2.0}
    assert cost_of_trainings([str(tmp_path / "b.pth")]).keys() == {"train", "fit", "valid"}


def test_an_ensemble_whose_member_was_trained_anew_makes_other_lists(tmp_path):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(name.encode())
    file = tmp_path / "both.json"
    checkpoints = str(tmp_path / "a.pth"), str(tmp_path / "b.pth")
    write_json(file, EnsembleFile(checkpoints, (1.0, 2.0)).content(tmp_path))
    before = weights_key(str(file))
    assert weights_key(str(file)) == before
    (tmp_path / "b.pth").write_bytes(b"trained anew")
    assert weights_key(str(file)) != before


def test_members_leave_no_file_of_tensorboard_open(runs):
    members = load_members([runs["TimelineRec"], runs["SASRec"]], {})
    assert [member.trainer.tensorboard.file_writer for member in members] == [None, None]


def test_members_may_number_users_differently(runs):
    """The second member is the first one with its users in the reverse order."""
    first, other = (load_recommender(runs["LightGCN"]) for _ in range(2))
    users = first.model.catalogue.users
    order = [0, *range(len(users) - 1, 0, -1)]
    with torch.no_grad():
        of_users, of_items = other.model.model.forward()
    other.model.model.restore_user_e = of_users[order]
    other.model.model.restore_item_e = of_items
    other.model.catalogue = Catalogue(other.model.item_tokens, [users[row] for row in order])
    alone = first.model.recommend_all(k=5)
    both = EnsembleLists([first, other], [1.0, 1.0]).recommend_all(k=5)
    assert both["user_id"].tolist() == alone["user_id"].tolist()
    assert both["item_id"].tolist() == alone["item_id"].tolist()


def test_a_user_whom_one_member_knows_is_known_in_any_order(runs):
    first, other = (load_recommender(runs["SASRec"]) for _ in range(2))
    users = first.model.catalogue.users
    first.model.catalogue = Catalogue(first.model.item_tokens, users[:-1])
    for order in ([first, other], [other, first]):
        assert EnsembleLists(order, [1.0, 1.0]).catalogue.users == users


def test_a_file_in_a_linked_folder_names_its_members(runs, tmp_path):
    (tmp_path / "far" / "away").mkdir(parents=True)
    folder = tmp_path / "link"
    folder.symlink_to(tmp_path / "far" / "away")
    members = runs["TimelineRec"], runs["SASRec"]
    file = folder / "both.json"
    write_json(file, EnsembleFile(members, (1.0, 1.0)).content(folder))
    read = EnsembleFile.read(file).checkpoints
    assert [Path(path).resolve() for path in read] == [Path(path).resolve() for path in members]


def test_scores_that_are_no_numbers_choose_no_weights(runs, tmp_path, monkeypatch):
    stacked = ensemble._stacked

    def without_numbers(members, cases):
        log_probs, rows, targets = stacked(members, cases)
        return torch.full_like(log_probs, torch.nan), rows, targets

    monkeypatch.setattr(ensemble, "_stacked", without_numbers)
    with pytest.raises(ConfigError, match="no numbers"):
        make_ensemble([runs["TimelineRec"], runs["SASRec"]], tmp_path / "a.json")


def test_weights_that_are_no_numbers(capsys):
    assert main(["ensemble", "--checkpoints=a.pth,b.pth", "--weights=1,heavy"]) == 2
    assert "--weights=1,heavy must be numbers" in capsys.readouterr().err


def test_what_does_not_fit_is_refused(runs, home, tmp_path):
    tree, flat = runs["TimelineRec"], runs["SASRec"]
    with pytest.raises(ConfigError, match="two checkpoints"):
        make_ensemble([tree], tmp_path / "one.json")
    with pytest.raises(ConfigError, match="2 checkpoints and 3 weights"):
        make_ensemble([tree, flat], tmp_path / "a.json", weights=[1, 2, 3])
    with pytest.raises(ConfigError, match="above 0"):
        make_ensemble([tree, flat], tmp_path / "a.json", weights=[1, 0])
    other = {
        **SMALL,
        "data_path": str(home / "data"),
        "checkpoint_dir": str(tmp_path),
        "exclude_history": True,
        "epochs": 1,
    }
    masked = run_recbole_genrec("SASRec", "toy", config_dict=other)["checkpoint"]
    with pytest.raises(ConfigError, match="exclude_history"):
        make_ensemble([tree, masked], tmp_path / "a.json")
    make_ensemble([tree, masked], tmp_path / "a.json", weights=[1, 1], exclude_history=True)
    data = write_dataset(tmp_path / "more", n_items=30)
    elsewhere = {**other, "data_path": str(data), "exclude_history": False}
    smaller = run_recbole_genrec("SASRec", "toy", config_dict=elsewhere)["checkpoint"]
    with pytest.raises(ConfigError, match="different|cannot be added"):
        make_ensemble([tree, smaller], tmp_path / "a.json")
    (tmp_path / "b.json").write_text(
        json.dumps({"format": FORMAT, "members": [{"checkpoint": "gone.pth"}]})
    )
    with pytest.raises(ArtefactError, match="is no ensemble"):
        evaluate(str(tmp_path / "b.json"))
    for members in ([], [{"checkpoint": flat, "weight": 1}]):
        (tmp_path / "b.json").write_text(json.dumps({"format": FORMAT, "members": members}))
        for use in (evaluate, load_recommender):
            with pytest.raises(ArtefactError, match="needs two checkpoints or more. Make it again"):
                use(str(tmp_path / "b.json"))
    (tmp_path / "b.json").write_text('{"members": [')
    for use in (evaluate, load_recommender, recbole_genrec.load):
        with pytest.raises(ArtefactError, match="is damaged .* Make it again with"):
            use(str(tmp_path / "b.json"))
    with pytest.raises(ConfigError, match="load_recommender"):
        load_data_and_model(str(tmp_path / "a.json"))
