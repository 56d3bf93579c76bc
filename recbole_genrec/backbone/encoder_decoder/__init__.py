"""Encoder-decoder language models of the T5 family."""
