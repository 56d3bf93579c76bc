"""Where the weights of a language model come from: a folder, or a hub id."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from recbole_genrec.backbone.tokenizer_checks import check_text_tokenizer
from recbole_genrec.errors import BackboneError
from recbole_genrec.storage.digests import folder_fingerprint


def locate(backbone: str) -> str:
    """The folder or hub id that the key ``backbone`` names.

    Raises:
        BackboneError: the name looks like a folder, and there is none.
    """
    folder = Path(backbone).expanduser()
    looks_local = (
        Path(backbone).is_absolute() or backbone.startswith((".", "~")) or backbone.count("/") > 1
    )
    if folder.is_dir():
        return str(folder)
    if looks_local:
        raise BackboneError(
            f"The backbone folder {backbone} does not exist. "
            "Give an existing folder (--backbone=FOLDER), a hub id, or backbone: scratch."
        )
    return backbone


def unloadable(backbone: str, error: Exception, needed: str) -> BackboneError:
    """The error for weights that transformers cannot load.

    Args:
        backbone: folder or hub id.
        error: what transformers raised.
        needed: the files that a folder must hold.
    """
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    return BackboneError(
        f"The backbone {backbone!r} cannot be loaded: {reason} It must be a folder with {needed} "
        "(convert pickled .bin weights with save_pretrained), or a hub id that this machine can "
        "reach or has in its cache. Without either, backbone: scratch trains from random weights."
    )


def load_text_tokenizer(backbone: str, n_rows: int) -> PreTrainedTokenizerBase:
    """The text tokenizer of a folder or hub id.

    Args:
        backbone: folder or hub id.
        n_rows: rows of the language model's embedding table.

    Raises:
        BackboneError: there is none, or it does not fit the language model.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(locate(backbone), trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise unloadable(backbone, error, "the files of its text tokenizer") from error
    check_text_tokenizer(backbone, tokenizer, n_rows)
    return tokenizer


def backbone_identity(backbone: str) -> str:
    """What names the weights: the content of a folder, else the key itself."""
    folder = Path(backbone).expanduser()
    if backbone != "scratch" and folder.is_dir():
        return folder_fingerprint(folder)
    return backbone
