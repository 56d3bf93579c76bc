"""A tokenizer outside the package: an item's codes are the first letters of its title's first
words.
"""

import torch

from recbole_genrec import TokenizerSettings, key
from recbole_genrec.tokenizer import ItemCodes, ItemTokenizer, register_tokenizer


class InitialsSettings(TokenizerSettings):
    n_initials: int = key("letters of an item", ge=1, default=2, affects="tokenizer")


@register_tokenizer
class InitialsTokenizer(ItemTokenizer):
    name = "initials"
    settings_class = InitialsSettings

    def fit(self, content):
        codes = self._codes(content.text[1:])
        sizes = [26] * codes.shape[1]
        return ItemCodes.build(codes, sizes, content.tokens, ["extra_token"], spare=4)

    def encode(self, new):
        return self._codes(new.texts)

    def _codes(self, texts):
        words = [text.removeprefix("title: ").split() for text in texts]
        count = self.config["n_initials"]
        letters = [[ord(word[0]) - ord("a") for word in row[:count]] for row in words]
        return torch.tensor(letters).clamp(0, 25)
