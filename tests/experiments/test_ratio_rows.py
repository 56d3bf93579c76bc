"""ratio_rows: interactions: general models on the rows of sequential ones, by figures and rows."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from toy import write_dataset

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.histories.evaluated_histories import unreachable_targets
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import evaluate
from recbole_genrec.model import outside
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.report.rows import make_rows
from recbole_genrec.report.runs import collect

SPLITS = {
    "by-user": {"split": {"RS": [0.7, 0.1, 0.2]}, "group_by": "user"},
    "over-all": {"split": {"RS": [0.7, 0.1, 0.2]}, "group_by": "none"},
    "by-time": {"split": {"TS": [0.7, 0.1, 0.2]}, "group_by": "user"},
}


class PopularNext(GenRecModel):
    """RecBole's Pop as a sequential model: training interactions of each item, for everybody."""

    def __init__(self, config, dataset, stored=None):
        super().__init__(config, dataset, stored)
        self.unused = nn.Parameter(torch.zeros(1))
        counts = torch.zeros(self.n_items, 1)
        for items in self.content.item_sequences():
            for item in items.tolist():
                counts[item] += 1
        self.register_buffer("counts", counts)

    def loss(self, history, length, target):
        """Nothing to learn."""
        return self.unused.sum()

    def scores(self, history, length):
        """The same for everybody."""
        return (self.counts / self.counts.max()).squeeze(1).expand(len(length), -1).clone()


@pytest.fixture(scope="module", autouse=True)
def its_name():
    """Other files do not know the model."""
    outside.register(PopularNext)
    yield
    outside._classes()._registered.pop("PopularNext")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), n_users=40)


def settings(folder, place, split, **changes):
    values = {
        "data_path": str(folder),
        "checkpoint_dir": str(place),
        "cache_dir": str(place / "cache"),
        "eval_args": {**SPLITS[split], "order": "TO", "mode": "full"},
        "ratio_rows": "interactions",
        "metrics": ["Recall", "NDCG", "MRR", "ItemCoverage", "AveragePopularity", "GiniIndex"],
        "topk": [3, 7],
        "valid_metric": "NDCG@7",
        "epochs": 1,
        "MAX_ITEM_LIST_LENGTH": 4,
        "show_progress": False,
        "gpu_id": "",
    }
    return {**values, **changes}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("split", SPLITS)
def test_a_list_of_popular_items_has_the_same_figures_as_either_kind(
    folder, tmp_path, split, masked
):
    values = settings(folder, tmp_path, split, exclude_history=masked)
    general = run_recbole_genrec("Pop", "toy", config_dict=values)
    sequential = run_recbole_genrec("PopularNext", "toy", config_dict=values)
    assert general["test_result"] == pytest.approx(sequential["test_result"], abs=1e-6)
    assert general["best_valid_result"] == pytest.approx(sequential["best_valid_result"], abs=1e-6)
    assert general["unreachable_targets"] == sequential["unreachable_targets"]
    again = evaluate(general["checkpoint"], show_progress=False)
    assert again["test_result"] == general["test_result"]


def rows_of(folder, model, split, place, **changes):
    config = GenRecConfig(model, "toy", config_dict=settings(folder, place, split, **changes))
    dataset = create_dataset(config)
    loaders = make_loaders(config, dataset, False)
    rows = []
    for loader in loaders[1:]:
        counts: Counter = Counter()
        for interaction, history, positive_u, positive_i in loader:
            assert positive_u.tolist() == list(range(len(interaction)))
            users = dataset.id2token("user_id", interaction["user_id"].numpy())
            items = dataset.id2token("item_id", positive_i.numpy())
            for row, (user, item) in enumerate(zip(users, items, strict=True)):
                left_out = ()
                if history is not None:
                    left_out = history[1][history[0] == row].numpy()
                tokens = frozenset(dataset.id2token("item_id", left_out)) if len(left_out) else ()
                counts[user, item, tokens] += 1
        rows.append(counts)
    return rows, unreachable_targets(*loaders[1:])


@pytest.mark.parametrize("split", SPLITS)
def test_rows_and_histories_are_those_of_a_sequential_model(folder, tmp_path, split):
    general = rows_of(folder, "BPR", split, tmp_path, exclude_history=True)
    sequential = rows_of(folder, "SASRec", split, tmp_path, exclude_history=True)
    assert general == sequential
    assert sum(general[0][1].values()) > 40
    plain = rows_of(folder, "BPR", split, tmp_path)
    assert plain == rows_of(folder, "SASRec", split, tmp_path)


def test_both_kinds_stand_in_one_table(folder, tmp_path):
    values = settings(folder, tmp_path, "by-user", metrics=["Recall", "NDCG"])
    values |= {"SASRec.hidden_size": 16, "SASRec.inner_size": 16}
    results = run_recbole_genrec("SASRec,Pop", "toy", config_dict=values)
    assert {"SASRec", "Pop"} == set(results)
    rows = make_rows(collect([tmp_path])[0])
    assert {row["run"] for row in rows} == {"SASRec", "Pop"}
    assert all(row["details"]["ratio_rows"] == "interactions" for row in rows)
    values["ratio_rows"] = "users"
    with pytest.raises(ConfigError, match="ratio_rows=interactions"):
        run_recbole_genrec("SASRec,Pop", "toy", config_dict=values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eval_args": {**SPLITS["by-user"], "order": "RO", "mode": "full"}}, "order: TO"),
        ({"eval_args": {**SPLITS["by-user"], "order": "TO", "mode": "uni20"}}, "mode: full"),
        ({"repeatable": False}, "exclude_history: True"),
    ],
)
def test_evaluations_without_such_rows_are_refused(folder, tmp_path, change, message):
    with pytest.raises(ConfigError, match=f"ratio_rows: interactions.*{message}"):
        GenRecConfig("Pop", "toy", config_dict=settings(folder, tmp_path, "by-user", **change))


FILES = {"benchmark_filename": ["train", "valid", "test"]}
HEADER = "user_id:token\titem_id:token\ttimestamp:float"


def write_part(folder, part, rows, header=HEADER):
    lines = ["\t".join(map(str, row)) for row in rows]
    (folder / "toy").mkdir(exist_ok=True)
    (folder / "toy" / f"toy.{part}.inter").write_text("\n".join([header, *lines]) + "\n")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files with up to three held-out rows of a user, and users of the test file alone."""
    folder = tmp_path_factory.mktemp("files")
    parts: dict[str, list] = {"train": [], "valid": [], "test": []}
    for user in range(1, 40):
        for step in range(4 + user % 6):
            part = "train" if step < 3 else "valid" if step == 3 else "test"
            part = "test" if user % 8 == 0 else part
            parts[part].append((f"u{user}", f"i{(3 * user + step * step) % 17}", step))
    for part, rows in parts.items():
        write_part(folder, part, rows)
    return folder


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_files_that_are_split_have_the_rows_of_a_sequential_model(files, tmp_path, masked, timed):
    changes = {**FILES, "exclude_history": masked}
    if not timed:
        changes["load_col"] = {"inter": ["user_id", "item_id"]}
    general = rows_of(files, "BPR", "by-user", tmp_path, **changes)
    sequential = rows_of(files, "SASRec", "by-user", tmp_path, **changes)
    assert general == sequential
    test = general[0][1]
    users = Counter(user for user, *_ in test.elements())
    assert users["u8"] == 5  # of six in the test file; nothing comes before the first
    assert max(users.values()) > 1


def test_files_with_histories_have_the_rows_of_a_sequential_model(tmp_path):
    """Session-like rows, of which some have no history."""
    header = HEADER.replace("timestamp", "item_id_list:token_seq\ttimestamp")
    for start, part in enumerate(("train", "valid", "test")):
        rows = []
        for user in range(12):
            items = [f"i{(user + 5 * start + step) % 19}" for step in range(5)]
            for place in range(1 if part == "train" else 0, 5):
                history = " ".join(items[:place])
                rows.append((f"u{user}", items[place], history, 10 * start + place))
        write_part(tmp_path, part, rows, header)
    for masked in (True, False):
        changes = {**FILES, "exclude_history": masked, "topk": [3], "valid_metric": "NDCG@3"}
        general = rows_of(tmp_path, "BPR", "by-user", tmp_path, **changes)
        assert general == rows_of(tmp_path, "SASRec", "by-user", tmp_path, **changes)
        assert sum(general[0][1].values()) == 12 * 4


def test_files_that_are_split_make_one_table_with_these_rows_alone(files, tmp_path):
    values = settings(files, tmp_path, "by-user", metrics=["Recall"], valid_metric="Recall@7")
    values |= {**FILES, "SASRec.hidden_size": 16, "SASRec.inner_size": 16}
    values["ratio_rows"] = "users"
    with pytest.raises(ConfigError, match="SASRec is tested on each of them, Pop once on all"):
        run_recbole_genrec("SASRec,Pop", "toy", config_dict=values)
    values["ratio_rows"] = "interactions"
    results = run_recbole_genrec("SASRec,Pop", "toy", config_dict=values)
    assert results["SASRec"]["tested_pairs"] == results["Pop"]["tested_pairs"]
    assert {row["run"] for row in make_rows(collect([tmp_path])[0])} == {"SASRec", "Pop"}


def test_leave_one_out_has_the_same_rows_anyway(folder, tmp_path, caplog):
    values = settings(folder, tmp_path, "by-user", eval_args={"split": {"LS": "valid_and_test"}})
    create_dataset(GenRecConfig("Pop", "toy", config_dict=values))
    assert "ratio_rows does nothing here" in caplog.text


def test_the_name_of_a_run_from_before_stays(folder, tmp_path):
    values = settings(folder, tmp_path, "by-user", ratio_rows="users")
    name = GenRecConfig("Pop", "toy", config_dict=values).run_name()
    del values["ratio_rows"]
    assert GenRecConfig("Pop", "toy", config_dict=values).run_name() == name
