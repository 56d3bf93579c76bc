"""Going on: warm starts, more epochs, training on everything, runs without a validation part."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from interruptions import interrupted_in
from test_second_day import second_day, settings
from toy import write_dataset

from recbole_genrec.cli import main
from recbole_genrec.data.histories.choices import histories
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.data.preparation import prepare, sources
from recbole_genrec.errors import ArtefactError, ConfigError, DataError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import evaluate, load_data_and_model, load_model
from recbole_genrec.report.ranks import UserRanks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


def run(folder, model="TimelineRec", **changes):
    if model == "SASRec":
        options = {"data_path": str(folder), "epochs": 1, "show_progress": False}
    else:
        options = settings(folder, model)
    options |= {"checkpoint_dir": "saved", **changes}
    return run_recbole_genrec(model, "toy", config_dict=options)


@pytest.mark.parametrize("model", ["TimelineRec", "SASRec"])
def test_a_warm_start_on_grown_data(folder, tmp_path, model):
    first = run(folder, model)
    later = second_day(tmp_path / "later", folder)
    untrained = run(later, model, init_from=first["checkpoint"], epochs=0)
    before = torch.load(first["checkpoint"], weights_only=True)
    after = torch.load(untrained["checkpoint"], weights_only=True)
    items = before["ids"]["items"]
    assert after["ids"]["items"][: len(items)] == items
    assert sorted(after["ids"]["items"][len(items) :]) == ["i40", "i41"]
    for name, weight in before["state_dict"].items():
        grown = after["state_dict"][name]
        if name == "codes_version":
            continue
        if name == "id_table":  # its row of the padding item is never read
            grown, weight = grown[1:], weight[1:]
        rows = grown if weight.dim() == 0 else grown[: len(weight)]
        assert torch.equal(rows, weight), name

    trained = run(later, model, init_from=first["checkpoint"], epochs=1)
    if model == "TimelineRec":
        anew = run(later, model, checkpoint_dir="anew")
        assert trained["epochs"][0]["loss"][0] < anew["epochs"][0]["loss"][0]
    again = evaluate(trained["checkpoint"], show_progress=False)
    assert again["test_result"] == pytest.approx(trained["test_result"], abs=1e-6)
    assert "--init_from=" in trained["command"]


IMPROVES = {
    "self_improve": True,
    "epochs": 3,
    "si_start_epoch": 1,
    "si_interval": 1,
    "si_rounds": 1,
    "si_freeze_epochs": 1,
    "si_margin": 0.0,
}


@pytest.mark.parametrize("words", [{}, {"si_embed_text": "text"}])
@pytest.mark.parametrize("model", ["TIGER", "TokenRec"])
def test_self_improvement_starts_from_a_host_and_once_more(folder, model, words):
    host = run(folder, model)
    first = run(folder, model, init_from=host["checkpoint"], **IMPROVES, **words)
    assert len(first["report"]["self_improve"]["refreshes"]) == 1

    second = run(folder, model, init_from=first["checkpoint"], **IMPROVES, **words)
    assert [entry["round"] for entry in second["report"]["self_improve"]["refreshes"]] == [1]

    plain = run(folder, model, init_from=second["checkpoint"], epochs=0)
    stored = [
        torch.load(result["checkpoint"], weights_only=True)["state_dict"]
        for result in (second, plain)
    ]
    assert torch.equal(stored[0]["codes"], stored[1]["codes"])
    assert not [name for name in stored[1] if name.startswith("self_improvement")]


def test_a_self_improved_start_keeps_what_reads_the_content(folder):
    first = run(folder, "TIGER", **IMPROVES)
    second = run(
        folder, "TIGER", init_from=first["checkpoint"], **IMPROVES | {"epochs": 0, "si_rounds": 0}
    )
    before, after = (
        torch.load(result["checkpoint"], weights_only=True)["state_dict"]
        for result in (first, second)
    )
    prefix = "self_improvement.item_prefix."
    for name in before:
        if name.startswith(prefix):
            assert torch.equal(before[name], after[name]), name
    assert before["self_improvement.epoch"] > 0 and after["self_improvement.epoch"] == 0


def test_a_warm_start_of_another_model(folder):
    first = run(folder, "SASRec")
    with pytest.raises(ConfigError, match="holds SASRec, but TimelineRec is to be trained"):
        run(folder, init_from=first["checkpoint"])


RATIO = {"split": {"RS": [8, 1, 1]}, "order": "TO", "group_by": "user", "mode": "full"}


def test_a_warm_start_lacks_no_weight(folder):
    first = run(folder, "SASRec", n_layers=1)
    with pytest.raises(ArtefactError, match=r"does not fit the model: missing .*layer\.1\."):
        run(folder, "SASRec", n_layers=2, init_from=first["checkpoint"])


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ({"hold_out": False}, {}, "trained with hold_out: False, and this run has True"),
        (
            {"eval_args": RATIO},
            {},
            "trained with eval_args: split: .*Use the same eval_args: split",
        ),
        ({"cold_users": 0.2}, {"cold_users": 0.2, "seed": 7}, "trained with seed: 2020, .* has 7"),
        ({}, {"cold_users": 0.2}, "trained with cold_users: 0.* Use the same cold_users, seed, or"),
    ],
)
def test_a_warm_start_from_weights_that_know_the_test(folder, before, now, message):
    first = run(folder, "SASRec", epochs=0, **before)
    with pytest.raises(ConfigError, match=message):
        run(folder, "SASRec", init_from=first["checkpoint"], **now)


def without_the_last_day(folder: Path, old: Path) -> Path:
    """The same data before each user's last choice."""
    target = folder / "toy"
    shutil.copytree(old / "toy", target)
    header, *rows = (target / "toy.inter").read_text().splitlines()
    by_user: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: float(row.split("\t")[2])):
        by_user.setdefault(row.split("\t")[0], []).append(row)
    kept = [row for user in by_user.values() for row in user[:-1]]
    (target / "toy.inter").write_text("\n".join([header, *kept]) + "\n")
    return folder


def test_weights_that_are_newer_than_the_data_are_noticed(folder, tmp_path, caplog):
    sentence = "are not those of its training"
    earlier = without_the_last_day(tmp_path / "earlier", folder)
    first = run(earlier, "SASRec", epochs=0)
    grown = run(folder, "SASRec", epochs=0, init_from=first["checkpoint"])
    assert sentence not in caplog.text

    run(earlier, "SASRec", epochs=0, init_from=grown["checkpoint"])
    assert caplog.text.count(sentence) == 1
    evaluate(grown["checkpoint"], data_path=str(earlier), show_progress=False)
    assert caplog.text.count(sentence) == 2
    drawn = run(earlier, "SASRec", epochs=0, cold_users=0.2)
    with pytest.raises(ConfigError, match=f"{sentence}.*Train from the beginning"):
        run(folder, "SASRec", init_from=drawn["checkpoint"], cold_users=0.2)


def test_a_warm_start_keeps_the_codes_and_their_settings(folder):
    sizes = {"codebook_sizes": [10, 5]}
    first = run(folder, "TIGER", epochs=0, tokenizer="random", **sizes)
    left_out = {**settings(folder, "TIGER"), "epochs": 0, "checkpoint_dir": "saved"}
    del left_out["codebook_sizes"]
    again = {**left_out, "init_from": first["checkpoint"], "seed": 7}
    second = run_recbole_genrec("TIGER", "toy", config_dict=again)
    assert second["config"]["tokenizer"] == "random"
    assert second["config"]["codebook_sizes"] == [10, 5]
    evaluated = evaluate(second["checkpoint"])
    assert evaluated["report"] == second["report"]

    with pytest.raises(ConfigError, match=r"with codebook_sizes: \[10, 5\], and this run has \[20"):
        run_recbole_genrec("TIGER", "toy", config_dict={**again, "codebook_sizes": [20, 5]})
    with pytest.raises(ConfigError, match="with tokenizer: random, and this run has rkmeans"):
        run_recbole_genrec("TIGER", "toy", config_dict={**again, "TIGER.tokenizer": "rkmeans"})


def test_a_warm_start_that_tests_nothing_takes_any_weights(folder):
    first = run(folder, "SASRec", epochs=0, eval_args=RATIO)
    result = run(folder, "SASRec", epochs=0, init_from=first["checkpoint"], hold_out=False)
    assert result["test_result"] == {}


# case 50
def test_an_interrupted_run_goes_on_with_more_epochs(folder, monkeypatch):
    schedule = {"lr_scheduler": "constant"}  # another one would stretch over all epochs
    with interrupted_in(1, monkeypatch):
        run(folder, epochs=2, **schedule)
    resumed = run(folder, epochs=4, resume=True, **schedule)
    assert [epoch["epoch"] for epoch in resumed["epochs"]] == [0, 1, 2, 3]
    whole = run(folder, epochs=4, checkpoint_dir="whole", **schedule)
    assert resumed["test_result"] == whole["test_result"]
    assert [epoch["loss"] for epoch in resumed["epochs"]] == [
        epoch["loss"] for epoch in whole["epochs"]
    ]


# case 50
def test_a_finished_run_with_more_epochs(folder):
    first = run(folder, epochs=2)
    assert not list(Path("saved").glob("*.resume.pth"))
    with pytest.raises(
        ConfigError, match="differs in epochs: it had 2, and now epochs is 4.*--init"
    ):
        run(folder, epochs=4, resume=True)
    assert run(folder, epochs=2, resume=True) == json.loads(json.dumps(first))


def test_training_on_everything(folder):
    result = run(folder, hold_out=False, epochs=2, stopping_step=1)
    assert result["test_result"] == {} and result["best_valid_result"] is None
    assert len(result["epochs"]) == 2
    config, model, *_ = load_data_and_model(result["checkpoint"])
    dataset = create_dataset(config)
    bought = histories(dataset)
    assert dict(zip(bought, map(len, bought.values()), strict=True))
    sequences = model.content.interactions.sequences
    assert sequences == {user: bought[user] for user in sequences}
    assert sum(map(len, sequences.values())) == sum(map(len, bought.values()))
    every = make_loaders(config, create_dataset(config), False)
    assert every[1:] == (None, None)
    assert load_model(result["checkpoint"]).model.recommend(["i1"])
    with pytest.raises(ConfigError, match="hold_out: False., so nothing is held out"):
        evaluate(result["checkpoint"])


def test_training_on_everything_of_other_splits(folder):
    ratio = {"split": {"RS": [8, 1, 1]}}
    parts = [run(folder, eval_args=ratio, epochs=1), run(folder, hold_out=False, eval_args=ratio)]
    lengths = []
    for result in parts:
        trained = load_data_and_model(result["checkpoint"])
        lengths.append(len(trained.train.counted))
    assert lengths[0] < lengths[1]


def test_the_last_epoch_is_validated(folder):
    epochs = run(folder, epochs=3, eval_step=2)["epochs"]
    assert [epoch["epoch"] for epoch in epochs if "valid" in epoch] == [1, 2]


def test_no_validation(folder):
    result = run(folder, eval_step=0, epochs=2)
    assert result["best_valid_result"] is None and set(result["test_result"]) >= {"recall@5"}
    assert run(folder, eval_step=0, eval_args={"split": {"LS": "test_only"}})["test_result"]
    with pytest.raises(DataError, match="validation split of toy is empty.*--eval_step=0"):
        run(folder, eval_args={"split": {"LS": "test_only"}})


def test_a_command_recorded_from_python_repeats_the_run(folder, capsys):
    result = run(folder, epochs=1, result_file="first.json")
    words = shlex.split(result["command"])
    assert words[:2] == ["recbole-genrec", "run"]
    again = [word for word in words[1:] if not word.startswith("--result_file")]
    assert main([*again, "--result_file=again.json", "--checkpoint_dir=other"]) == 2  # said twice
    again = [word for word in again if not word.startswith("--checkpoint_dir")]
    assert main([*again, "--result_file=again.json", "--checkpoint_dir=other"]) == 0
    assert json.loads(Path("again.json").read_text())["test_result"] == result["test_result"]


def test_a_refused_run_leaves_no_log(folder, tmp_path):
    shutil.copytree(folder / "toy", tmp_path / "bad" / "toy")
    (tmp_path / "bad" / "toy" / "toy.inter").write_text("user_id:token\n")
    with pytest.raises(DataError):
        run(tmp_path / "bad")
    assert not list(Path("log").rglob("*.log"))


def test_many_dropped_targets_are_a_warning(folder, caplog):
    with caplog.at_level(logging.INFO):
        run(folder, MAX_ITEM_LIST_LENGTH=3)
    (record,) = (r for r in caplog.records if "are dropped" in r.getMessage())
    assert record.levelname == "WARNING"


# --- where datasets come from -------------------------------------------------------------------


def test_the_nearest_dataset_and_no_circle(folder):
    with pytest.raises(DataError, match="Did you mean toy. Data of your own need no preparation"):
        run_recbole_genrec("SASRec", "toyy", config_dict={"data_path": str(folder)})
    with pytest.raises(DataError, match="Did you mean amazon-beauty"):
        run_recbole_genrec("SASRec", "amazon-beuty", config_dict={"data_path": str(folder)})
    with pytest.raises(DataError, match="toy. is no dataset that can be prepared.*need no prep"):
        prepare.prepare_dataset("toy", folder)


def test_run_prepares_what_it_knows(folder, tmp_path, monkeypatch, capsys):
    options = {"data_path": str(tmp_path / "empty"), "epochs": 1}

    def no_network(*_):
        raise OSError("no network")

    monkeypatch.setattr("recbole.utils.url.download_url", no_network)
    with pytest.raises(DataError, match="cannot be downloaded from http.*--source=<that file>"):
        run_recbole_genrec("SASRec", "amazon-beauty", config_dict=options)

    def unpack(url, target, name):
        shutil.copy(folder / "toy" / "toy.inter", target / "Amazon_Beauty.inter")

    assert sources.download  # the name that is replaced
    monkeypatch.setattr(prepare, "download", unpack)
    result = run_recbole_genrec("SASRec", "amazon-beauty", config_dict=options)
    assert (tmp_path / "empty" / "amazon-beauty" / "amazon-beauty.inter").is_file()
    assert result["test_result"]


def test_a_training_that_goes_on_takes_new_items_without_a_text(folder, tmp_path):
    """As one from the beginning does."""
    first = run(folder)
    later = second_day(tmp_path / "later", folder)
    file = later / "toy" / "toy.item"
    file.write_text(file.read_text().replace("i41\tdry brush no 41\tbrand4", "i41\t\t"))
    again = run(later, init_from=first["checkpoint"])
    assert "i41" in load_model(again["checkpoint"]).model.item_tokens


def test_new_items_without_a_place(folder, tmp_path, monkeypatch):
    first = run(folder)
    later = second_day(tmp_path / "later", folder)
    cls = type(load_model(first["checkpoint"]).model)

    def refuse(self, *args, **options):
        raise ConfigError("no room")

    monkeypatch.setattr(cls, "add_items", refuse)
    with pytest.raises(ArtefactError, match="2 items of the data, for example .*no place"):
        run(later, init_from=first["checkpoint"])
    with pytest.raises(ArtefactError, match="The data has 2 items .*again from the beginning"):
        evaluate(first["checkpoint"], data_path=str(later))
    served = load_model(first["checkpoint"], data_path=str(later))
    assert served.histories["u61"] == ["i40"] and "i40" not in served.model.item_tokens


# --- files that changed, and what is not lost -----------------------------------------------------


def interrupted(folder, monkeypatch, epoch=1, **changes):
    """A run that stops when an epoch begins."""
    with interrupted_in(epoch, monkeypatch):
        run(folder, **changes)
    (file,) = Path("saved").glob("*.resume.pth")
    return file


@pytest.mark.parametrize("epochs", [2, 4])
def test_an_interrupted_run_does_not_go_on_over_other_files(folder, tmp_path, monkeypatch, epochs):
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    interrupted(own, monkeypatch, epochs=2)
    file = own / "toy" / "toy.inter"
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([header, *reversed(rows)]) + "\n")
    with pytest.raises(ConfigError, match=r"since it began .*toy\.inter changed"):
        run(own, epochs=epochs, resume=True)
    file.write_text("\n".join([header, *rows]) + "\n")
    assert run(own, epochs=epochs, resume=True, lr_scheduler="constant")["epochs"]


def test_a_new_start_keeps_what_an_interrupted_run_had_learned(folder, monkeypatch, caplog):
    file = interrupted(folder, monkeypatch, epoch=2, epochs=3)
    before = file.read_bytes()
    whole = run(folder, epochs=3)
    kept = file.with_name(f"{file.name}.old")
    assert kept.read_bytes() == before and not file.is_file()
    assert (
        f"interrupted in epoch 2; this one begins anew. What it had learned is kept as {kept}"
        in (caplog.text)
    )
    kept.rename(file)
    Path(whole["checkpoint"]).with_suffix(".json").unlink()
    resumed = run(folder, epochs=3, resume=True)
    assert resumed["test_result"] == whole["test_result"]


def test_a_finished_run_is_not_trained_again(folder, tmp_path):
    first = run(folder, epochs=1)
    weights = Path(first["checkpoint"]).read_bytes()
    other = tmp_path / "other.json"
    again = run(folder, epochs=1, resume=True, result_file=str(other))
    assert again["test_result"] == first["test_result"]
    assert json.loads(other.read_text())["test_result"] == first["test_result"]
    other.unlink()
    assert again["ranks"] == "other.ranks"
    here = UserRanks.load(tmp_path / "other.ranks")
    there = UserRanks.load(Path(first["checkpoint"]).with_suffix(".ranks"))
    assert (here.users, here.ranks.tolist()) == (there.users, there.ranks.tolist())
    Path(first["checkpoint"]).with_suffix(".json").unlink()
    with pytest.raises(ConfigError, match="is a finished run of these settings, and its result"):
        run(folder, epochs=1, resume=True)
    assert Path(first["checkpoint"]).read_bytes() == weights


def test_a_test_with_other_settings_is_not_the_result_of_the_run(folder):
    first = run(folder, "SASRec")
    evaluate(first["checkpoint"], result_file="changed.json", exclude_history=True)
    resumed = run(folder, "SASRec", resume=True, result_file="changed.json")
    assert resumed["test_result"] == first["test_result"]


def test_the_run_that_may_have_been_meant_is_named(folder, monkeypatch, caplog):
    file = interrupted(folder, monkeypatch, epochs=2, learning_rate=0.01)
    run(folder, epochs=2, learning_rate=0.001, resume=True)
    assert f"interrupted run {file} differs in learning_rate (0.01 there)." in caplog.text


def test_a_finished_run_with_other_settings_is_named(folder, caplog):
    first = run(folder, "SASRec", epochs=1, learning_rate=0.02)
    run(folder, "SASRec", epochs=1, learning_rate=0.02, seed=5, resume=True)
    assert "differs in" not in caplog.text
    run(folder, "SASRec", epochs=2, learning_rate=0.03, resume=True)
    name = first["checkpoint"]
    assert f"finished run {name} differs in epochs (1 there), learning_rate (0.02" in caplog.text
