"""What a pretrained text tokenizer must be like before its language model is trained."""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerBase

from recbole_genrec.errors import BackboneError

CODE_WORD = re.compile(r"<[a-z]_\d+>")
"""The form of the words that stand for codes, see ``CodeVocabulary.words``."""


def check_text_tokenizer(backbone: str, tokenizer: PreTrainedTokenizerBase, n_rows: int) -> None:
    """Refuse a tokenizer that does not fit the embedding table, or that has words for codes.

    Args:
        backbone: folder or hub id, for the message.
        tokenizer: of the language model.
        n_rows: rows of the language model's embedding table.

    Raises:
        BackboneError: a word has no row, or is one of those that codes get.
    """
    vocabulary = tokenizer.get_vocab()
    n_words = max(vocabulary.values(), default=-1) + 1
    if n_words > n_rows:
        raise BackboneError(
            f"The tokenizer of the backbone {backbone!r} has {n_words} words, but the embedding "
            f"table of its language model has {n_rows} rows, so the last {n_words - n_rows} words "
            f"have no vector. Load the model with transformers, call "
            f"resize_token_embeddings({n_words}), save it with save_pretrained, and name that "
            "folder."
        )
    words = sorted(word for word in vocabulary if CODE_WORD.fullmatch(word))
    if words:
        raise BackboneError(
            f"The tokenizer of the backbone {backbone!r} already has {len(words)} words for codes "
            f"such as {words[0]}, as an export with --merge or a published recommender has. The "
            "codes of this run would get the same names. Use the language model that it was made "
            "from."
        )
