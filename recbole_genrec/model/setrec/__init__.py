"""SETRec: an item is a set of continuous tokens; all tokens of the next item are predicted at once."""
