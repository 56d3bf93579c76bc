"""What can be done with a checkpoint: test it again, recommend, export, describe items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_genrec.data.given_ids import IdText
from recbole_genrec.errors import ArtefactError, ConfigError
from recbole_genrec.experiments.evaluation import evaluate
from recbole_genrec.experiments.hub import local_checkpoint
from recbole_genrec.experiments.listed_items import ListedItems
from recbole_genrec.experiments.loading import (
    Trained,
    load_data_and_model,
    load_model,
    load_recommender,
)
from recbole_genrec.experiments.model_card import model_card
from recbole_genrec.experiments.results_beside import result_beside
from recbole_genrec.experiments.served import Served

__all__ = [
    "Trained",
    "evaluate",
    "export",
    "inspect",
    "load_data_and_model",
    "load_model",
    "load_recommender",
    "recommend",
]


def recommend(
    checkpoint: str,
    user: str | IdText | None = None,
    history: list[str] | IdText | None = None,
    k: int = 10,
    candidate_file: str | None = None,
    exclude_seen: bool | None = None,
    excluded_file: str | None = None,
    **changes: Any,
) -> list[dict[str, Any]]:
    """The best next items for a user of the dataset, or for any history.

    Args:
        checkpoint: as in :func:`load_data_and_model`.
        user: raw id of a user of the dataset, also as somebody typed it.
        history: raw item ids, oldest first, also as somebody typed them; the person need not be in
            the dataset.
        k: how many items.
        candidate_file: a file of raw item ids, one a line, to choose among; default all items.
        exclude_seen: whether items of the history stay out; default as ``exclude_history`` says.
        excluded_file: a file of raw item ids, one a line, that are left out.
        **changes: settings to replace.

    Returns:
        ``[{"rank", "item", "text", "score", ...}]``, best first; from a search ``certified`` too.

    Raises:
        ConfigError: an unknown user or item id, several users, an empty history or file, or not
            exactly one of user and history; a model of RecBole that knows people by their user ids
            alone.
    """
    if (user is None) == (history is None):
        raise ConfigError("Give either a user or a history.")
    listed = ListedItems(candidate_file, excluded_file)
    served = load_recommender(checkpoint, candidate_file=None, **changes)
    candidates = listed.of(served.model.catalogue)
    if isinstance(history, IdText):
        history = history.among(served.model.catalogue.has_item)
    if history is not None:
        return served.model.recommend(
            history, k=k, candidates=candidates, exclude_seen=exclude_seen
        )
    if isinstance(user, IdText):
        user = _one_user(user, served)
    advice = (
        "Use --history=item,item,... for people outside it, or --data_path where its files are "
        f"not in {served.config.settings.data_path}."
    )
    items, person = served.chosen_by(user, advice)
    return served.model.recommend(
        items, k=k, candidates=candidates, user=person, exclude_seen=exclude_seen
    )


def _one_user(user: IdText, served: Served) -> str:
    """The raw id of the user that was typed.

    Raises:
        ConfigError: several were.
    """
    if served.histories is None:
        return user.text
    users = user.among(served.histories.__contains__)
    if len(users) > 1:
        raise ConfigError(
            f"There is no user {user.text!r}, and the lists of several users go to a file: add "
            "--output=lists.tsv."
        )
    return users[0]


def export(checkpoint: str, folder: str, merge: bool = False, **changes: Any) -> None:
    """Write the model of a checkpoint to a new folder, as safetensors and JSON, with a model card.

    :func:`~recbole_genrec.experiments.opening.load` reads the folder without the dataset, also from
    a hub.

    Args:
        checkpoint: as in :func:`load_data_and_model`.
        folder: the new folder.
        merge: whether to write one model for transformers, whose vocabulary holds the codes;
            for methods with a causal language model. See ``save_pretrained`` of the model.
        **changes: settings to replace.

    Raises:
        ArtefactError: the checkpoint holds a model of RecBole.
        ConfigError: ``merge`` is not for this method, or the folder exists.
    """
    checkpoint = local_checkpoint(checkpoint)
    model = load_model(checkpoint, **changes).model
    card = model_card(model, result_beside(Path(checkpoint)))
    model.save_pretrained(folder, merge, {"README.md": card})


def inspect(checkpoint: str, items: list[str] | IdText, **changes: Any) -> list[dict[str, Any]]:
    """Let a model that learned to describe items (LCRec) describe them from their codes alone.

    Args:
        checkpoint: as in :func:`load_data_and_model`.
        items: raw item ids.
        **changes: settings to replace.

    Returns:
        ``[{"item", "codes", "generated", "text"}]``; ``text`` is the true text.

    Raises:
        ConfigError: an unknown item id.
        ArtefactError: the checkpoint holds another model.
    """
    served = load_model(checkpoint, **changes)
    if not hasattr(served.model, "inspect_items"):
        raise ArtefactError(
            f"{checkpoint} holds {served.config.settings.model}, which does not describe items; "
            f"inspect works for LCRec."
        )
    if isinstance(items, IdText):
        items = items.among(served.model.catalogue.has_item)
    return served.model.inspect_items(items)
