"""Figures of results, as plotly figures; they know no models and no files."""
