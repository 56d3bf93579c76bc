"""RecBole's data and files of users: what is read, how it is split, and what is known about items."""
