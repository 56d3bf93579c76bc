"""Self-improvement: the codes of items are chosen anew while the model trains."""
