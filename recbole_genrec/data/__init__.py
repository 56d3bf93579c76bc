"""Item text, sentence embeddings and dataset preparation."""
