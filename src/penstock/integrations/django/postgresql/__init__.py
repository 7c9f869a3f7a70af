"""Django's PostgreSQL backend with a pool of ours beneath."""
