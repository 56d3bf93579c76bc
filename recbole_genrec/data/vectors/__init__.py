"""Vectors of items: sentence embeddings of their texts, and vectors of users' files."""
