"""Codes that others published: a JSON file that maps each item to its code words.

LC-Rec (arXiv 2311.09049) and LETTER (arXiv 2405.07314) publish theirs as ``Games.index.json``,
``{"0": ["<a_12>", "<b_7>", "<c_3>"], ...}``, whose items are numbers, and the raw id of each number
in ``Games.item2id`` beside it. Raw ids as keys, plain numbers as codes, and one text an item
(``"<a_12><b_7>"``, as in the ``items.json`` of our exports) are read too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recbole_genrec.data.files.index_files import files_of_index, numbers_file
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.settings.declaration import key
from recbole_genrec.settings.shared_keys import ContentKeys
from recbole_genrec.settings.tokenizer_keys import Policy, TokenizerSettings
from recbole_genrec.storage.digests import file_digest, read_bytes
from recbole_genrec.tokenizer.base import ItemTokenizer, NewItems
from recbole_genrec.tokenizer.codes import ItemCodes
from recbole_genrec.tokenizer.collision import collision_stats, parse_policies

if TYPE_CHECKING:
    from recbole_genrec.data.content import ItemContent

WORD = re.compile(r"<?([A-Za-z]*)_?(\d+)>?")
EXAMPLE = '{"item id": ["<a_12>", "<b_7>", "<c_3>"], ...}'
MOST_CODES = 2**20
"""Larger numbers are no codes of a level."""
logger = getLogger(__name__)


class IndexFileSettings(TokenizerSettings):
    """Keys of ``tokenizer: <file>.json``."""

    collision: list[str] | Policy | None = key(
        "policies for items with the same code words; without extra_token they share their codes",
        affects="tokenizer",
        default=None,
        neutral=None,
    )


class IndexFile(ItemTokenizer):
    """Codes from an index file (``tokenizer: <file>.json``).

    Items of the file that the data lacks are left out. Items with the same code words get an extra
    token, in the order of their raw ids, unless ``collision`` names other policies alone: then they
    share their codes, as in the runs of LETTER and LC-Rec.
    """

    name = "index"
    uses_text = False
    made_elsewhere = True
    settings_class = IndexFileSettings
    settings: IndexFileSettings

    @property
    def file(self) -> Path:
        """The index file."""
        return Path(ContentKeys.of(self.config).tokenizer).expanduser()

    def config_key(self, switches: bool = True) -> dict[str, Any]:
        """What the files hold, and what becomes of equal codes where that is not the default."""
        files = files_of_index(self.file)
        values: dict[str, Any] = {"files": [file_digest(file) for file in files]}
        if len(files) > 1:
            # Earlier versions took a number without a line for a raw id, and stored such codes.
            values["without a line"] = "left out"
        return values if self._tells_apart else {**values, "collision": ["none"]}

    @property
    def _tells_apart(self) -> bool:
        """Whether items with the same code words get an extra token."""
        policies = self.settings.collision
        return policies is None or "extra_token" in parse_policies(policies)

    def fit(self, content: ItemContent) -> ItemCodes:
        """Read the codes.

        Raises:
            DataError: the file is no index, or lacks items of the data.
        """
        ordered = content.by_raw_id().tokens
        items = ordered[1:]
        index = _read(self.file)
        words = _by_raw_id(self.file, index, items)
        _say_left_out(self.file, index, words, items)
        learned = _codes(self.file, {item: words[item] for item in items})

        sharing = collision_stats(learned)["colliding_items"]
        policies = ["extra_token"] if sharing and self._tells_apart else ["none"]
        if sharing:
            what = "an extra token tells them apart" if self._tells_apart else "they keep them"
            logger.warning(
                f"{self.file}: {sharing} of {len(items)} items share all code words with another "
                f"item; {what} (collision)."
            )
        sizes = (learned.amax(0) + 1).tolist()
        return ItemCodes.build(learned, sizes, ordered, policies).aligned(content.tokens)

    def encode(self, new: NewItems) -> Tensor:
        """Always an error: a file of codes holds no rule for new items."""
        raise ConfigError(
            f"{self.file} holds codes and no rule for new items. Add them to that file and train "
            "again, or use a tokenizer that is fitted here."
        )


def _read(file: Path) -> dict[str, Any]:
    """The content of the file.

    Raises:
        DataError: it is no JSON object, or names an item twice.
    """

    def refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            names = [name for name, _ in pairs]
            twin = next(name for name in content if names.count(name) > 1)
            raise DataError(f"{file} names the item {twin!r} twice. Keep one of the two entries.")
        return content

    try:
        content = json.loads(read_bytes(file).decode("utf-8-sig"), object_pairs_hook=refuse_twins)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is no JSON file ({error}). Expected {EXAMPLE}.") from error
    if not isinstance(content, dict) or not content:
        raise DataError(f"{file} holds no items. Expected {EXAMPLE}.")
    return content


def _by_raw_id(file: Path, index: Mapping[str, Any], items: Sequence[str]) -> dict[str, Any]:
    """The entries of the index by raw item id.

    With a file of raw ids the keys are numbers, and one without a line there is nobody's: it may
    look like the raw id of another item.

    Raises:
        DataError: items of the data have no entry.
    """
    words = dict(index)
    numbers = numbers_file(file)
    if numbers.is_file():
        raw_id = _raw_ids(numbers)
        words = {raw_id[number]: entry for number, entry in index.items() if number in raw_id}
    missing = [item for item in items if item not in words]
    if missing:
        names = ", ".join(missing[:5])
        raise DataError(
            f"{file} has no code words for {len(missing)} of {len(items)} items of the data "
            f"({names}); its first items are {', '.join(list(index)[:3])}. {_remedy(file, index)}"
        )
    return words


def _remedy(file: Path, index: Mapping[str, Any]) -> str:
    """What to do about items without an entry."""
    numbers = numbers_file(file)
    if numbers.is_file():
        return (
            f"Its items are the numbers of {numbers}, which needs a line for each (id in the data, "
            "a tab, number). If they are ids of the data, take that file away."
        )
    if all(item.isdecimal() for item in index):
        return (
            f"Its items are numbers. Put {numbers.name} beside it, with a line for each item "
            "(id in the data, a tab, number), or write the ids of the data into the file."
        )
    return "Its keys must be the item ids of the data."


def _say_left_out(
    file: Path, index: Mapping[str, Any], words: Mapping[str, Any], items: Sequence[str]
) -> None:
    """Log how many entries of the index no item of the data takes."""
    left_out = len(index) - len(items)
    if not left_out:
        return
    unnamed = len(index) - len(words)
    where = f", {unnamed} of them without a line in {numbers_file(file)}" if unnamed else ""
    logger.info("%s: %d items that are not in the data are left out%s", file, left_out, where)


def _raw_ids(file: Path) -> dict[str, str]:
    """The raw id by number, from lines ``raw id<TAB>number``.

    Raises:
        DataError: names the first bad line.
    """
    raw_id: dict[str, str] = {}
    seen: set[str] = set()
    lines = read_bytes(file).decode("utf-8-sig", "replace").splitlines()
    for place, line in enumerate(lines, start=1):
        item, _, number = line.rpartition("\t")
        number = number.strip()
        if not line.strip():
            continue
        if not item or not number.isdecimal() or number in raw_id or item in seen:
            raise DataError(
                f"{file}, line {place}: expected an item id, a tab and a number, both of which no "
                f"other line has, got {line!r:.80}."
            )
        raw_id[number] = item
        seen.add(item)
    return raw_id


def _codes(file: Path, entries: Mapping[str, Any]) -> Tensor:
    """Codes int64 ``[n, L]`` of the entries.

    Raises:
        DataError: names the first item whose words cannot be read.
    """
    rows: list[list[int]] = []
    first: list[str] = []
    for item, entry in entries.items():
        words = [_letter_and_code(file, item, word) for word in _words(entry)]
        letters = [letter for letter, _ in words]
        if not rows:
            first = letters
        if not words or letters != first:
            raise DataError(
                f"{file}: item {item!r} has the code words {entry!r:.80}, but the items before it "
                f"have {len(first)} words of the levels {', '.join(first)}. Every item needs one "
                f"word a level, as in {EXAMPLE}."
            )
        rows.append([code for _, code in words])
    return torch.tensor(rows, dtype=torch.long)


def _words(entry: object) -> list[object]:
    """The code words of one item."""
    if isinstance(entry, str):
        return list(re.findall(r"<[^<>]*>", entry))
    return list(entry) if isinstance(entry, list) else []


def _letter_and_code(file: Path, item: str, word: object) -> tuple[str, int]:
    """``<a_12>`` -> ``("a", 12)``.

    Raises:
        DataError: the word has another form.
    """
    match = WORD.fullmatch(str(word)) if isinstance(word, (str, int)) else None
    if match is None or int(match[2]) >= MOST_CODES:
        raise DataError(
            f"{file}: item {item!r} has the code word {word!r:.40}. Expected words like <a_12>: a "
            "letter for the level and the number of the code."
        )
    return match[1], int(match[2])
