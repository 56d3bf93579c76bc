"""Codes of a tokenizer: fitted once, stored, and loaded again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from recbole_genrec.data.content import ItemContent
from recbole_genrec.errors import ArtefactError, explained
from recbole_genrec.storage.artefacts import read_json, write_json
from recbole_genrec.storage.atomic import made_once, publish_folder
from recbole_genrec.storage.digests import digest
from recbole_genrec.tokenizer.base import ItemTokenizer
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.progress import FitProgress

MADE_FOR = "made-for.json"
"""What a stored result was made for: its key, seed and settings."""


def fit_or_load(
    tokenizer: ItemTokenizer,
    content: ItemContent,
    folder_root: str | os.PathLike,
    seed: int,
    log: Callable[[str], None] = print,
) -> ItemCodes:
    """Codes of ``content`` by ``tokenizer``: the stored result if there is one, else a fit that is then stored.

    The key is (content fingerprint, training interactions if they count, tokenizer, its settings, seed). A result appears in
    ``<folder_root>/<name>-<key>`` complete or not at all. Rows follow ``content.tokens``; :class:`ArtefactError` when the stored result
    is damaged or belongs to other items.
    """
    key = digest(
        content.fingerprint,
        tokenizer.interactions_key(content),
        tokenizer.name,
        tokenizer.config_key(),
        seed,
    )
    folder = Path(folder_root) / f"{tokenizer.name}-{key}"
    with made_once(folder, log) as missing:
        if missing:
            log(f"Tokenizer {tokenizer.name} is being fitted to {len(content.tokens) - 1:,} items.")
            started = time.process_time()
            tokenizer.progress = FitProgress(
                Path(folder_root) / f"fit-{tokenizer.name}-{key}.pth", key
            )
            codes = tokenizer.fit(content).aligned(content.tokens)
            tokenizer.quality["fit_cpu_seconds"] = time.process_time() - started
            with publish_folder(folder) as temporary:
                codes.save(temporary / "codes")
                tokenizer.save(temporary / "tokenizer")
                write_json(
                    temporary / MADE_FOR,
                    {"key": key, "seed": seed, "settings": tokenizer.config_key()},
                )
            tokenizer.progress.clear()
            log(f"Tokenizer {tokenizer.name} fitted, stored in {folder}.")
    if not missing:
        hint = f"Delete the folder {folder}; it is made again."
        if read_json(folder / MADE_FOR).get("key") != key:
            raise ArtefactError(
                f"{folder} was renamed or replaced: its codes belong to other items, settings or another seed. {hint}"
            )
        with explained(str(folder), hint):
            codes = ItemCodes.load(folder / "codes").aligned(content.tokens)
            tokenizer.load(folder / "tokenizer")
        log(f"Tokenizer {tokenizer.name} not fitted again: reused from {folder}.")
    log(codes.report())
    for warning in codes.warnings():
        log(f"WARNING: {warning}")
    return codes
