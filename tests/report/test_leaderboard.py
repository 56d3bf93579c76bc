"""Per-user ranks against RecBole's metrics, the significance tests against scipy's, and the
tables made of result files.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.stats import false_discovery_control
from toy import TINY, write_dataset

from recbole_genrec.cli import main
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.experiments.report import write_report
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.report.latex import latex
from recbole_genrec.report.leaderboard import make_leaderboard
from recbole_genrec.report.leaderboard_page import leaderboard_page
from recbole_genrec.report.ranks import UserRanks, digest_of_test, ranks_folder, ranks_from_hits
from recbole_genrec.report.rows import make_rows
from recbole_genrec.report.runs import collect
from recbole_genrec.report.significance import bootstrap_interval, compare, sign_flip_p
from recbole_genrec.storage.artefacts import load_artefact, save_artefact, write_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The toy dataset with its rows in another order and a user with two interactions, whom
    sequential models cannot be tested on.
    """
    root = write_dataset(tmp_path_factory.mktemp("data"))
    file = root / "toy" / "toy.inter"
    header, *rows = file.read_text().splitlines()
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))] + [
        "short\ti1\t0",
        "short\ti2\t1",
    ]
    file.write_text("\n".join([header, *rows]) + "\n")
    return root


def settings(folder, **changes):
    return {**TINY, "data_path": str(folder), "epochs": 1, "save_ranks": True, **changes}


SASREC = {"hidden_size": 16, "inner_size": 16, "n_layers": 1}


@pytest.mark.parametrize(("model", "changes"), [("Pop", {}), ("SASRec", SASREC), ("STORE", {})])
def test_ranks_give_recboles_metrics_and_belong_to_their_users(folder, model, changes):
    known = (
        settings(folder, **changes)
        if model == "STORE"
        else {k: v for k, v in settings(folder, **changes).items() if k in PLAIN}
    )
    result = run_recbole_genrec(model, "toy", config_dict=known)
    file = Path(result["checkpoint"]).with_suffix(".json")
    assert result["ranks"] == ranks_folder(file).name
    ranks = UserRanks.load(ranks_folder(file))
    assert ranks.test_digest == digest_of_test(json.loads(file.read_text())["test_result"])
    assert ranks.depth == 10 and ranks.ranks.max() <= 10
    for k in (5, 10):
        assert ranks.recall(k).mean() == pytest.approx(
            result["test_result"][f"recall@{k}"], abs=1e-6
        )
        assert ranks.ndcg(k).mean() == pytest.approx(result["test_result"][f"ndcg@{k}"], abs=1e-6)
    last: dict[str, tuple[float, str]] = {}  # the test target of each user, from the file
    for line in (folder / "toy" / "toy.inter").read_text().splitlines()[1:]:
        user, item, time = line.split("\t")
        last[user] = max(last.get(user, (-1.0, "")), (float(time), item))
    assert set(ranks.users) - {"short"} == set(last) - {"short"}
    _, network, dataset, _, _, test = load_data_and_model(result["checkpoint"])
    found = dict(zip(ranks.users, ranks.ranks.tolist(), strict=True))
    for batch, *_ in test:
        scores = network.full_sort_predict(batch).view(len(batch), -1)
        for user, row in zip(
            dataset.id2token("user_id", batch["user_id"].numpy()), scores, strict=True
        ):
            target = row[dataset.token2id("item_id", last[user][1])]
            above, level = int((row[1:] > target).sum()), int((row[1:] >= target).sum())
            assert above < found[user] <= level if found[user] else level > 10, user
    assert set(result["cpu_seconds"]) == {
        "data",
        "model_and_tokenizer",
        "fit",
        "train",
        "valid",
        "test",
    }
    assert (
        result["cpu_seconds"]["fit"]
        >= result["cpu_seconds"]["train"] + result["cpu_seconds"]["valid"]
        > 0
    )


PLAIN = {
    "data_path",
    "epochs",
    "save_ranks",
    "MAX_ITEM_LIST_LENGTH",
    "topk",
    "show_progress",
    "gpu_id",
    "train_batch_size",
    *SASREC,
}


def test_ranks_of_a_hit_matrix():
    hits = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 1]], dtype=torch.int)
    ranks = UserRanks(ranks_from_hits(hits), ("a", "b", "c"), 3)
    assert ranks.ranks.tolist() == [2, 0, 1]
    assert ranks.recall(1).tolist() == [0, 0, 1]
    assert ranks.ndcg(3).tolist() == pytest.approx([1 / np.log2(3), 0, 1])
    with pytest.raises(ConfigError, match="down to place 3"):
        ranks.ndcg(10)


def test_ranks_need_one_target_a_user_and_full_ranking(folder):
    known = {k: v for k, v in settings(folder, **SASREC).items() if k in PLAIN}
    split = {"split": {"RS": [0.5, 0.2, 0.3]}, "group_by": "user", "order": "TO", "mode": "full"}
    with pytest.raises(ConfigError, match="one test target a user"):
        run_recbole_genrec("SASRec", "toy", config_dict={**known, "eval_args": split})
    sampled = {
        "split": {"LS": "valid_and_test"},
        "group_by": "user",
        "order": "TO",
        "mode": "uni20",
    }
    with pytest.raises(ConfigError, match="mode: full"):
        run_recbole_genrec("SASRec", "toy", config_dict={**known, "eval_args": sampled})


def test_result_files_that_differ_after_a_dot_have_ranks_of_their_own(tmp_path):
    stems = {"toy.SASRec": 1, "toy.Pop": 0}
    for stem, rank in stems.items():
        file = result_file(tmp_path, stem, stem[4:], 1, 0.01, ranks={"x": rank, "y": rank})
        file = file.rename(tmp_path / stem)
        (tmp_path / f"{stem}.ranks").rename(ranks_folder(file))
    assert [ranks_folder(tmp_path / stem).name for stem in stems] == [
        "toy.SASRec.ranks",
        "toy.Pop.ranks",
    ]
    assert ranks_folder("q/toy.json") == Path("q/toy.ranks")
    rows = make_rows(collect([tmp_path / stem for stem in stems])[0], "SASRec")
    (tested,) = [row["against_baseline"] for row in rows if row["against_baseline"]]
    assert tested["difference"] == -1


def test_ranks_of_another_test_are_refused(tmp_path):
    file = result_file(tmp_path, "a", "SASRec", 1, 0.01, ranks={"x": 1})
    of_test = {"recall@10": 0.02, "ndcg@10": 0.01}
    own = UserRanks(np.array([1]), ("x",), 10, test_digest=digest_of_test(of_test))
    for ranks in (own, own.without_names()):
        ranks.save(tmp_path / "a.ranks")
        assert make_leaderboard([file])
    other = UserRanks(np.array([1]), ("x",), 10, test_digest=digest_of_test({"ndcg@10": 0.9}))
    for ranks in (other, other.without_names()):
        ranks.save(tmp_path / "a.ranks")
        with pytest.raises(ArtefactError, match=r"a\.ranks holds the ranks of another test .*a\.j"):
            make_leaderboard([file])


def test_damaged_ranks_are_refused(tmp_path):
    UserRanks(np.array([1, 0]), ("a", "b"), 10).save(tmp_path / "x.ranks")
    (file,) = (tmp_path / "x.ranks").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtefactError, match="truncated"):
        UserRanks.load(tmp_path / "x.ranks")


# --- significance ---------------------------------------------------------------------------------


def test_ranks_of_long_lists(tmp_path):
    ranks = UserRanks(np.array([1, 40_000]), ("a", "b"), 50_000, ("x", "y"))
    ranks.save(tmp_path / "x.ranks")
    assert UserRanks.load(tmp_path / "x.ranks").ranks.tolist() == [1, 40_000]
    tensors, meta = load_artefact(tmp_path / "x.ranks", "")
    earlier = {**tensors, "ranks": tensors["ranks"].to(torch.int16)}
    save_artefact(tmp_path / "earlier.ranks", earlier, meta)
    with pytest.raises(ArtefactError, match="Run or evaluate the model again"):
        UserRanks.load(tmp_path / "earlier.ranks")


def test_ranks_are_small_and_those_of_earlier_versions_load(tmp_path):
    users = tuple(f"A{number * 7919:013X}" for number in range(5000))
    targets = tuple(f"B{number % 900:09d}" for number in range(5000))
    ranks = UserRanks(np.arange(5000) % 21, users, 20, targets)
    ranks.save(tmp_path / "new.ranks")
    size = sum(file.stat().st_size for file in (tmp_path / "new.ranks").iterdir())
    assert size < 20 * 5000
    tensors = {"ranks": torch.from_numpy(ranks.ranks).to(torch.int16)}
    meta = {"users": list(users), "targets": list(targets), "depth": 20}
    save_artefact(tmp_path / "old.ranks", tensors, meta)
    for name in ("new.ranks", "old.ranks"):
        loaded = UserRanks.load(tmp_path / name)
        assert (loaded.users, loaded.targets, loaded.depth) == (users, targets, 20)
        assert (loaded.ranks == ranks.ranks).all()


def test_the_permutation_test_is_scipys():
    differences = np.array([0.3, -0.1, 0.0, 0.25, 0.4, -0.05, 0.1, 0.2, 0.0, 0.15, -0.2, 0.3])
    exact = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="two-sided",
    )
    assert sign_flip_p(differences) == pytest.approx(exact.pvalue, abs=0.01)
    assert sign_flip_p(-differences) == pytest.approx(exact.pvalue, abs=0.01)
    assert sign_flip_p(differences) == sign_flip_p(differences)


def test_p_is_never_zero_and_one_without_a_difference():
    assert sign_flip_p(np.ones(200), repeats=99) == 1 / 100
    assert sign_flip_p(np.zeros(10)) == 1.0
    assert sign_flip_p(np.array([0.1, -0.1])) == 1.0  # sums that differ by rounding alone


def test_the_bootstrap_interval_is_scipys():
    differences = np.random.default_rng(1).normal(0.2, 1.0, 80).round(1)
    expected = stats.bootstrap(
        (differences,), np.mean, n_resamples=20_000, method="percentile", random_state=2
    ).confidence_interval
    assert bootstrap_interval(differences) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_users_are_paired_by_id_and_seeds_by_number():
    run = {
        1: {"a": 1.0, "b": 0.0, "c": 0.5},
        2: {"c": 0.0, "b": 0.0, "a": 0.5},
        3: {"a": 9.0, "b": 9.0, "c": 9.0},
    }
    other = {2: {"b": 0.25, "a": 0.0, "c": 0.0, "d": 1.0}, 1: {"c": 0.5, "a": 0.0, "b": 0.25}}
    found = compare(run, other)
    assert (found.users, found.seeds) == (3, (1, 2))
    assert found.difference == pytest.approx(statistics.fmean([0.75, -0.25, 0.0]))
    assert found.low <= found.difference <= found.high
    assert compare({1: {"a": 1.0}}, {2: {"a": 1.0}}) is None


# --- tables ---------------------------------------------------------------------------------------


def result_file(folder, stem, model, seed, ndcg, tokenizer=None, ranks=None, **config):
    report = {}
    if tokenizer:
        before = {"items": 4, "unique_ids": 3, "collision_rate": 0.5, "largest_group": 2}
        levels = [{"size": 8, "perplexity": 4.0 + seed}, {"size": 2, "perplexity": 1.5}]
        stats_ = {"levels": levels, "unique_ids": 4, "before": before, "fit_cpu_seconds": 7.0}
        report = {"tokenizer": stats_, "search": {"certified@10": 0.25}}
    content = {
        "model": model,
        "dataset": "toy",
        "seed": seed,
        "test_result": {"recall@10": 2 * ndcg, "ndcg@10": ndcg},
        "best_valid_result": {"recall@10": 1.0, "ndcg@10": 0.5},
        "parameters": 1234,
        "report": report,
        "cpu_seconds": {
            "data": 1.0,
            "model_and_tokenizer": 9.0,
            "fit": 60.0,
            "train": 50.0,
            "valid": 8.0,
            "test": 3.0,
        },
        "ranks": f"{stem}.ranks" if ranks else None,
        "command": f"recbole-genrec run --model={model} --dataset=toy --seed={seed} "
        "--data_path=/home/data --resume --result_file=x.json",
        "commit": "abc",
        "versions": {"torch": "2"},
        "config": {
            "tokenizer": tokenizer,
            "seed": seed,
            "beam_width": 20,
            "learning_rate": 0.001,
            "data_path": f"/{seed}",
            **config,
        },
    }
    write_json(folder / f"{stem}.json", content)
    if ranks:
        UserRanks(np.array(list(ranks.values())), tuple(ranks), 10).save(folder / f"{stem}.ranks")
    return folder / f"{stem}.json"


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    result_file(folder, "a1", "SASRec", 1, 0.04, ranks={"x": 1, "y": 0, "z": 3})
    result_file(folder, "a2", "SASRec", 2, 0.05, ranks={"x": 1, "y": 0, "z": 0})
    result_file(folder, "b1", "STORE", 1, 0.06, "store", ranks={"z": 3, "x": 2, "y": 1})
    result_file(folder, "b2", "STORE", 2, 0.07, "store", ranks={"y": 1, "z": 1, "x": 1})
    return folder


def test_rows_hold_means_costs_codes_and_the_paired_test(results):
    best, base = make_rows(collect([results])[0], "SASRec")
    assert (best["run"], best["tokenizer"], best["seeds"]) == ("STORE-store", "store", [1, 2])
    assert best["test"]["ndcg@10"] == {
        "mean": pytest.approx(0.065),
        "std": pytest.approx(statistics.stdev([0.06, 0.07])),
        "n": 2,
    }
    assert best["cpu_seconds"] == {
        "tokenizer": 7.0,
        "training": 50.0,
        "validation": 8.0,
        "test": 3.0,
    }
    assert best["certified"] == 0.25 and best["parameters"] == 1234
    assert best["codes"]["perplexity"] == [5.5, 1.5] and best["codes"]["collision_rate"] == 0.5
    gain = {"x": (1 / np.log2(3) - 1 + 0) / 2, "y": 1.0, "z": (0 + 1) / 2}
    assert best["against_baseline"]["difference"] == pytest.approx(statistics.fmean(gain.values()))
    assert best["against_baseline"]["seeds"] == [1, 2] and base["against_baseline"] is None
    assert (
        base["is_baseline"] and base["codes"] is None and base["cpu_seconds"]["tokenizer"] is None
    )


def rows_of(results):
    return {row["run"]: row for row in make_rows(collect([results])[0], "SASRec")}


def test_p_values_are_corrected_for_the_number_of_rows(results):
    result_file(results, "c1", "Pop", 1, 0.01, ranks={"x": 0, "y": 0, "z": 0})
    result_file(results, "d1", "GRU4Rec", 1, 0.01, ranks={"x": 0, "y": 2, "z": 3})
    tests = [row["against_baseline"] for row in rows_of(results).values() if not row["is_baseline"]]
    corrected = false_discovery_control([test["p"] for test in tests])
    assert [test["p_adjusted"] for test in tests] == pytest.approx(list(corrected))


def test_page_and_latex_show_the_corrected_p_of_the_rows(results):
    result_file(results, "c1", "Pop", 1, 0.01, ranks={"x": 0, "y": 0, "z": 0})
    rows = make_rows(collect([results])[0], "SASRec")
    for row, corrected in zip(rows, (0.0123, None, 0.4), strict=True):
        if corrected is not None:
            row["against_baseline"]["p_adjusted"] = corrected
    page = leaderboard_page(rows, "ndcg@10")
    assert '<td class="number significant" data-value="0.0123">0.012</td>' in page
    assert '<td class="number" data-value="0.4">0.400</td>' in page
    assert "over the 2 runs of this table" in page
    assert latex(rows).count("$^{*}$ &") == 1 and "STORE-store$^{*}$ &" in latex(rows)


def test_what_is_decided_after_the_training_counts_as_validation(results):
    content = json.loads((results / "a1.json").read_text())
    costs = {**content["cpu_seconds"], "after_fit": 4.0}
    write_json(results / "a1.json", {**content, "cpu_seconds": costs})
    write_json(results / "a2.json", {**content, "seed": 2, "cpu_seconds": costs})
    ensemble = {"data": 1.0, "weights": 2.0, "test": 3.0, "train": 50.0, "fit": 60.0, "valid": 8.0}
    file = result_file(results, "e", "SASRec + Pop", 1, 0.01)
    write_json(file, {**json.loads(file.read_text()), "cpu_seconds": ensemble})
    rows = rows_of(results)
    assert rows["SASRec"]["cpu_seconds"]["validation"] == 12.0
    assert rows["SASRec + Pop"]["cpu_seconds"]["validation"] == 10.0
    assert rows["STORE-store"]["cpu_seconds"]["validation"] == 8.0


def test_a_flat_twin_is_named_by_what_its_items_are(results):
    for number, parts in enumerate((["text"], ["id"], ["id", "text"], None)):
        file = result_file(results, f"flat{number}", "TimelineRec", 1, 0.01, item_parts=parts)
        content = json.loads(file.read_text())
        write_json(file, {**content, "report": {"heads": ["flat"]}})
    names = {run.name for run in collect([results])[0]}
    names = {name.partition(" item_parts")[0] for name in names if "flat" in name}
    assert names == {
        "TimelineRec flat (SASRec-T)",
        "TimelineRec flat (SASRec)",
        "TimelineRec flat (SASRec-ID+T)",
        "TimelineRec flat",
    }


def test_markdown_csv_and_json(results, tmp_path, capsys):
    assert (
        main(["leaderboard", str(results), "--baseline=SASRec", f"--output={tmp_path / 'out'}"])
        == 0
    )
    text = (tmp_path / "out" / "leaderboard.md").read_text()
    assert text in capsys.readouterr().out
    p_value = rows_of(results)["STORE-store"]["against_baseline"]["p"]
    assert f"| {p_value:.4f} | {p_value:.4f} |" in text  # one comparison needs no correction
    assert text.index(
        "| STORE-store | STORE | store | 2/2 | 3 | 0.1300 ± 0.0141 | 0.0650 ± 0.0071 | 0.5000"
    ) < text.index("| SASRec |")
    assert (
        "`recbole-genrec run --model=STORE --dataset=toy --seed=1 --data_path=DATA`, seeds "
        "1, 2, commit abc" in text
    )
    assert (
        "beam_width 20" in text
        and "/home" not in text
        and "| baseline |" in text
        and "6/8, 2/2" in text
    )
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "leaderboard.csv").read_text())))
    assert [row["run"] for row in rows] == ["STORE-store", "SASRec"]
    assert float(rows[0]["test.ndcg@10.mean"]) == pytest.approx(0.065) and rows[0]["seeds"] == "1;2"
    stored = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert stored["baseline"] == "SASRec" and stored["rows"][0]["run"] == "STORE-store"


def test_runs_of_one_model_are_told_apart_by_what_differs(results):
    result_file(results, "c1", "SASRec", 1, 0.01, learning_rate=0.1)
    names = {run.name for run in collect([results])[0]}
    assert names == {"STORE-store", "SASRec learning_rate=0.001", "SASRec learning_rate=0.1"}


def test_keys_of_today_that_change_nothing_do_not_name_a_row(results):
    result_file(results, "c1", "Pop", 1, 0.01, topk=[10])
    result_file(results, "c2", "Pop", 2, 0.02, topk=[10], ema_decay=0.0, si_interval=4)
    result_file(results, "d1", "BPR", 1, 0.01)
    result_file(results, "d2", "BPR", 1, 0.02, ema_decay=0.99)
    runs = {(run.name, run.seed) for run in collect([results])[0]}
    assert {("Pop", 1), ("Pop", 2), ("BPR", 1), ("BPR ema_decay=0.99", 1)} <= runs


def test_seeds_of_other_settings_and_other_protocols_are_refused(results, tmp_path):
    state = {"threads": 1, "baseline": None}
    for folder, seed, rate in (("one", 1, 0.1), ("two", 2, 0.2)):
        result_file(tmp_path / folder, "a", "SASRec", seed, 0.01, learning_rate=rate)
        entry = {
            "name": "S",
            "dataset": "toy",
            "seed": seed,
            "model": "SASRec",
            "tokenizer": None,
            "status": "done",
            "error": None,
        }
        write_json(
            tmp_path / folder / "runs.json", {**state, "runs": [{**entry, "result": "a.json"}]}
        )
    with pytest.raises(
        ConfigError,
        match="a.json cannot be seeds of one run: they differ in learning_rate \\(0.1 and 0.2\\)",
    ):
        make_leaderboard([tmp_path / "one", tmp_path / "two"])
    full, sampled = (
        {"split": {"LS": "valid_and_test"}, "mode": {"valid": "full", "test": mode}}
        for mode in ("full", "uni100")
    )
    only_valid = {**full, "mode": {"valid": "uni100", "test": "full"}}
    for number, protocol in enumerate((full, only_valid)):
        result_file(tmp_path / "valid", f"a{number}", "SASRec", number, 0.01, eval_args=protocol)
        result_file(
            tmp_path / "test",
            f"a{number}",
            f"Model{number}",
            1,
            0.01,
            eval_args=(full, sampled)[number],
        )
    assert collect([tmp_path / "valid"])
    with pytest.raises(ConfigError, match="cannot be rows of one table: they differ in eval_args"):
        make_leaderboard([tmp_path / "test"])


def test_users_are_paired_where_the_test_item_is_the_same(tmp_path):
    for number, targets in enumerate((("i1", "i2"), ("i1", "i3"))):
        file = result_file(
            tmp_path, f"r{number}", f"Model{number}", 1, 0.01, ranks={"x": 1, "y": 1}
        )
        UserRanks(np.array([1, number]), ("x", "y"), 10, targets).save(ranks_folder(file))
    rows = {row["run"]: row for row in make_rows(collect([tmp_path])[0], "Model0")}
    assert (
        rows["Model1"]["against_baseline"]["users"] == 1
        and rows["Model1"]["against_baseline"]["difference"] == 0.0
    )


def test_a_row_that_cannot_be_tested_is_named(results):
    result_file(results, "c1", "Pop", 1, 0.01)
    assert "Not tested against the baseline: Pop." in make_leaderboard([results], baseline="SASRec")
    (results / "b1.ranks").rename(results / "moved")
    (results / "b2.ranks").rename(results / "moved2")
    assert "Not tested against the baseline: STORE-store, Pop." in make_leaderboard(
        [results], baseline="SASRec"
    )


def test_rows_are_ordered_by_a_figure_that_all_have(tmp_path):
    for name, value in (("A", 0.1), ("B", 0.2)):
        file = result_file(
            tmp_path, name, name, 1, 0.5, ranks={"x": 1, "y": 0 if name == "A" else 2}
        )
        content = json.loads(file.read_text())
        write_json(file, {**content, "test_result": {"recall@3": 0.3, "ndcg@3": value}})
    rows = make_rows(collect([tmp_path])[0], "A")
    assert [row["run"] for row in rows] == ["B", "A"]
    assert rows[0]["against_baseline"]["difference"] == pytest.approx(1 / np.log2(3) / 2)


def test_a_result_of_few_entries_has_its_row(tmp_path):
    file = result_file(tmp_path, "a", "SASRec", 1, 0.01, ranks={"x": 1})
    content = json.loads(file.read_text())
    for name in ("parameters", "versions", "commit", "cpu_seconds", "best_valid_result"):
        del content[name]
    write_json(file, content)
    rows = make_rows(collect([tmp_path])[0])
    assert "| SASRec | - |" in make_leaderboard([tmp_path])
    page = leaderboard_page(rows, "ndcg@10")
    assert '<td>SASRec</td><td class="number">–</td>' in page
    assert write_report([file], analysis=False).is_file()


def test_a_metric_that_one_seed_lacks_is_left_out(results):
    content = json.loads((results / "a2.json").read_text())
    write_json(results / "a2.json", {**content, "test_result": {"ndcg@10": 0.05}})
    assert list(rows_of(results)["SASRec"]["test"]) == ["ndcg@10"]
    assert list(rows_of(results)["STORE-store"]["test"]) == ["recall@10", "ndcg@10"]


def test_wrong_requests_are_refused(results, tmp_path):
    with pytest.raises(ConfigError, match="Did you mean SASRec"):
        make_leaderboard([results], baseline="SASrek")
    with pytest.raises(ArtefactError, match="does not exist"):
        make_leaderboard([tmp_path / "nowhere.json"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "tuning.json").write_text(
        '{"model": "Pop", "test_result": {"ndcg@10": 0.1}}'
    )
    with pytest.raises(ArtefactError, match="no result file"):
        make_leaderboard([tmp_path / "empty"])
    with pytest.raises(ConfigError, match="same run, dataset and seed"):
        make_leaderboard([results, results / "a1.json"])
