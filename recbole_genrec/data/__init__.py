"""RecBole's data and files of users: what is read, how it is split, what is known of items."""
