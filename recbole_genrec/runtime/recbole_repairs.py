"""What keeps RecBole 1.2.1 alive on today's numpy, scipy, pandas and torch.

Every repair is a function or a class that our own entry points call; importing this module
changes nothing. Each one names the place in RecBole that it repairs. Nothing is written into
``recbole.*`` modules.
"""

from __future__ import annotations

import importlib.util
import os
import warnings

import numpy as np
import torch

from recbole_genrec.errors import GenRecError

INSTALL_HELP = (
    "RecBole 1.2.x is not installed. Run: python -m recbole_genrec.install. It also works on "
    "Python 3.12 and newer, where pip alone fails because RecBole pins a version of ray that has "
    "no wheel."
)

_SCIPY = (
    "it calls scipy's private dok_matrix._update, which scipy removed (LightGCN is repaired here)"
)
_STAGES = "it trains in stages that hand over a pickled checkpoint, which this package never loads"
REFUSED_MODELS = {
    **dict.fromkeys(["NGCF", "NCL", "GCMC", "SpectralCF", "KGIN", "MCCLK"], _SCIPY),
    **dict.fromkeys(["S3Rec", "RaCT"], _STAGES),
    **dict.fromkeys(
        ["SASRecF", "GRU4RecF", "FDSA"],
        "it needs item features as columns of every batch, which the shared protocol leaves out",
    ),
}


def check_installation() -> None:
    """Check that the libraries are there before RecBole fails in the middle.

    Raises:
        GenRecError: RecBole is missing, or pandas is a version that RecBole cannot use.
    """
    if importlib.util.find_spec("recbole") is None:
        raise GenRecError(INSTALL_HELP)
    import pandas

    if int(pandas.__version__.split(".")[0]) >= 3:
        # recbole/data/dataset/dataset.py: _remap, _fill_nan;
        # sequential_dataset.py: _benchmark_presets
        raise GenRecError(
            f"pandas {pandas.__version__} changed Series.agg and in-place fillna, and RecBole's "
            "dataset code then fails or keeps NaN silently; this cannot be repaired from outside. "
            "Install pandas 2: pip install 'pandas>=2.2,<3'."
        )


def restore_numpy_aliases() -> None:
    """Set the numpy aliases that RecBole's modules read (``Config.compatibility_settings``).

    recbole/config/configurator.py reads ``np.float_``, ``np.complex_`` and ``np.unicode_``, which
    numpy 2 removed, and sets ``np.bool`` ... ``np.unicode``, which data/interaction.py,
    data/dataset/dataset.py, evaluator/metrics.py and model/layers.py use.
    """
    aliases = {
        "bool": np.bool_,
        "int": np.int_,
        "float": np.float64,
        "complex": np.complex128,
        "object": np.object_,
        "str": np.str_,
        "long": np.int_,
        "unicode": np.str_,
    }
    for name, value in aliases.items():
        if name not in np.__dict__:
            setattr(np, name, value)


def quiet_anomaly_detection() -> None:
    """Switch autograd's anomaly detection off again.

    recbole/model/sequential_recommender/sine.py line 25 switches it on when the package of
    sequential models is imported, which makes every training step of a sequential model 1.6 times
    as expensive (``benchmarks/anomaly_detection.py``).
    """
    torch.autograd.set_detect_anomaly(False)


def quiet_pandas_warnings() -> None:
    """Hide the warnings of recbole/data/dataset/dataset.py about pandas 3.

    They are about ``fillna(inplace=True)``; pandas 3 is refused anyway.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")


def check_model_runs(name: str) -> None:
    """Refuse the RecBole models that no small repair can save.

    Args:
        name: of a model of RecBole.

    Raises:
        GenRecError: with the reason.
    """
    if name in REFUSED_MODELS:
        raise GenRecError(
            f"RecBole's {name} cannot run here: {REFUSED_MODELS[name]}. Use another model, or "
            "RecBole itself for this one."
        )


def make_folders(config) -> None:
    """Make the folders of checkpoints and logs before RecBole looks for them.

    recbole/utils/utils.py, ``ensure_dir``: it makes a folder that it did not find, and fails when
    another run has made it meanwhile.

    Args:
        config: of the run; reads ``checkpoint_dir`` and ``model``.
    """
    settings = config.settings
    for folder in (settings.checkpoint_dir, os.path.join("log", settings.model)):
        os.makedirs(folder, exist_ok=True)


def forget_logger_handlers() -> None:
    """Let ``init_logger`` of a second run in one process write into its own file.

    recbole/utils/logger.py calls ``logging.basicConfig``, which does nothing once the root logger
    has handlers. Only handlers that RecBole itself has put there are removed.
    """
    import logging

    root = logging.getLogger()
    for handler in list(root.handlers):
        coloured = type(handler.formatter).__module__.startswith("colorlog")
        modules = [type(filter_).__module__ for filter_ in handler.filters]
        if coloured or "recbole.utils.logger" in modules:
            root.removeHandler(handler)
            handler.close()
