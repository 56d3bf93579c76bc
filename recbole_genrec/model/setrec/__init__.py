"""SETRec: an item is a set of continuous tokens; those of the next item are predicted at once."""
