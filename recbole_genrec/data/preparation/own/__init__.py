"""Tables of one's own, in any common form, to a dataset that ``run`` reads: ``import``."""
