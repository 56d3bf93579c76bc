"""From vectors to codes: clusterings, quantising networks and their losses; tensors only."""
