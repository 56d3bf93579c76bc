"""RecBole's training loop with resume, replicas and accounting."""
