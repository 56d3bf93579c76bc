"""Codes that were made before, read from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from recbole_genrec.errors import ConfigError
from recbole_genrec.settings.shared_keys import ContentKeys
from recbole_genrec.storage.artefacts import META, read_json
from recbole_genrec.tokenizer.base import ItemTokenizer, NewItems
from recbole_genrec.tokenizer.codes import ItemCodes

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent

COPY_AGAIN = "Copy the folder again from where it came, or fit the tokenizer that made it again."
"""What to do about damaged codes of a folder that ``tokenizer`` names."""


class StoredCodes(ItemTokenizer):
    """Codes from a folder (``tokenizer: <path>``).

    One that :meth:`ItemCodes.save` wrote, or one of the artefact store.
    """

    name = "stored"
    uses_text = False
    made_elsewhere = True

    @property
    def folder(self) -> Path:
        """Where the codes are; a checkpoint holds them itself, and does not ask.

        Raises:
            ConfigError: there are none.
        """
        path = Path(ContentKeys.of(self.config).tokenizer)
        for folder in (path, path / "codes"):
            if (folder / META).is_file():
                return folder
        raise ConfigError(
            f"tokenizer: {str(path)!r} is neither the name of a tokenizer nor a folder with stored "
            "codes."
        )

    def config_key(self, switches: bool = True) -> dict[str, Any]:
        """What the folder holds."""
        header = read_json(self.folder / META, advice=COPY_AGAIN)
        return {"sha256": header.get("sha256"), "meta": header.get("meta_digest")}

    def fit(self, content: ItemContent) -> ItemCodes:
        """Read the codes.

        Raises:
            ArtefactError: they are damaged, or belong to other items.
            ConfigError: there are none.
        """
        return ItemCodes.load(self.folder, COPY_AGAIN).aligned(content.tokens)

    def encode(self, new: NewItems) -> Tensor:
        """Always an error: stored codes hold no rule for new items.

        Raises:
            ConfigError: always.
        """
        folder = ContentKeys.of(self.config).tokenizer
        raise ConfigError(
            f"The codes stored in {folder} cannot encode new items. Name the tokenizer that made "
            "them in the key tokenizer."
        )
