# audit: pooling=transaction
"""A settings file of Django's, of a program behind PgBouncer: as its documentation has it."""

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "app",
        "DISABLE_SERVER_SIDE_CURSORS": True,
        "CONN_MAX_AGE": 60,
    },
    "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": "other.db"},
}
