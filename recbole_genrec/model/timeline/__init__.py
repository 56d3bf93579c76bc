"""TimelineRec: one state an item, codes decoded from it (ours)."""
