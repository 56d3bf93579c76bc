"""A trained model on its data, of which a test means something."""

from __future__ import annotations

from typing import Any

from recbole_genrec.errors import ArtefactError
from recbole_genrec.experiments.loading import Trained, restored
from recbole_genrec.experiments.opened import Opened
from recbole_genrec.experiments.stages import check_topk
from recbole_genrec.model.registry import is_generative


def testable(opened: Opened, **defaults: Any) -> Trained:
    """The data and the model of a checkpoint, for a test, an ensemble or an analysis.

    Args:
        opened: the checkpoint, and what is asked of it.
        **defaults: further settings to replace, over which those that were asked for win.

    Returns:
        As :func:`~.loading.restored`; ``test`` is ``None`` where the run held nothing out.

    Raises:
        ConfigError: a setting that says how the model was trained, or lists that are longer than
            the catalogue.
        ArtefactError: the model and the data do not hold the same items.
    """
    opened.check_changes()
    trained = restored(opened.with_defaults(**defaults))
    if trained.test is not None:
        check_topk(trained.config, trained.dataset)
        _check_same_items(opened.path, trained)
    return trained


def _check_same_items(checkpoint: str, trained: Trained) -> None:
    """Check that the items of the model are those of the data.

    Args:
        checkpoint: its path.
        trained: the model and its data.

    Raises:
        ArtefactError: items were added to the model, or it could not take in items of the data.
    """
    model = trained.model
    if not is_generative(type(model)):
        return
    added = model.catalogue.added
    if added and not model.catalogue.chosen.intersection(added):
        raise ArtefactError(
            f"{checkpoint} holds items that add_items added ({len(added)}), which no user of the "
            f"data chose. Test the checkpoint that its run wrote."
        )
    missing = trained.dataset.item_num - model.n_items
    if missing > 0:
        raise ArtefactError(
            f"The data has {missing} items that {checkpoint} does not know and that "
            f"{type(model).__name__} could not add without training, so it cannot be tested on "
            "this data. The log says what they lack: give it to them, train again from the "
            "beginning, without init_from, or give the data of its training with --data_path."
        )
