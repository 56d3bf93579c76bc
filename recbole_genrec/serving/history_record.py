"""What the histories were when a file of lists was written, for ``--users=changed``."""

from __future__ import annotations

from pathlib import Path

from recbole_genrec.storage.artefacts import read_json, write_json


class Record:
    """What the histories were when a file of lists was written, beside that file.

    Args:
        output: the file of lists.
    """

    def __init__(self, output: Path) -> None:
        self.file = output.with_name(f"{output.name}.histories.json")

    def read(self) -> dict[str, int] | None:
        """Digests of histories by raw user id; ``None`` without a record.

        Raises:
            ArtefactError: it is damaged.
        """
        if not self.file.is_file():
            return None
        advice = (
            "Make the lists with --users=all, which writes it anew, or delete it to compare with "
            "the training."
        )
        return read_json(self.file, {"histories": dict}, advice)["histories"]

    def update(self, digests: dict[str, int]) -> None:
        """Take over the digests of all users of the data."""
        write_json(self.file, {"histories": digests})
