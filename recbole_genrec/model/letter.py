"""LETTER (arXiv 2405.07314): a learnable tokenizer on an unchanged generator.

Its tokenizer has a semantic, a collaborative and a diversity loss.

==============================  ===========================================================
paper                           here
==============================  ===========================================================
semantic regularisation         ``tokenizer/quantiser/rqvae.py``: ``RQVAE``
collaborative regularisation    ``tokenizer/quantiser/letter_loss.py``:
                                ``LETTERLoss.collaborative``
diversity regularisation        ``tokenizer/quantiser/letter_loss.py``: ``diversity``,
                                ``balanced_clusters``
training of the tokenizer       ``tokenizer/letter_tokenizer.py``: ``LETTERTokenizer``
ranking-guided generation loss  ``decoding/smoothing.py``: ``ranking_guided_loss``,
                                key ``temperature``
generator                       ``generator: tiger`` (this class), ``timeline`` or ``lcrec``
==============================  ===========================================================
"""

from __future__ import annotations

from recbole_genrec.model.tiger import TIGER


class LETTER(TIGER):
    """TIGER's generator on LETTER's codes, with the temperature of its loss.

    ``properties/model/LETTER.yaml`` lists the keys.
    """
