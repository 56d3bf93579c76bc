"""A long training stays flat: memory, open files and the log."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from counts import SOAK
from toy import TINY_OF, write_dataset

from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.training.trainer import GenRecTrainer

EPOCHS, WARM = 200, 50


def resident() -> int:
    """Bytes of memory that the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's process files")
@pytest.mark.parametrize("name", ["STORE", "TIGER"])
def test_200_epochs(tmp_path, monkeypatch, name):
    memory, handles, logs = [], [], []
    train = GenRecTrainer._train_epoch

    def watched(self, *args, **kwargs):
        memory.append(resident())
        handles.append(len(os.listdir("/proc/self/fd")))
        logs.append(sum(path.stat().st_size for path in Path("log").rglob("*.log")))
        return train(self, *args, **kwargs)

    monkeypatch.setattr(GenRecTrainer, "_train_epoch", watched)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # otherwise RecBole opens no log file
    settings = {
        **TINY_OF[name],
        "data_path": str(write_dataset(tmp_path / "data")),
        "epochs": EPOCHS,
        "stopping_step": EPOCHS,
    }
    more = {"tokenizer_epochs": 1} if name == "STORE" else {"tokenizer": "random"}
    run_recbole_genrec(name, "toy", config_dict={**settings, **more})
    for handler in logging.getLogger().handlers:
        handler.close()
    growth, line = (
        max(memory[WARM:]) / memory[WARM] - 1,
        (logs[-1] - logs[WARM]) / (EPOCHS - 1 - WARM),
    )
    more_handles = (
        min(handles[-10:]) - handles[1]
    )  # TensorBoard's thread opens its file now and then for a moment
    SOAK[name] = {
        "epochs": len(memory),
        "memory growth in %": 100 * growth,
        "more open files": more_handles,
        "log bytes an epoch": line,
    }
    assert len(memory) == EPOCHS and growth < 0.05 and more_handles == 0 and 0 < line < 1_000


def test_runs_in_one_process_close_their_files(tmp_path):
    settings = {
        **TINY_OF["TIGER"],
        "data_path": str(write_dataset(tmp_path / "data", n_users=20)),
        "tokenizer": "random",
        "epochs": 1,
    }
    handles = []
    for seed in range(4):
        run_recbole_genrec("TIGER", "toy", config_dict={**settings, "seed": seed})
        handles.append(len(os.listdir("/proc/self/fd")))
    assert handles[3] == handles[1]
