"""A text vocabulary trained on the item texts, for backbones that start from a configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from recbole_genrec.errors import BackboneError

PAD = "<pad>"
UNKNOWN = "<unk>"
SEPARATOR = "<sep>"


def train_text_vocabulary(texts: Sequence[str], size: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE on ``texts`` (Sennrich et al. 2016; bytes as in GPT-2).

    Args:
        texts: item texts and prompt sentences.
        size: largest number of tokens; small catalogues give fewer.

    Returns:
        A ``PreTrainedTokenizerFast`` with padding token 0, and ``<sep>`` as separator and end.

    Raises:
        BackboneError: ``size`` is below 300.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if size < 300:
        raise BackboneError(
            f"text_vocab_size is {size}; byte-level BPE needs the 256 bytes and some merges: "
            "use 300 or more."
        )
    bpe = Tokenizer(models.BPE(unk_token=UNKNOWN))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, UNKNOWN, SEPARATOR],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return wrap_text_vocabulary(bpe.to_str())


def wrap_text_vocabulary(stored: str) -> PreTrainedTokenizerBase:
    """The ``PreTrainedTokenizerFast`` of a vocabulary that was stored as JSON.

    Args:
        stored: JSON of the ``tokenizers`` library.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(stored),
        pad_token=PAD,
        unk_token=UNKNOWN,
        sep_token=SEPARATOR,
        eos_token=SEPARATOR,
    )


def text_vocabulary(
    texts: Sequence[str], size: int, stored: str | None = None
) -> PreTrainedTokenizerBase:
    """A text vocabulary as it was stored, or trained now.

    Args:
        texts: what it is trained on.
        size: largest number of its tokens.
        stored: JSON from :func:`serialised`; ``None`` = train one.
    """
    if stored is None:
        return train_text_vocabulary(texts, size)
    return wrap_text_vocabulary(stored)


def serialised(text_tokenizer: PreTrainedTokenizerBase) -> str:
    """A text vocabulary as JSON of the ``tokenizers`` library.

    Args:
        text_tokenizer: a fast tokenizer of transformers.
    """
    return text_tokenizer.backend_tokenizer.to_str()


def token_ids(text_tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, without special tokens.

    Args:
        text_tokenizer: of the language model.
        text: what is split.
    """
    return text_tokenizer(text, add_special_tokens=False)["input_ids"]


def tokenise_texts(
    text_tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int
) -> tuple[Tensor, Tensor]:
    """Token ids of texts, without special tokens.

    Args:
        text_tokenizer: of the language model.
        texts: n of them.
        max_length: tokens that are kept of each text.

    Returns:
        Ids and validity ``[n, T]``, right-padded.
    """
    return pad_rows([token_ids(text_tokenizer, text)[:max_length] for text in texts])


def pad_rows(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Lists of token ids as one tensor.

    Args:
        rows: n lists.

    Returns:
        Ids and validity ``[n, T]``, right-padded with 0.
    """
    width = max((len(row) for row in rows), default=0)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    valid = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        valid[number, : len(row)] = True
    return ids, valid


def split_words(text: str) -> list[str]:
    """Words and punctuation marks, lower case; the vocabulary of prompts that never change."""
    return re.findall(r"\w+|[^\w\s]", text.lower())
