"""The store of finished results: codes are fitted once, stored, and loaded again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from recbole_genrec.errors import ArtefactError, explained
from recbole_genrec.runtime.randomness import kept_randomness
from recbole_genrec.storage.artefacts import read_json, write_json
from recbole_genrec.storage.atomic import made_once, publish_folder
from recbole_genrec.storage.digests import digest
from recbole_genrec.tokenizer.base import CodesT, ContentT, Tokenizer
from recbole_genrec.tokenizer.progress import FitProgress

MADE_FOR = "made-for.json"
"""What a stored result was made for: its key, seed and settings."""
CURVES = "curves.json"
"""Losses of the stages of a fit, by stage and loss; earlier versions did not store them."""


def fit_or_load(
    tokenizer: Tokenizer[ContentT, CodesT],
    content: ContentT,
    folder_root: str | os.PathLike,
    seed: int,
    log: Callable[[str], None] = print,
) -> CodesT:
    """Codes of ``content``: the stored result if there is one, else a fit that is then stored.

    The key is (content fingerprint, training interactions if they count, tokenizer, its settings,
    seed). A result appears in ``<folder_root>/<name>-<key>`` complete or not at all, and one
    process at a time makes it. A fit that was killed continues. The caller's random states stay as
    they are.

    Args:
        tokenizer: takes over what the fit has learned.
        content: rows of the codes follow its ids.
        folder_root: where results are stored.
        seed: of the tokenizer.
        log: takes one line of text.

    Raises:
        ArtefactError: the stored result is damaged or belongs to something else.
    """
    key = _chosen_key(tokenizer, content, Path(folder_root), seed, log)
    folder = Path(folder_root) / f"{tokenizer.name}-{key}"
    # What is drawn afterwards is the same after a fit, after one that went on, and after none.
    with kept_randomness():
        with made_once(folder, log) as missing:
            if missing:
                codes = _fit(tokenizer, content, folder, key, seed, log)
        if not missing:
            codes = _load(tokenizer, content, folder, key)
            _progress_file(folder).unlink(missing_ok=True)  # of a run killed when it had stored
            log(f"Tokenizer {tokenizer.name} not fitted again: reused from {folder}.")

    log(codes.report())
    warnings = codes.warnings()
    if tokenizer.made_elsewhere:
        warnings.append(
            "These codes were learned elsewhere, perhaps from the interactions that this run is "
            "tested on. Say in a table where they come from."
        )
    for warning in warnings:
        log(f"WARNING: {warning}")
    return codes


def _fit(
    tokenizer: Tokenizer[ContentT, CodesT],
    content: ContentT,
    folder: Path,
    key: str,
    seed: int,
    log: Callable[[str], None],
) -> CodesT:
    log(f"Tokenizer {tokenizer.name} is being fitted to {tokenizer.describe(content)}.")
    started = time.process_time()
    tokenizer.progress = FitProgress(_progress_file(folder), key)
    codes = tokenizer.aligned(tokenizer.fit_content(content, log), content)
    tokenizer.quality["fit_cpu_seconds"] = time.process_time() - started

    with publish_folder(folder) as temporary:
        codes.save(temporary / "codes")
        tokenizer.save(temporary / "tokenizer")
        made_for = {"key": key, "seed": seed, "settings": tokenizer.config_key()}
        write_json(temporary / MADE_FOR, made_for)
        write_json(temporary / CURVES, tokenizer.progress.curves)
    tokenizer.curves = tokenizer.progress.curves
    tokenizer.progress.clear()
    log(f"Tokenizer {tokenizer.name} fitted, stored in {folder}.")
    return codes


def _progress_file(folder: Path) -> Path:
    """Where the fit of the result in ``folder`` keeps how far it is."""
    return folder.parent / f"fit-{folder.name}.pth"


def _load(
    tokenizer: Tokenizer[ContentT, CodesT], content: ContentT, folder: Path, key: str
) -> CodesT:
    hint = f"Delete the folder {folder}; it is made again."
    if read_json(folder / MADE_FOR, advice=hint).get("key") != key:
        raise ArtefactError(
            f"{folder} was renamed or replaced: its codes belong to other items, settings or "
            f"another seed. {hint}"
        )
    try:
        with explained(str(folder), hint):
            codes = tokenizer.aligned(tokenizer.load_codes(folder / "codes"), content)
            tokenizer.load(folder / "tokenizer")
        if (folder / CURVES).is_file():
            tokenizer.curves = read_json(folder / CURVES, advice=hint)
    except ArtefactError as error:
        if hint in str(error):
            raise
        raise ArtefactError(f"{folder} cannot be used: {error} {hint}") from error
    return codes


def _chosen_key(
    tokenizer: Tokenizer[ContentT, CodesT],
    content: ContentT,
    root: Path,
    seed: int,
    log: Callable[[str], None],
) -> str:
    """The key of the result.

    That of an earlier version where only its result or its interrupted fit is there.
    """
    interactions = tokenizer.interactions_key(content)

    def key(switches: bool) -> str:
        settings = tokenizer.config_key(switches)
        return digest(content.fingerprint, interactions, tokenizer.name, settings, seed)

    def is_there(key: str) -> bool:
        folder = root / f"{tokenizer.name}-{key}"
        return folder.exists() or _progress_file(folder).exists()

    current, earlier = key(switches=True), key(switches=False)
    if current != earlier and not is_there(current) and is_there(earlier):
        log(
            f"Tokenizer {tokenizer.name}: {root} holds the result {earlier} of an earlier version, "
            "whose key also had settings without effect; it is used."
        )
        return earlier
    return current
