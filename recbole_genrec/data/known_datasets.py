"""The datasets that can be prepared, and what to do about one that is not there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_genrec.settings.rules import nearest

FOLDER_NAME = re.compile(r"(?!\.)[\w.-]+")
"""What the name of a dataset may be: that of one folder."""


@dataclass(frozen=True)
class Field:
    """A text column.

    Args:
        type: RecBole's type.
        clean: how values are cleaned: ``text``, ``price`` or ``categories``.
        sources: its names in the sources.
    """

    type: str
    clean: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """How a dataset is made: download, published counts, k-core, text columns."""

    recbole_name: str
    hint: str
    published: tuple[int, int, int]
    core: int
    fields: dict[str, Field]
    known_items_only: bool = False


_AMAZON = {
    "title": Field("token_seq", "text", ("title",)),
    "brand": Field("token", "text", ("brand",)),
    "categories": Field("token_seq", "categories", ("categories", "category")),
    "price": Field("token", "price", ("price",)),
    "description": Field("token_seq", "text", ("description",)),
}


def _movies(genre: str) -> dict[str, Field]:
    return {
        "movie_title": Field("token_seq", "text", ("movie_title",)),
        "release_year": Field("token", "text", ("release_year",)),
        genre: Field("token_seq", "text", (genre,)),
    }


# Published counts: Beauty, Sports, Toys as in S3-Rec and TIGER; Instruments as in LC-Rec and LETTER
# (items with metadata only); MovieLens as in RecBole's dataset list, unfiltered.
RECIPES = {
    "amazon-beauty": Recipe("amazon-beauty", "beauty", (22_363, 12_101, 198_502), 5, _AMAZON),
    "amazon-sports": Recipe(
        "amazon-sports-outdoors", "sports", (35_598, 18_357, 296_337), 5, _AMAZON
    ),
    "amazon-toys": Recipe("amazon-toys-games", "toys", (19_412, 11_924, 167_597), 5, _AMAZON),
    "amazon-instruments": Recipe(
        "amazon-musical-instruments-18",
        "instruments",
        (24_772, 9_922, 206_153),
        5,
        _AMAZON,
        known_items_only=True,
    ),
    "ml-100k": Recipe("ml-100k", "ml-100k", (943, 1_682, 100_000), 0, _movies("class")),
    "ml-1m": Recipe("ml-1m", "ml-1m", (6_040, 3_706, 1_000_209), 0, _movies("genre")),
}


def how_to_get(name: str, folder: str | Path) -> str:
    """What to do about a dataset whose files are missing.

    Args:
        name: of the dataset.
        folder: where its files were looked for.
    """
    move = "or point --data_path at the folder that holds the dataset's folder."
    if name in RECIPES:
        return f"Make it with 'recbole-genrec prepare {name}', {move}"
    near = nearest(name, {*RECIPES, *datasets_in(Path(folder).parent)} - {name})
    hint = f"Did you mean {near[0]}? " if near else ""
    return f"{hint}{place_of_own_data(name, folder)}, {move}"


def place_of_own_data(name: str, folder: str | Path) -> str:
    """Where data of the user's own lie, a sentence without its full stop.

    Args:
        name: of the dataset.
        folder: of its files.
    """
    return (
        f"Data of your own need no preparation: put {name}.inter, with a line of column names like "
        f"user_id:token, item_id:token and timestamp:float, into {folder}"
    )


def datasets_in(folder: Path) -> Sequence[str]:
    """Names of the datasets whose files lie below ``folder``."""
    if not folder.is_dir():
        return []
    return [path.parent.name for path in folder.glob("*/*.inter")]
