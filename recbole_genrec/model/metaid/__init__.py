"""META ID: the model, its prompts, its vocabulary and the diagnostics of its identifiers."""
