"""Decoder-only language models (OPT, Llama, Qwen and others)."""
