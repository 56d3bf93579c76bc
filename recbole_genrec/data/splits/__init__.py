"""Interactions that come split into files: their rows, ids, histories and checks."""
