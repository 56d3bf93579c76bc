"""What is known about items: their texts, and what the training split says."""
