"""What a run reads beside its settings: files and folders, and the digests of their content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_genrec.data.files.index_files import INDEX_ENDING, files_of_index
from recbole_genrec.data.inter_files import interaction_files
from recbole_genrec.data.vectors.vector_files import files_of_vectors
from recbole_genrec.storage.artefacts import META
from recbole_genrec.storage.digests import file_digest, folder_fingerprint

LANGUAGE_MODELS = {"backbone": "scratch", "indexer_backbone": "scratch", "text_encoder": "default"}
"""Keys that name a folder or a hub id, and their value that is neither."""


def files_read(config: Any, values: Mapping[str, Any]) -> list[Path]:
    """Files that a run with these settings reads, whether or not they exist.

    Args:
        config: a ``GenRecConfig``.
        values: the values that make the name of the run; keys that end in ``_file`` name a file.
    """
    folder = Path(config.settings.data_path)
    files = interaction_files(config)
    files += [folder / f"{config.dataset}{ending}" for ending in (".item", ".user")]
    for name, value in values.items():
        if name.endswith("_file") and isinstance(value, str):
            files.append(Path(value))
    if values.get("item_vectors"):
        files += files_of_vectors(Path(str(values["item_vectors"])).expanduser())
    tokenizer = Path(str(values.get("tokenizer")))
    files.append(tokenizer / META)  # codes of a folder
    if tokenizer.suffix == INDEX_ENDING:
        files += files_of_index(tokenizer)
    return files


def further_paths(config: Any, values: Mapping[str, Any]) -> list[Path]:
    """What a run reads beyond :func:`files_read`.

    Args:
        config: a ``GenRecConfig``.
        values: the values that make the name of the run.

    Returns:
        Those files and folders that exist: the checkpoint of ``init_from``, local language models,
        the ids beside vectors, what a ``~`` or the folder of a fitted tokenizer leads to, and
        columns of RecBole's ``additional_feat_suffix``.
    """
    files: list[Path] = []
    for name, value in values.items():
        if name.endswith("_file") and isinstance(value, str):
            files += files_of_vectors(Path(value).expanduser())
    tokenizer = Path(str(values.get("tokenizer"))).expanduser()
    files += [tokenizer / META, tokenizer / "codes" / META]
    if tokenizer.suffix == INDEX_ENDING:
        files += files_of_index(tokenizer)
    for ending in values.get("additional_feat_suffix") or ():
        files.append(Path(config.settings.data_path) / f"{config.dataset}.{ending}")
    counted = files_read(config, values)
    paths = [file for file in files if file.is_file() and file not in counted]

    if values.get("init_from"):
        paths.append(Path(str(values["init_from"])))
    for name, no_folder in LANGUAGE_MODELS.items():
        model = values.get(name)
        if isinstance(model, str) and model != no_folder:
            folder = Path(model).expanduser()
            paths += [folder] if folder.is_dir() else []
    return [path for path in dict.fromkeys(paths) if path.exists()]


def digests_read(config: Any, values: Mapping[str, Any]) -> dict[str, str]:
    """Digests by path of everything that a run with these settings reads; arguments as above."""
    files = [file for file in files_read(config, values) if file.is_file()]
    return {str(path): path_digest(path) for path in [*files, *further_paths(config, values)]}


def path_digest(path: Path) -> str:
    """What names the content of a file or a folder."""
    return folder_fingerprint(path) if path.is_dir() else file_digest(path)
