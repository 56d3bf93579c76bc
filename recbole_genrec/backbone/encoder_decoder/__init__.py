"""Encoder-decoder language models (T5)."""
