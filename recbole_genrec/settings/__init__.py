"""Rules, keys, parsing and property files: what a setting may be and where its default stands."""
