"""Public datasets, downloaded and converted to RecBole's files."""
