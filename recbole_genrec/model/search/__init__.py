"""The search of methods that generate codes."""
