"""TokenRec: codes of users and items in the prompt, items ranked by their collaborative vectors."""
