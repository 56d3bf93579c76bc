"""The report of runs: its numbers against the result files, RecBole's data and exhaustive scores,
and the page in a real browser.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import chromium, errors, open_page, overflow
from toy import TINY_OF, write_dataset

from recbole_genrec.cli import main
from recbole_genrec.decoding import exact_scores
from recbole_genrec.experiments.analysis import analyse
from recbole_genrec.experiments.analysis_lists import HISTORY_EDGES, groups
from recbole_genrec.experiments.report import find_checkpoint, write_report
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.report.ranks import UserRanks

HOSTILE = "<script>document.title = 'broken'</script><b>&"
PLAIN = {"topk": [5, 10], "train_batch_size": 32, "show_progress": False, "gpu_id": ""}
SASREC = {"hidden_size": 16, "inner_size": 16, "n_layers": 1, "MAX_ITEM_LIST_LENGTH": 8}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Result files of TimelineRec (ranks not kept), SASRec (kept) and Pop, and the data."""
    root = tmp_path_factory.mktemp("runs")
    write_dataset(root)
    items = root / "toy" / "toy.item"
    items.write_text(items.read_text().replace("red brush no 1\t", f"{HOSTILE} soap\t"))
    common = {"data_path": str(root), "checkpoint_dir": str(root / "saved")}
    timeline = {**TINY_OF["TimelineRec"], **common, "epochs": 2}
    plain = {**PLAIN, **common, "save_ranks": True}
    files = {}
    for model, settings in (
        ("TimelineRec", timeline),
        ("SASRec", {**plain, **SASREC, "epochs": 1}),
        ("Pop", plain),
    ):
        files[model] = root / f"{model}.json"
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            values = {**settings, "result_file": str(files[model])}
            run_recbole_genrec(model, "toy", config_dict=values)
    return files


@pytest.fixture(scope="module")
def analysis(runs):
    checkpoint = json.loads(runs["TimelineRec"].read_text())["checkpoint"]
    return analyse(checkpoint)


def test_lists_made_again_give_the_metrics_of_the_run(runs, analysis):
    result = json.loads(runs["TimelineRec"].read_text())
    assert analysis.lists.users == analysis.of_users == len(analysis.ranks.users)
    for name, value in result["test_result"].items():
        assert analysis.lists.metrics[name] == pytest.approx(value, abs=1e-6)
        kind, _, k = name.partition("@")
        values = analysis.ranks.recall(int(k)) if kind == "recall" else analysis.ranks.ndcg(int(k))
        assert values.mean() == pytest.approx(value, abs=1e-6)
    own = next(row for row in analysis.widths if row.width == 20)
    search = result["report"]["search"]
    for k, share in own.certified.items():
        assert share == pytest.approx(search[f"certified@{k}"])
    assert own.metrics["recall@10"] == pytest.approx(result["test_result"]["recall@10"], abs=1e-6)


def test_given_codes_rank_the_target_as_exhaustive_scores_do(runs, analysis):
    checkpoint = json.loads(runs["TimelineRec"].read_text())["checkpoint"]
    _, model, _, _, _, test = load_data_and_model(checkpoint)
    codes = model.codes.tolist()
    ranks: dict[int, list[int]] = {given: [] for given in range(len(codes[0]) + 1)}
    for batch, _, _, targets in test:
        scores = exact_scores(model.decoder(batch), model.trie, score_type="renormalised")
        for row, target in zip(scores.tolist(), targets.tolist(), strict=True):
            for given in ranks:
                above = [
                    item
                    for item in range(1, model.n_items)
                    if codes[item][:given] == codes[target][:given] and row[item] > row[target]
                ]
                ranks[given].append(len(above) + 1)
    for row in analysis.given_codes[1:]:
        for k in (1, 5, 10):
            expected = np.mean([rank <= k for rank in ranks[row.n_codes]])
            assert row.metrics[f"recall@{k}"] == pytest.approx(expected)
    assert analysis.given_codes[-1].metrics["recall@1"] == 1
    assert analysis.given_codes[-1].candidates == 1


def test_groups_count_the_files_interactions(runs, analysis):
    last: dict[str, str] = {}
    length: dict[str, int] = {}
    popularity: dict[str, int] = {}
    lines = (runs["Pop"].parent / "toy" / "toy.inter").read_text().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    for user, item, _ in rows:  # written in the order of time
        last[user] = item
        length[user] = length.get(user, -1) + 1
    place: dict[str, int] = {}
    for user, item, _ in rows:
        place[user] = place.get(user, 0) + 1
        if place[user] < length[user]:  # neither the validation nor the test item
            popularity[item] = popularity.get(item, 0) + 1
    assert dict(zip(analysis.ranks.users, analysis.ranks.targets, strict=True)) == last
    assert sum(group.users for group in analysis.lists.history) == len(last)
    for group in analysis.lists.history:
        low, _, high = group.label.replace("+", "–9999").partition("–")
        members = [user for user in last if int(low) <= length[user] <= int(high or low)]
        assert group.users == len(members)
    for group in analysis.lists.popularity:
        low, _, high = group.label.replace("+", "–9999").partition("–")
        counts = [popularity.get(item, 0) for item in last.values()]
        assert group.users == sum(int(low) <= count <= int(high or low) for count in counts)
    for example in analysis.lists.examples:
        assert example.n_history == length[example.user]
        assert example.target.token == last[example.user]
        places = [n for n, listed in enumerate(example.items, 1) if listed.is_target]
        assert places == ([example.rank] if example.rank else [])


def test_levels_and_tree_hold_every_item_once(analysis):
    tokens = []

    def walk(node):
        for item in node.items:
            assert item.codes[: len(node.codes)] == node.codes
            tokens.append(item.token)
        assert node.n_items == sum(child.n_items for child in node.children) + len(node.items)
        for child in node.children:
            walk(child)

    walk(analysis.codes.tree)
    assert sorted(tokens) == sorted(f"i{number}" for number in range(40))
    assert analysis.codes.levels[0].prefixes == len(analysis.codes.tree.children)
    assert analysis.codes.levels[-1].sharing == 0  # the extra token tells all items apart


def test_page_needs_no_network_and_escapes_texts(runs, tmp_path):
    page = write_report([runs["TimelineRec"]], tmp_path / "one.html")
    text = page.read_text()
    assert page.stat().st_size < 10_000_000
    assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=", text)
    assert text.count("plotly.js v") == 1
    assert HOSTILE not in text
    assert "&lt;script&gt;document.title" in text


def test_a_run_without_its_checkpoint_says_so(runs, tmp_path):
    result = json.loads(runs["TimelineRec"].read_text())
    result["checkpoint"] = "saved/gone.pth"
    alone = tmp_path / "alone.json"
    alone.write_text(json.dumps(result))
    text = write_report([alone]).read_text()
    assert text.count("The checkpoint saved/gone.pth is not there") >= 4
    assert "No intervals" in text
    assert str(result["report"]["tokenizer"]["unique_ids"]) in text
    assert find_checkpoint("saved/gone.pth", alone) is None
    exported = tmp_path / "exported"
    exported.mkdir()
    assert find_checkpoint(str(exported), alone) == exported


def test_data_that_changed_since_the_test_are_not_analysed(runs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(runs["Pop"].parent / "toy", data / "toy")
    assert "so the checkpoint is not" not in one_page(runs, tmp_path, data_path=str(data))
    file = data / "toy" / "toy.inter"
    user = file.read_text().splitlines()[1].split("\t")[0]
    file.write_text(f"{file.read_text()}{user}\ti1\t9999999999\n")
    text = one_page(runs, tmp_path, data_path=str(data))
    assert text.count("The data of toy changed since the test") >= 4
    assert 'class="tree"' not in text
    candidates = tmp_path / "few.txt"
    candidates.write_text("\n".join(f"i{number}" for number in range(20)))
    text = one_page(runs, tmp_path, candidate_file=str(candidates))
    assert "The test ranked other items than candidate_file names now" in text


def one_page(runs, tmp_path, **changes):
    return write_report([runs["TimelineRec"]], tmp_path / "one.html", **changes).read_text()


def test_users_without_a_history_are_a_group():
    ranks = UserRanks(np.array([1, 1, 0]), ("a", "b", "c"), 10)
    found = groups([0, 0, 2], HISTORY_EDGES, ranks)
    assert [(group.label, group.users) for group in found] == [("0", 2), ("2", 1)]


def test_a_page_lies_beside_a_result_of_any_name(runs, tmp_path):
    for model in ("SASRec", "Pop"):
        shutil.copy(runs[model], tmp_path / f"toy.{model}")
        write_report([tmp_path / f"toy.{model}"], analysis=False)
    pages = sorted(file.name for file in tmp_path.glob("*.html"))
    assert pages == ["toy.Pop.html", "toy.SASRec.html"]


def test_a_sample_of_users_is_named_as_one(runs, tmp_path):
    page = tmp_path / "few.html"
    assert main(["report", str(runs["TimelineRec"]), f"--output={page}", "--users=20"]) == 0
    assert "20 of 60 test users" in page.read_text()


def test_unknown_baseline_is_named(runs, capsys):
    files = [str(runs["Pop"]), str(runs["SASRec"])]
    assert main(["report", *files, "--baseline=SASrec", "--no_analysis"]) == 2
    assert "Did you mean" in capsys.readouterr().err


def test_report_in_a_browser(runs, tmp_path):
    """Values, tree, filter, figures: as a person sees them."""
    page = write_report([runs["TimelineRec"]], tmp_path / "one.html")
    result = json.loads(runs["TimelineRec"].read_text())
    with chromium() as driver:
        from selenium.webdriver.support.ui import WebDriverWait

        open_page(driver, page)
        assert driver.title == "TimelineRec-clusters on toy"
        for cell in driver.find_elements("css selector", "table.metrics td.value"):
            value = result["test_result"][cell.get_attribute("data-metric")]
            assert float(cell.get_attribute("data-value")) == value
            assert float(cell.text) == pytest.approx(value, abs=6e-5)
        best = max(result["epochs"], key=lambda epoch: epoch["valid"]["ndcg@10"])["epoch"]
        assert driver.find_element("css selector", ".best-epoch").text == str(best + 1)

        tree = driver.find_element("css selector", ".tree")
        branch = tree.find_element("css selector", "details details")
        leaf = branch.find_element("css selector", ".leaf")
        assert not leaf.is_displayed()
        for node in leaf.find_elements("xpath", "ancestor::details"):  # from the root down
            if node.get_attribute("open") is None:
                node.find_element("css selector", "summary").click()
        assert leaf.is_displayed()
        driver.find_element("css selector", "input[type=search]").send_keys("lotion no 5")
        shown = [
            leaf for leaf in tree.find_elements("css selector", ".leaf") if leaf.is_displayed()
        ]
        assert shown and all("lotion no 5" in leaf.text for leaf in shown)

        figures = driver.find_elements("css selector", ".figure")
        assert len(figures) >= 7
        for figure in figures:
            driver.execute_script("arguments[0].scrollIntoView()", figure)
            WebDriverWait(driver, 60).until(
                lambda _, place=figure: place.get_attribute("data-drawn")
            )
            assert figure.find_elements("css selector", ".main-svg")
        points = driver.execute_script(
            "return document.querySelector('#run-0-map .figure').data[0].x.length"
        )
        assert points == 40
        assert overflow(driver) <= 0
        assert errors(driver) == []

        open_page(driver, page, width=390, theme="dark")
        assert overflow(driver) <= 0
        colour = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", colour))) < 60


def test_several_runs_side_by_side_in_a_browser(runs, tmp_path):
    page = tmp_path / "many.html"
    files = [str(file) for file in runs.values()]
    assert main(["report", *files, f"--output={page}", "--baseline=SASRec"]) == 0
    results = {name: json.loads(file.read_text()) for name, file in runs.items()}
    with chromium() as driver:
        open_page(driver, page)
        table = driver.find_element("css selector", "#side-by-side")
        headings = [cell.text.split()[0] for cell in table.find_elements("css selector", "th")]
        column = headings.index("ndcg@10")
        for rows in (1, 2):  # a second click turns the order round
            table.find_elements("css selector", "th")[column].click()
            cells = table.find_elements("css selector", f"tbody td:nth-child({column + 1})")
            shown = [float(cell.get_attribute("data-value")) for cell in cells]
            values = [result["test_result"]["ndcg@10"] for result in results.values()]
            assert shown == sorted(values, reverse=rows == 1)
        tests = driver.find_elements("css selector", "#paired-tests tbody tr")
        assert len(tests) == 2 * len(results["Pop"]["test_result"])
        first = tests[0].find_elements("css selector", "td")
        assert first[0].text.startswith("TimelineRec")
        difference = (
            results["TimelineRec"]["test_result"][first[1].text]
            - results["SASRec"]["test_result"][first[1].text]
        )
        assert float(first[2].get_attribute("data-value")) == pytest.approx(difference, abs=2e-6)
        assert errors(driver) == []


def test_leaderboard_page_in_a_browser(runs, tmp_path, capsys):
    folder = tmp_path / "board"
    files = [str(file) for file in runs.values()]
    assert main(["leaderboard", *files, "--baseline=SASRec", f"--output={folder}"]) == 0
    board = json.loads((folder / "leaderboard.json").read_text())
    with chromium() as driver:
        open_page(driver, folder / "leaderboard.html")
        for row in board["rows"]:
            for metric, value in row["test"].items():
                cell = driver.find_element(
                    "css selector", f"tr[data-run='{row['run']}'] td[data-metric='{metric}']"
                )
                assert float(cell.get_attribute("data-value")) == value["mean"]
        names = [row["run"] for row in board["rows"]]
        driver.find_element("css selector", "table.accuracy th").click()
        rows = driver.find_elements("css selector", "table.accuracy tbody tr")
        assert [row.get_attribute("data-run") for row in rows] == sorted(names, key=str.lower)
        assert errors(driver) == []
        open_page(driver, folder / "leaderboard.html", width=390)
        assert overflow(driver) <= 0


def test_latex_of_a_leaderboard(runs, tmp_path, capsys):
    folder = tmp_path / "board"
    files = [str(file) for file in runs.values()]
    assert main(["leaderboard", *files, f"--output={folder}"]) == 0
    text = (folder / "leaderboard.tex").read_text()
    board = json.loads((folder / "leaderboard.json").read_text())
    for word in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}"):
        assert text.count(word) == 1
    best = max(row["test"]["recall@10"]["mean"] for row in board["rows"])
    assert rf"\textbf{{{best:.4f}}}" in text
    lines = [line for line in text.splitlines() if line.startswith("TimelineRec")]
    assert len(lines) == 1 and lines[0].count("&") == len(board["rows"][0]["test"])


def test_run_with_report(runs, tmp_path, capsys):
    words = ["--model=Pop", "--dataset=toy", f"--data_path={runs['Pop'].parent}", "--topk=[5,10]"]
    assert main(["run", *words, "--show_progress=False", "--report"]) == 0
    (page,) = Path("saved").glob("Pop-toy-*.html")
    assert str(page) in capsys.readouterr().out
    assert "Which users are served" in page.read_text()


def test_a_run_that_held_nothing_out_has_codes_and_no_lists(runs, tmp_path):
    file = tmp_path / "all.json"
    values = {**TINY_OF["TimelineRec"], "data_path": str(runs["Pop"].parent), "hold_out": False}
    values |= {"epochs": 1, "result_file": str(file)}
    run_recbole_genrec("TimelineRec", "toy", config_dict=values)
    text = write_report([file]).read_text()
    assert "The run held nothing out, so there is no test." in text
    assert "No lists of users: The run held nothing out" in text
    assert 'class="tree"' in text


@pytest.mark.parametrize("model", ["STORE", "TIGER", "TokenRec", "SETRec"])
def test_every_kind_of_method_has_a_report(runs, tmp_path, model):
    file = tmp_path / f"{model}.json"
    values = {**TINY_OF[model], "data_path": str(runs["Pop"].parent), "exclude_history": True}
    values |= {"epochs": 1, "result_file": str(file)}
    result = run_recbole_genrec(model, "toy", config_dict=values)
    found = analyse(result["checkpoint"])
    for name, value in result["test_result"].items():
        assert found.lists.metrics[name] == pytest.approx(value, abs=1e-6)
    assert (not isinstance(found.search, str)) == ("search" in result["report"])
    if not isinstance(found.search, str):
        reachable = 1 - result["unreachable_targets"]["test"] / found.lists.users
        assert found.given_codes[-1].metrics["recall@1"] == pytest.approx(reachable)
    text = write_report([file]).read_text()
    assert ('class="tree"' in text) == (model != "SETRec")
    assert "history masked</dt><dd>yes" in text


def test_a_model_that_scores_all_items_at_once(runs, tmp_path):
    file = tmp_path / "flat.json"
    values = {**TINY_OF["TimelineRec"], "data_path": str(runs["Pop"].parent), "output": "items"}
    values |= {"epochs": 1, "result_file": str(file), "score_mode": "auto"}
    result = run_recbole_genrec("TimelineRec", "toy", config_dict=values)
    found = analyse(result["checkpoint"])
    assert found.given_codes[0].metrics["recall@10"] == pytest.approx(
        result["test_result"]["recall@10"], abs=1e-6
    )
    assert found.given_codes[-1].metrics["recall@1"] == 1
    assert "This model scores all items at once" in write_report([file]).read_text()
