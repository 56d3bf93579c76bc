"""Lists of the next items, for people, programs and files."""
