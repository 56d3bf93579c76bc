"""Item content to codes: one file per tokenizer, the quantisers, the collision policies and the store of finished results.

Start with :mod:`~recbole_genrec.tokenizer.base` (what a tokenizer is) and :mod:`~recbole_genrec.tokenizer.codes` (what it returns).
"""
