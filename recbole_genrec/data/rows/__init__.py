"""The rows that a model learns from or is tested on, and their batches."""
