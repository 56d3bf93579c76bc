"""Several processes: the gradients, losses and metrics of one; nobody counted twice; a failure
ends them all.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import ROOT, alive, start, together, wait_until, workers
from toy import SMALL, TINY_OF, toy_config, toy_model, write_dataset

from recbole_genrec.errors import ConfigError, ProcessError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.model.registry import build_model
from recbole_genrec.report.ranks import UserRanks
from recbole_genrec.runtime import processes
from recbole_genrec.storage.checkpoints import load_checkpoint
from recbole_genrec.training.trainer import GenRecTrainer

USERS = 61  # odd
PLAIN = {"tokenizer": "random", "group_by_length": False}  # no text encoder
SASREC = {
    **SMALL,
    "hidden_dropout_prob": 0.0,
    "attn_dropout_prob": 0.0,
    "hidden_size": 16,
    "inner_size": 16,
    "train_neg_sample_args": None,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), n_users=USERS)


def settings(folder, model="TIGER", **changes):
    return {**TINY_OF.get(model, SASREC), "data_path": str(folder), "eval_step": 1, **changes}


def arguments(folder, model="TIGER", **changes):
    return [
        f"--model={model}",
        "--dataset=toy",
        *(f"--{key}={value}" for key, value in settings(folder, model, **changes).items()),
    ]


# --- parts of a batch, blocks of users ------------------------------------------------------------


def as_process(monkeypatch, rank, size):
    monkeypatch.setattr(processes, "rank", lambda: rank)
    monkeypatch.setattr(processes, "size", lambda: size)


@pytest.mark.parametrize(("rows", "size"), [(8, 2), (9, 2), (7, 3), (3, 3), (64, 5)])
def test_parts_of_a_batch_hold_each_row_once_and_blocks_each_user(monkeypatch, rows, size):
    parts, blocks = [], []
    for rank in range(size):
        as_process(monkeypatch, rank, size)
        parts.append(processes.own_part(torch.arange(rows)).tolist())
        blocks.append(list(processes.own_block(rows)))
    assert sorted(sum(parts, [])) == sum(blocks, []) == list(range(rows))
    for shares in (parts, blocks):
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_fewer_rows_than_processes(monkeypatch):
    as_process(monkeypatch, 2, 4)
    assert processes.own_part(torch.arange(3)).tolist() == [
        0,
        1,
        2,
    ]  # all of them, with an equal weight
    with pytest.raises(ConfigError, match="3 users cannot be evaluated by 4 processes"):
        processes.own_block(3)


# --- two processes, in one go ---------------------------------------------------------------------

TREES = {
    "depth": "none",
    "item_parts": ["id", "text"],
    "positions": "relative",
    "norm": "post",
    "heads": ["tree", "flat"],
    "tokenizers": ["random", "random"],
    "score_mode": "auto",
    "train_rows": "longest",
    "text_map_precision": "fp32",
}
STREAMS = {
    "item_parts": ["id", "text"],
    "depth": "none",
    "positions": "relative",
    "score_mode": "auto",
    "train_rows": "windows",
    "text_stream": True,
    "text_stream_dropout": 0.0,
    "text_map_precision": "fp32",  # bfloat16 rounds the gradients of each process
}
GRADIENTS = {
    "TIGER": ("TIGER", PLAIN),
    "STORE": ("STORE", {"group_by_length": False, "tokenizer_epochs": 1}),
    "STORE, last item only": (
        "STORE",
        {
            "group_by_length": False,
            "tokenizer_epochs": 1,
            "loss_positions": "target",
            "train_rows": "all",
        },
    ),
    "TimelineRec": ("TimelineRec", {**PLAIN, "train_rows": "longest"}),
    "TimelineRec, trees and items": ("TimelineRec", {**PLAIN, **TREES}),
    "TimelineRec, two streams": ("TimelineRec", {**PLAIN, **STREAMS}),
    "LCRec": ("LCRec", {"group_by_length": False}),
    "LCRec, one target a row": ("LCRec", {"group_by_length": False, "train_rows": "all"}),
    "MetaID": ("MetaID", {"group_by_length": False}),
    "SASRec": ("SASRec", SASREC),
}


def gradients(folder, model, changes) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the second batch of an epoch, whose rows differ in length, by the
    processes that are joined.
    """
    if model == "SASRec":
        model, config, (train, *_) = sasrec(folder)
    else:
        model, config, (train, *_) = toy_model(folder, model, **changes)
    trainer = GenRecTrainer(config, model.train())
    trainer.tensorboard.close()
    for batch in list(train)[1:3]:
        model.zero_grad()
        torch.manual_seed(processes.rank())  # the draws of process 0 count
        parts = trainer.replicas(
            lambda batch=batch: trainer._losses(model.calculate_loss, processes.own_part(batch))
        )
        sum(parts).backward()
    (loss,) = processes.mean([float(sum(parts))])
    return loss, trainer.replicas.gathered(
        {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    )


def sasrec(folder):
    from recbole_genrec.config import GenRecConfig
    from recbole_genrec.data.loaders import create_dataset, make_loaders

    config = GenRecConfig("SASRec", "toy", config_dict=settings(folder, "SASRec"))
    loaders = make_loaders(config, create_dataset(config), False)
    return build_model(config, loaders[0]._dataset), config, loaders


def two_processes_at_work(folder, expected):
    me = processes.rank()
    assert processes.size() == 2
    rows = torch.arange(7 * 3).view(7, 3)
    assert torch.equal(processes.gathered(rows[list(processes.own_block(7))]), rows)
    assert processes.from_first(torch.tensor([me + 5])).tolist() == [5]
    assert processes.summed([1.0, me]) == [2.0, 1.0]
    order = []
    with processes.first_process_first("testing"):
        assert processes.size() == 1 and processes.rank() == 0
        (Path.cwd() / "turns").open("a").write(f"{me}")
        order = (Path.cwd() / "turns").read_text()
        time.sleep(0.3)  # an overlap would show
    assert order == "01"[: me + 1]
    with (
        pytest.raises(ValueError if me == 0 else ProcessError, match="boom") as caught,
        processes.first_process_first("fitting"),
    ):
        assert me == 0
        raise ValueError("boom")
    assert me == 0 or str(caught.value) == "Process 0 failed while it was fitting: ValueError: boom"
    for name, sharded in [*((name, False) for name in GRADIENTS), ("STORE", True), ("TIGER", True)]:
        model, changes = GRADIENTS[name]
        loss, found = gradients(folder, model, {**changes, "fsdp": sharded})
        wanted, whole = expected[name]
        assert loss == pytest.approx(wanted, abs=2e-6), name
        assert found.keys() == whole.keys(), name
        for key, gradient in whole.items():
            torch.testing.assert_close(
                found[key],
                gradient,
                atol=2e-6,
                rtol=1e-4,
                msg=lambda text, at=(name, key): f"{at}: {text}",
            )


def test_gradients_of_two_processes_are_those_of_one(folder):
    expected = {name: gradients(folder, *case) for name, case in GRADIENTS.items()}
    together(two_processes_at_work, folder, expected)


# --- whole runs -----------------------------------------------------------------------------------


def same_run(one, two):
    assert [epoch["epoch"] for epoch in one["epochs"]] == [
        epoch["epoch"] for epoch in two["epochs"]
    ]
    for first, second in zip(one["epochs"], two["epochs"], strict=True):
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)
        assert second["valid"] == pytest.approx(first["valid"], abs=1e-6)
    assert two["test_result"] == pytest.approx(one["test_result"], abs=1e-6)
    assert two["report"].get("search") == one["report"].get("search")
    assert (one["processes"], two["processes"]) == (1, 2)


def test_two_processes_give_the_run_of_one_and_one_set_of_files(folder):
    changes = {
        **PLAIN,
        "metrics": ["Recall", "NDCG", "ItemCoverage", "GiniIndex"],
        "save_ranks": True,
    }
    run = partial(settings, folder, "TimelineRec", **changes)  # imports least
    one = run_recbole_genrec("TimelineRec", "toy", config_dict=run(checkpoint_dir="one"))
    two = run_recbole_genrec("TimelineRec", "toy", config_dict=run(checkpoint_dir="two", nproc=2))
    same_run(one, two)
    for name in ("one", "two"):
        users = UserRanks.load(next(Path(name).glob("*.ranks"))).users
        assert len(set(users)) == len(users) == USERS
    assert sorted(path.suffix for path in Path("two").iterdir()) == [
        ".json",
        ".pth",
        ".ranks",
    ]
    assert (
        len(list(Path("log/TimelineRec").iterdir()))
        == len(list(Path("log_tensorboard").iterdir()))
        == 2
    )
    assert json.loads(next(Path("two").glob("*.json")).read_text()) == two


def test_sparse_tables_and_lists_as_one_process(folder):
    """Processes put the rows of their gradients together, and their lists."""
    changes = {**PLAIN, "depth": "none", "score_type": "renormalised", "item_parts": None}
    changes |= {"input_id": True, "output_id": False, "sparse_tables": True}
    changes |= {"dense_scores": False, "clip_grad_norm": {"max_norm": 0.5}, "learner": "adamw"}
    run = partial(settings, folder, "TimelineRec", **changes)
    one = run_recbole_genrec("TimelineRec", "toy", config_dict=run(checkpoint_dir="one"))
    two = run_recbole_genrec("TimelineRec", "toy", config_dict=run(checkpoint_dir="two", nproc=2))
    same_run(one, two)


@pytest.mark.parametrize("model", ["TimelineRec", "BPR"])
def test_without_the_history_as_one_process(folder, model):
    """The items that leave the lists are those of each user, wherever the user is evaluated."""
    changes = {"exclude_history": True, "epochs": 1}
    if model == "TimelineRec":
        changes |= {**PLAIN, "exclude_history_in_training": True}
        run = partial(settings, folder, model, **changes)
    else:
        changes |= {"ratio_rows": "interactions", "eval_args": {"split": {"RS": [7, 1, 2]}}}
        run = partial(dict, SMALL, data_path=str(folder), **changes)
    one = run_recbole_genrec(model, "toy", config_dict=run(checkpoint_dir="one"))
    two = run_recbole_genrec(model, "toy", config_dict=run(checkpoint_dir="two", nproc=2))
    same_run(one, two)
    assert one["unreachable_targets"] == two["unreachable_targets"]
    assert one["history_masked"] and two["history_masked"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["TIGER", "STORE", "SASRec"])
@pytest.mark.parametrize(
    "changes", [{}, {"gradient_accumulation_steps": 2, "clip_grad_norm": {"max_norm": 0.5}}]
)
def test_same_loss_curve_and_metrics(folder, model, changes):
    one = run_recbole_genrec(
        model, "toy", config_dict=settings(folder, model, checkpoint_dir="one", **changes)
    )
    two = run_recbole_genrec(
        model, "toy", config_dict=settings(folder, model, checkpoint_dir="two", nproc=2, **changes)
    )
    same_run(one, two)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("TIGER", {}),
        ("STORE", {"align_mode": "alternate"}),
        ("TimelineRec", {}),
        ("TimelineRec", STREAMS),
    ],
    ids=["TIGER", "STORE", "TimelineRec", "TimelineRec, two streams"],
)
def test_shared_weights(folder, model, changes):
    run = partial(
        settings,
        folder,
        model,
        clip_grad_norm={"max_norm": 0.5},
        gradient_accumulation_steps=2,
        epochs=3,
        **changes,
    )
    one = run_recbole_genrec(model, "toy", config_dict=run(checkpoint_dir="one"))
    two = run_recbole_genrec(
        model, "toy", config_dict=run(checkpoint_dir="two", nproc=2, fsdp=True)
    )
    same_run(one, two)
    first, second = (load_checkpoint(run["checkpoint"])["state_dict"] for run in (one, two))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-5, rtol=0)
    # the files of shared weights are those of one process: its run is continued by two others, and
    # by one
    for more in ({"fsdp": True, "nproc": 2}, {}):
        again = run_recbole_genrec(
            model, "toy", config_dict=run(checkpoint_dir="two", resume=True, **more)
        )
        assert again["test_result"] == pytest.approx(one["test_result"], abs=1e-6)
        for first, second in zip(two["epochs"], again["epochs"], strict=True):
            assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"fsdp": True}])
def test_refreshed_codes(folder, changes):
    schedule = {
        "self_improve": True,
        "si_start_epoch": 1,
        "si_interval": 1,
        "si_rounds": 2,
        "si_freeze_epochs": 1,
        "epochs": 4,
    }
    run = partial(settings, folder, "TimelineRec", **PLAIN, **schedule)
    one = run_recbole_genrec("TimelineRec", "toy", config_dict=run(checkpoint_dir="one"))
    two = run_recbole_genrec(
        "TimelineRec", "toy", config_dict=run(checkpoint_dir="two", nproc=2, **changes)
    )
    same_run(one, two)
    logs = [
        [
            (entry["epoch"], entry["churn"])
            for entry in result["report"]["self_improve"]["refreshes"]
        ]
        for result in (one, two)
    ]
    assert (
        logs[0] == logs[1]
        and [epoch for epoch, _ in logs[0]] == [1, 2]
        and all(churn > 0 for _, churn in logs[0])
    )


@pytest.mark.slow
def test_alternating_task_and_last_batches_smaller_than_the_processes(folder):
    changes = {
        "align_mode": "alternate",
        "align_batch": 13,
        "train_batch_size": 30,
        "epochs": 2,
    }  # 40 = 3 * 13 + 1, 61 = 2 * 30 + 1
    one = run_recbole_genrec(
        "STORE", "toy", config_dict=settings(folder, "STORE", checkpoint_dir="one", **changes)
    )
    two = run_recbole_genrec(
        "STORE",
        "toy",
        config_dict=settings(folder, "STORE", checkpoint_dir="two", nproc=2, **changes),
    )
    same_run(one, two)


def resumed_and_whole(run):
    """Results of the run that was cut off, resumed, and of a whole one; their test metrics are
    equal.
    """
    for more in (run(checkpoint_dir="cut", resume=True), run(checkpoint_dir="whole")):
        process = start("run", *more)
        output = process.communicate()[0]
        assert process.returncode == 0, output
    cut, whole = (
        json.loads(next(Path(name).glob("*.json")).read_text()) for name in ("cut", "whole")
    )
    assert cut["test_result"] == whole["test_result"]
    return cut, whole


@pytest.mark.slow
def test_resume_in_two_processes_with_dropout(folder):
    backbone = {**TINY_OF["TIGER"]["backbone_config"], "dropout_rate": 0.3}
    run = partial(arguments, folder, **PLAIN, backbone_config=backbone, epochs=6, nproc=2)
    process = start("run", *run(checkpoint_dir="cut"))
    wait_until(
        lambda: any(
            load_checkpoint(path)["epoch"] >= 2 for path in Path("cut").glob("*.resume.pth")
        ),
        process,
    )
    for worker in workers(process):
        os.kill(worker, signal.SIGKILL)
    assert process.wait(60) == 2
    cut, whole = resumed_and_whole(run)
    assert [epoch["loss"] for epoch in cut["epochs"]] == [
        epoch["loss"] for epoch in whole["epochs"]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("local_steps", [0, 3])
@pytest.mark.parametrize("model", ["TIGER", "STORE"])
def test_a_signal_saves_inside_the_epoch_and_resume_goes_on_from_there(folder, model, local_steps):
    dropout = {"dropout_rate": 0.3} if model == "TIGER" else {"dropout": 0.3}
    backbone = {**TINY_OF[model]["backbone_config"], **dropout}
    own = PLAIN
    if model == "STORE":
        own = {} if local_steps else {"align_mode": "alternate"}
    run = partial(
        arguments,
        folder,
        model,
        **own,
        backbone_config=backbone,
        train_batch_size=2,
        local_steps=local_steps,
        epochs=3,
        nproc=2,
    )
    process = start("run", *run(checkpoint_dir="cut"))
    wait_until(
        lambda: any(
            load_checkpoint(path)["epoch"] >= 1 for path in Path("cut").glob("*.resume.pth")
        ),
        process,
    )
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 143 and "Stopped by SIGTERM" in output and "--resume" in output, (
        output
    )
    stopped = load_checkpoint(next(Path("cut").glob("*.resume.pth")))
    assert len(stopped["random"]["streams"]) == 2 and not torch.equal(*stopped["random"]["streams"])
    print(f"\nstopped in epoch {stopped['epoch']}, after batch {stopped['batch']}")
    cut, whole = resumed_and_whole(run)
    for one, other in zip(cut["epochs"], whole["epochs"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-12)  # the order of a sum


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_ends_the_run_with_a_message(folder, victim):
    process = start(
        "run", *arguments(folder, **PLAIN, epochs=100_000, stopping_step=100_000, nproc=2)
    )
    wait_until(lambda: any(Path("saved").glob("*.resume.pth")), process)
    pids = workers(process)
    killed = time.monotonic()
    os.kill(pids[victim], signal.SIGKILL)
    output = process.communicate(timeout=60)[0]
    print(f"\nseconds until the run ended: {time.monotonic() - killed:.1f}")
    assert process.returncode == 2
    assert (
        f"ProcessError: Process {victim} of 2 was killed (SIGKILL)" in output
        and "--resume" in output
    )
    assert not any(map(alive, pids))


@pytest.mark.slow
def test_torchrun_gives_the_same_and_ends_when_a_worker_is_killed(folder):
    script = [str(ROOT / "run_recbole_genrec.py")]
    process = start(
        "--nproc_per_node=2",
        *script,
        *arguments(folder, **PLAIN, checkpoint_dir="two"),
        module="torch.distributed.run",
    )
    output = process.communicate()[0]
    assert process.returncode == 0 and output.count("| TIGER |") == 1, output
    one = run_recbole_genrec(
        "TIGER", "toy", config_dict=settings(folder, **PLAIN, checkpoint_dir="one")
    )
    same_run(one, json.loads(next(Path("two").glob("*.json")).read_text()))
    endless = arguments(
        folder, **PLAIN, epochs=100_000, stopping_step=100_000, checkpoint_dir="long"
    )
    process = start("--nproc_per_node=2", *script, *endless, module="torch.distributed.run")
    wait_until(lambda: any(Path("long").glob("*.resume.pth")), process)
    os.kill(workers(process)[1], signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0


@pytest.mark.slow
def test_two_machines(folder):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    given = arguments(folder, **PLAIN, world_size=2, port=port)
    machines = [start("run", *given, f"--group_offset={number}") for number in (0, 1)]
    outputs = [machine.communicate(timeout=600)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert all("| TIGER |" in output for output in outputs)
    assert len(list(Path("saved").glob("*.json"))) == len(list(Path("log").glob("*/*.log"))) == 1
    result = json.loads(next(Path("saved").glob("*.json")).read_text())
    same_run(
        run_recbole_genrec(
            "TIGER", "toy", config_dict=settings(folder, **PLAIN, checkpoint_dir="one")
        ),
        result,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tokenizer_lr": 1e30},
            "GenRecError: STORE tokenizer: the loss is nan",
        ),  # process 0 fails while the other waits
        ({"learning_rate": 1e30, "code_lr": 1e30}, "GenRecError: The training loss is"),
    ],
)
def test_an_error_of_one_process_is_the_error_of_the_run(folder, changes, message):
    process = start("run", *arguments(folder, "STORE", nproc=2, epochs=30, **changes))
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 2 and output.count(message) == 1 and "Traceback" not in output, (
        output
    )


@pytest.mark.slow
def test_two_runs_that_fit_the_same_tokenizer_at_once(folder):
    runs = [
        start("run", *arguments(folder, "STORE", tokenizer_epochs=60, checkpoint_dir=name))
        for name in ("a", "b")
    ]
    outputs = [run.communicate(timeout=600)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    fitted, waited = sorted(outputs, key=lambda text: "Waiting for it" in text)
    assert "fitted, stored in" in fitted and "Another run is making" not in fitted
    assert "not fitted again: reused from" in waited and "fitted, stored in" not in waited
    a, b = (json.loads(next(Path(name).glob("*.json")).read_text()) for name in ("a", "b"))
    assert a["test_result"] == b["test_result"]
    assert [path.name.partition("-")[0] for path in Path(".cache").iterdir()] == ["store"]


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("TIGER", {"nproc": 0}, "nproc is 0; it must be at least 1"),
        ("TIGER", {"fsdp": True}, "fsdp shares a model among several processes; add --nproc=2"),
        ("TIGER", {"nproc": 2, "world_size": 3, "group_offset": 2}, "beyond world_size 3"),
        ("TIGER,TimelineRec", {"world_size": 2}, "Several machines train one model at a time"),
        ("Pop", {"nproc": 2}, r"Pop does not learn in the common training loop.*--Pop\.nproc=1"),
    ],
)
def test_settings_that_cannot_work(folder, model, changes, message):
    given = {**TINY_OF.get(model, SMALL), "data_path": str(folder), **changes}
    with pytest.raises(ConfigError, match=message):
        run_recbole_genrec(model, "toy", config_dict=given)


def test_the_number_of_processes_does_not_name_the_run(folder):
    assert toy_config(folder).run_name() == toy_config(folder, nproc=4, port=1234).run_name()
