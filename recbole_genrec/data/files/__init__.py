"""Files of RecBole's formats and of users: cells, headers, ids and times as they are written."""
