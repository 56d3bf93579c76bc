"""Where checkpoints are: files, folders, and hub ids.

What a hub id names is a folder of open formats, fetched once and kept by huggingface_hub.
"""

from __future__ import annotations

import re
from pathlib import Path

from recbole_genrec.errors import ArtefactError

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
OPEN_FORMATS = ["*.json", "*.safetensors", "*.md"]
"""What is fetched: nothing in these formats can run."""


def local_checkpoint(name: str) -> str:
    """The path of a checkpoint; one of the hub is fetched first.

    Args:
        name: a file, a folder, or a hub id such as ``shop/tiger-beauty``.

    Raises:
        ArtefactError: there is no such file or folder, and the hub cannot give it.
    """
    if Path(name).expanduser().exists():
        return str(Path(name).expanduser())
    if not HUB_ID.fullmatch(name) or name.endswith((".pth", ".safetensors")):
        raise ArtefactError(f"The checkpoint {name} does not exist.")
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name, allow_patterns=OPEN_FORMATS)
    except Exception as error:  # the hub raises many types, its offline mode too
        raise ArtefactError(
            f"{name} is neither a file nor a folder here, and the hub does not give it "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200]}). Check the name, or "
            "copy the export here and name its folder."
        ) from error
