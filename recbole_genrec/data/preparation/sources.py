"""Where raw data lies: RecBole's downloads, or a folder, archive or file at hand."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import socket
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from recbole_genrec.errors import DataError

_JSON = (".json", ".json.gz")
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class RawFiles:
    """The interactions (``.inter`` or JSON lines) and the item file of the same form, if any."""

    interactions: Path
    items: Path | None


def recbole_folder() -> Path:
    """Folder of the installed RecBole package, found without importing it."""
    spec = importlib.util.find_spec("recbole")
    if spec is None or spec.origin is None:
        raise DataError(
            "RecBole is not installed, and its list of dataset addresses is needed: run `pip "
            "install recbole==1.2.1`."
        )
    return Path(spec.origin).parent


def recbole_url(name: str) -> str:
    """Address of a dataset in RecBole's own table."""
    table = recbole_folder() / "properties" / "dataset" / "url.yaml"
    return yaml.safe_load(table.read_text(encoding="utf-8"))[name]


def download(url: str, folder: Path, dataset: str) -> None:
    """Download and unpack an archive of atomic files with RecBole's helpers.

    Not through ``Dataset._download``: that ends in ``torch.distributed.barrier()``, which fails in
    a single process.

    Raises:
        DataError: no network, an interrupted download, or a damaged archive.
    """
    from recbole.utils.url import download_url, extract_zip

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        extract_zip(download_url(url, str(folder)), str(folder))
    except (
        OSError,
        RuntimeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
        http.client.HTTPException,
    ) as error:
        raise DataError(
            f"{dataset} cannot be downloaded from {url} ({type(error).__name__}: {error}). Fetch "
            "this address on a machine with network, copy the file here and run `recbole-genrec "
            f"prepare {dataset} --source=<that file>`."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


@contextlib.contextmanager
def unpacked(source: Path, folder: Path) -> Iterator[Path]:
    """``source`` itself, or ``folder`` with its contents when it is a zip archive."""
    if source.suffix.lower() != ".zip":
        yield source
        return
    try:
        with zipfile.ZipFile(source) as archive:
            archive.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, OSError) as error:
        raise DataError(
            f"--source={source} is no readable zip archive ({error}). Download it again."
        ) from error
    yield folder


def find_files(source: Path, hint: str) -> RawFiles:
    """The raw files in a folder (searched through), or the given file and its item file.

    Atomic files win over Amazon's JSON files; of several candidates the one whose name contains
    ``hint`` is taken.

    Raises:
        DataError: nothing there, nothing usable, or several candidates.
    """
    if source.is_file():
        if source.suffix == ".inter":
            return _with_atomic_items(source)
        if source.name.lower().endswith(_JSON):
            return RawFiles(source, _pick(_metadata(source.parent), hint, source.parent))
        raise DataError(
            f"--source={source} must be a .inter file, a .json or .json.gz file of Amazon reviews, "
            "a .zip archive, or a folder."
        )
    if not source.is_dir():
        raise DataError(f"--source={source} does not exist.")
    inter = _pick(sorted(source.rglob("*.inter")), hint, source)
    if inter is not None:
        return _with_atomic_items(inter)
    metadata = _metadata(source)
    reviews = _pick([path for path in _json_files(source) if path not in metadata], hint, source)
    if reviews is None:
        raise DataError(
            f"{source} holds neither a .inter file of RecBole nor a .json or .json.gz file of "
            "Amazon reviews."
        )
    return RawFiles(reviews, _pick(metadata, hint, source))


def _with_atomic_items(inter: Path) -> RawFiles:
    items = inter.with_suffix(".item")
    return RawFiles(inter, items if items.is_file() else None)


def _json_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.name.lower().endswith(_JSON))


def _metadata(folder: Path) -> list[Path]:
    return [path for path in _json_files(folder) if path.name.lower().startswith("meta")]


def _pick(candidates: list[Path], hint: str, folder: Path) -> Path | None:
    if len(candidates) > 1:
        named = [path for path in candidates if hint in path.name.lower()]
        if len(named) != 1:
            names = ", ".join(path.name for path in candidates[:8])
            raise DataError(
                f"{folder} holds several files that may be meant ({names}). Give --source a folder "
                "with one of them."
            )
        return named[0]
    return candidates[0] if candidates else None
