"""SETRec: an item is a set of continuous tokens, and those of the next one are predicted at once."""
