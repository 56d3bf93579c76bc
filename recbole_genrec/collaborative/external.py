"""Collaborative vectors that were made elsewhere."""

from __future__ import annotations

from pathlib import Path

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.tokenizer_keys import CollaborativeKeys


def external_file(config, key: str) -> Path | None:
    """The file of vectors that ``key`` names, if it does.

    Raises:
        ConfigError: it does, without ``allow_external_cf: true``.
    """
    settings = CollaborativeKeys.of(config)
    name = getattr(settings, key)
    if not name:
        return None
    file = Path(name).expanduser()
    if not settings.allow_external_cf:
        raise ConfigError(
            f"{key}: {file} holds vectors made elsewhere, perhaps from validation and test "
            f"interactions. Leave {key} out to "
            "train them on the training split, or set allow_external_cf: true to use them "
            "unchecked."
        )
    return file
