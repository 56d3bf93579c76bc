"""Decoder-only language models (Qwen, Llama and others)."""
