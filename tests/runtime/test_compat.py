"""Keeping RecBole alive: nothing is patched at import or loaded needlessly, foreign pickles are
not executed, refusals give reasons.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
import torch
from recbole.trainer import Trainer

from recbole_genrec.config import GenRecConfig
from recbole_genrec.data.loaders import create_dataset, make_loaders
from recbole_genrec.errors import ArtefactError, DataError, GenRecError
from recbole_genrec.experiments.run import run_recbole_genrec
from recbole_genrec.experiments.trained import load_data_and_model
from recbole_genrec.model.registry import get_model_class
from recbole_genrec.runtime import recbole_repairs
from recbole_genrec.storage.checkpoints import load_checkpoint

TINY = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1}
SLICE = {
    "user_inter_num_interval": "[20,26]",
    "MAX_ITEM_LIST_LENGTH": 10,
    "gpu_id": "",
    "show_progress": False,
    "epochs": 1,
}


def train(model):
    return run_recbole_genrec(model, "ml-100k", config_dict=SLICE)


# --- nothing is patched, nothing is loaded needlessly ---------------------------------------------

PROBE = f"""
import sys
import recbole_genrec
assert not {{"torch", "numpy", "pandas", "recbole"}} & set(sys.modules)
import numpy, pandas, torch, recbole.config, yaml
spaces = [numpy, torch, torch.serialization, pandas, pandas.DataFrame, pandas.Series]
spaces += [yaml.FullLoader, recbole.config.Config]
before = [dict(vars(space)) for space in spaces]
import recbole_genrec.config
for space, old in zip(spaces, before, strict=True):
    changed = [key for key, value in vars(space).items() if key not in old or old[key] is not value]
    # sub-modules that were imported do not count
    changed = [key for key in changed if getattr(space, key).__class__.__name__ != "module"]
    assert not changed, (space, changed)
assert "float" not in vars(numpy)
from recbole_genrec.experiments.run import run_recbole_genrec
run_recbole_genrec("SASRec", "ml-100k", config_dict={ ({**SLICE, **TINY})!r})
assert "float" in vars(numpy) and not torch.is_anomaly_enabled()
heavy = {{"transformers", "sentence_transformers", "peft", "tokenizers", "ray", "hyperopt"}}
heavy |= {{"recbole.quick_start"}}
print("loaded:", sorted(heavy & set(sys.modules)))
"""


def test_importing_patches_nothing_and_baselines_import_no_language_models():
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_anomaly_detection_is_off_after_a_model_is_looked_up():
    torch.autograd.set_detect_anomaly(
        True
    )  # as recbole.model.sequential_recommender does when it is imported
    get_model_class("SASRec")
    assert not torch.is_anomaly_enabled()
    torch.autograd.set_detect_anomaly(True)
    GenRecConfig(get_model_class("GRU4Rec"), "ml-100k", config_dict=SLICE)
    assert not torch.is_anomaly_enabled()


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("NGCF", r"RecBole's NGCF cannot run here: .*dok_matrix\._update"),
        ("KGIN", r"dok_matrix\._update"),
        ("S3Rec", "trains in stages that hand over a pickled checkpoint"),
        ("CKE", "CKE is a knowledge model"),
        ("FM", "FM is a context model"),
    ],
)
def test_models_that_cannot_run_are_refused_with_the_reason(model, message):
    with pytest.raises(GenRecError, match=message):
        train(model)


def test_pandas_3_and_a_missing_recbole_are_explained(monkeypatch):
    monkeypatch.setattr(pandas, "__version__", "3.0.1")
    with pytest.raises(GenRecError, match=r"pandas 3\.0\.1 .*pip install 'pandas>=2\.2,<3'"):
        recbole_repairs.check_installation()
    monkeypatch.setattr(recbole_repairs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        GenRecError, match=r"RecBole 1\.2\.x is not installed.*python -m recbole_genrec\.install"
    ):
        recbole_repairs.check_installation()


class Payload:
    """Unpickling it creates a file."""

    def __reduce__(self):
        return Path.touch, (Path("executed").absolute(),)


@pytest.mark.parametrize(
    "write",
    [
        lambda value, path: torch.save({"config": value}, path),
        lambda value, path: path.write_bytes(pickle.dumps(value)),
    ],
)
def test_a_pickled_checkpoint_is_refused_and_not_executed(write):
    write(Payload(), Path("foreign.pth"))
    with pytest.raises(
        ArtefactError,
        match=r"foreign\.pth is damaged or is not a checkpoint.*hold a pickled Config",
    ):
        load_data_and_model("foreign.pth")
    assert not Path("executed").exists()


def test_a_checkpoint_of_the_stock_trainer_is_refused():
    config = GenRecConfig("SASRec", "ml-100k", config_dict={**SLICE, **TINY})
    model = config.model_class(
        config, make_loaders(config, create_dataset(config), False)[0]._dataset
    )
    Trainer(config, model)._save_checkpoint(0, verbose=False, saved_model_file="stock.pth")
    with pytest.raises(
        ArtefactError, match=r"stock\.pth .* stock RecBole wrote hold a pickled Config"
    ):
        load_checkpoint("stock.pth")


@pytest.mark.parametrize(
    "name",
    ["ml-100k-SequentialDataset.pth", "ml-100k-Dataset.pth", "ml-100k-for-SASRec-dataloader.pth"],
)
def test_stock_data_pickles_are_refused_and_not_executed(name):
    Path("saved").mkdir()
    (Path("saved") / name).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(
        DataError, match=f"RecBole would unpickle .*{name}.*another --checkpoint_dir"
    ):
        train("SASRec")
    assert not Path("executed").exists()


def test_a_class_of_the_users_own_may_have_its_own_keys():
    from recbole.model.sequential_recommender.gru4rec import GRU4Rec

    class Mine(GRU4Rec):
        pass

    config = GenRecConfig(
        Mine, "ml-100k", config_dict={**SLICE, "loss_type": "CE", "num_layers": 1}
    )
    assert (
        config.model == "Mine"
        and config["num_layers"] == 1
        and config["train_neg_sample_args"]["distribution"] == "none"
    )
    train_data, *_ = make_loaders(config, create_dataset(config), False)
    assert len(train_data._dataset) > 1000
