"""The methods, a file or a folder each, and what they share: hooks, lists and the search."""
