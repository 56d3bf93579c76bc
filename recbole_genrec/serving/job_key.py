"""What the lists of a job depend on, as digests: jobs that would write other lists differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_genrec.data.read_files import path_digest
from recbole_genrec.experiments.ensemble_file import EnsembleFile, is_ensemble
from recbole_genrec.experiments.ensemble_lists import EnsembleLists
from recbole_genrec.experiments.served import Served
from recbole_genrec.model.base import GenRecModel
from recbole_genrec.settings.classification import display_keys
from recbole_genrec.storage.digests import digest, file_digest


def weights_key(checkpoint: str) -> str:
    """What tells the weights of two checkpoints apart."""
    path = Path(checkpoint)
    if is_ensemble(path):
        members = EnsembleFile.read(path).checkpoints
        return digest(file_digest(path), [weights_key(member) for member in members])
    return path_digest(path)


def settings_key(changes: dict[str, Any]) -> str:
    """Digest of the settings that were replaced, as far as lists depend on them.

    Files count by what they hold, so that machines with other folders make the same lists.
    """
    shown = display_keys()
    values = {name: value for name, value in changes.items() if name not in shown}
    return digest({name: content_of(value) for name, value in values.items()})


def items_key(served: Served) -> str:
    """Digest of the items as the model has them, those that its data brought included."""
    model = served.model
    if isinstance(model, EnsembleLists):
        return digest([items_key(member) for member in model.served])
    vectors = None
    if isinstance(model, GenRecModel):
        vectors = model.added_items().get("vectors")
    if vectors is not None:
        vectors = vectors.numpy().tobytes().hex()
    texts = [model.list_titles(), model.list_texts(), model.list_code_words()]
    return digest(model.item_tokens, texts, vectors)


def content_of(value: Any) -> Any:
    """A digest of the file or folder that a setting names; other values as they are."""
    if not isinstance(value, str):
        return value
    path = Path(value).expanduser()
    return path_digest(path) if path.is_dir() or path.is_file() else value
