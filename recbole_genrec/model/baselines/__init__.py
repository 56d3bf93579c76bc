"""Baselines that RecBole lacks or that it needs repaired."""
