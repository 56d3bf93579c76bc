"""Whether a run reads texts of items: checked before it trains, and said in its summary."""

from __future__ import annotations

from typing import get_args

from recbole_genrec.data.inter_files import interaction_files
from recbole_genrec.data.items.item_text import check_texts_of
from recbole_genrec.errors import ConfigError, DataError
from recbole_genrec.model.outside import location
from recbole_genrec.model.registry import is_generative
from recbole_genrec.model.stored import TextUse


def check_item_texts(config) -> None:
    """Refuse a run that needs texts of items which its data and settings do not give.

    Data that is not there yet is not looked at.

    Args:
        config: a ``GenRecConfig``.

    Raises:
        DataError: says who needs texts, which columns there are, and what needs no texts.
        ConfigError: a class from outside answers ``text_use`` with another word.
    """
    model_class = config.model_class
    if not is_generative(model_class):
        return
    use = model_class.text_use(config)
    if use not in get_args(TextUse):
        words = ", ".join(map(repr, get_args(TextUse)))
        raise ConfigError(
            f"text_use of {location(model_class)} returns {use!r}. It must return one of {words}."
        )
    if use != "required":
        return
    if not all(file.is_file() for file in interaction_files(config)):
        return
    try:
        check_texts_of(config)
    except DataError as error:
        raise DataError(f"{_reader(config)} needs texts of items. {error}") from error


def text_line(config) -> str:
    """The columns of item texts, and whether anything reads them."""
    fields = config.settings.item_text_fields
    if not fields:
        return "none"
    line = ", ".join(fields)
    if config.model_class.text_use(config) == "none":
        return f"{line} (shown in lists, not read by {_reader(config)})"
    return line


def _reader(config) -> str:
    """The method, with its tokenizer where it offers several."""
    name = config.model_class.__name__
    chosen = config.model_class.needs_tokenizer and not config.declarations["tokenizer"].choices
    return f"{name} with tokenizer: {config.settings.tokenizer}" if chosen else name
