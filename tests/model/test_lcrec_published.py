"""LC-Rec's published setting: all templates, metrics over any of them, weights in bf16."""

from __future__ import annotations

import lcrec
import pytest
import torch
from language_models import save_base
from lcrec import PROMPTS, ByHand, cases_of, maker, shown, write_data
from toy import TINY_OF, toy_config

from recbole_genrec.errors import ConfigError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.model.lcrec.cases import HistoryCase
from recbole_genrec.model.lcrec.templates import with_prompt_set

COUNTS = {  # of the release
    "seqrec": 17,
    "item2index": 19,
    "index2item": 17,
    "fusionseqrec": 12,
    "itemsearch": 11,
    "preferenceobtain": 11,
}
ALL = {task: PROMPTS["tasks"][task] + PROMPTS["further"][task] for task in PROMPTS["tasks"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def make(folder, tmp_path_factory):
    return maker(folder, tmp_path_factory.mktemp("cache"))


# --- templates ------------------------------------------------------------------------------------


def test_there_are_as_many_templates_as_in_the_release_and_no_two_alike():
    assert {task: len(entries) for task, entries in ALL.items()} == COUNTS
    for entries in ALL.values():
        assert len({(entry["ask"], entry["answer"]) for entry in entries}) == len(entries)


def test_every_template_by_hand(make, monkeypatch):
    model, _, loaders = make(prompt_set="all", text_max_len=5)
    monkeypatch.setitem(lcrec.PROMPTS, "tasks", ALL)
    hand = ByHand(model)
    for task, case in cases_of(model, loaders).items():
        templates = model.instructions.templates.tasks[task]
        assert len(templates) == COUNTS[task]
        for number, template in enumerate(templates):
            ids, labels, lengths = model.instructions.sequences(template, case)
            for row, item in enumerate(case.item.tolist()):
                history = shown(case, row)
                person = None if case.person is None else int(case.person[row])
                prompt, response = hand.sequence(task, number, item, history, person)
                assert ids[row, : lengths[row]].tolist() == prompt + response
                assert labels[row, : len(prompt)].eq(-100).all()


def test_samples_draw_among_all_of_them_and_few_is_what_it_was(make):
    model, _, loaders = make(prompt_set="all")
    history, length, target, user = lcrec.batch_of(model, loaders[0])
    case = HistoryCase(target, history, length, user=user)
    drawn = {id(template) for _ in range(20) for template, _ in model.samples("seqrec", case)}
    assert len(drawn) == 17

    few, *_ = make()
    assert few.prompt_texts == {name: PROMPTS[name] for name in PROMPTS if name != "further"}
    with pytest.raises(ConfigError, match="under 'further'"):
        with_prompt_set({"further": ["x"]}, "few")


def test_any_template_is_tested_alone_and_several_give_mean_and_range(folder, tmp_path):
    settings = {**TINY_OF["LCRec"], "data_path": str(folder), "cache_dir": str(tmp_path)}
    settings |= {"epochs": 1, "tasks": ["seqrec"], "prompt_set": "all"}

    def run(numbers):
        return run_recbole_genrec(
            "LCRec", "toy", config_dict={**settings, "test_prompt_ids": numbers}
        )

    several = run([16, 4])
    each = several["test_variants"]
    assert list(each) == ["prompt 16", "prompt 4"]
    assert run([4])["test_result"] == each["prompt 4"]
    for metric, mean in several["test_result"].items():
        values = [each["prompt 16"][metric], each["prompt 4"][metric]]
        assert mean == pytest.approx(sum(values) / 2)
        assert several["test_range"][metric] == [min(values), max(values)]


def test_the_preset_takes_them_all(folder):
    config = toy_config(folder, "LCRec", preset="paper")
    values = [config[key] for key in ("prompt_set", "test_prompt_ids", "valid_metric")]
    assert values == ["all", "all", "loss"] and config["valid_metric_bigger"] is False


# --- weights in bf16 ------------------------------------------------------------------------------


def test_weights_in_bf16_train_like_those_in_fp32(folder, tmp_path):
    base = save_base(tmp_path / "base", "llama")
    settings = {**TINY_OF["LCRec"], "data_path": str(folder), "cache_dir": str(tmp_path / "cache")}
    settings |= {"epochs": 2, "backbone": base, "precision": "bf16", "learning_rate": 0.003}
    settings |= {"eval_step": 1, "valid_metric": "loss"}

    def losses(**changes):
        result = run_recbole_genrec("LCRec", "toy", config_dict={**settings, **changes})
        weights = torch.load(result["checkpoint"], weights_only=True)["state_dict"]
        formats = {weight.dtype for name, weight in weights.items() if name.startswith("backbone")}
        return [epoch["valid"]["loss"] for epoch in result["epochs"]], formats

    whole, formats = losses()
    assert formats == {torch.float32}
    half, formats = losses(weights_precision="bf16")
    assert formats == {torch.bfloat16}
    assert half[1] < half[0]
    assert half == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "scratch", "precision": "bf16"}, "is for pretrained weights"),
        ({"backbone": "x/y"}, "needs precision: bf16"),
        ({"backbone": "x/y", "precision": "bf16", "fsdp": True}, "weights of two formats"),
        (
            {"backbone": "x/y", "precision": "bf16", "quantisation": "8bit", "tuning": "lora"},
            "use one of them",
        ),
    ],
)
def test_where_weights_in_bf16_cannot_work(folder, changes, message):
    with pytest.raises(ConfigError, match=message):
        toy_config(folder, "LCRec", weights_precision="bf16", **changes)
