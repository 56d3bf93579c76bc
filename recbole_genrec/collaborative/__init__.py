"""What may be learned from interactions: the training split alone."""
