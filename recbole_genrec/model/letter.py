"""LETTER (arXiv 2405.07314): a learnable tokenizer on an unchanged generator.

Its tokenizer has a semantic, a collaborative and a diversity loss.

==============================  ===========================================================
paper                           here
==============================  ===========================================================
semantic regularisation         ``tokenizer/rqvae.py``: ``RQVAE``
collaborative regularisation    ``tokenizer/letter_loss.py``: ``LETTERLoss.collaborative``
diversity regularisation        ``tokenizer/letter_loss.py``: ``diversity``,
                                ``balanced_clusters``
training of the tokenizer       ``tokenizer/letter_tokenizer.py``: ``LETTERTokenizer``
ranking-guided generation loss  :func:`ranking_guided_loss`, key ``temperature``
generator                       ``generator: tiger`` (this class), ``timeline`` or ``lcrec``
==============================  ===========================================================
"""

from __future__ import annotations

from recbole_genrec.model.tiger import TIGER, ranking_guided_loss

__all__ = ["LETTER", "ranking_guided_loss"]


class LETTER(TIGER):
    """TIGER's generator on LETTER's codes, with the temperature of its loss.

    ``properties/model/LETTER.yaml`` lists the keys.
    """
