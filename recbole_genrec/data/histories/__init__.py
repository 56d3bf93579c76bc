"""What users have chosen so far."""
