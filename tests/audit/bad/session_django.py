# audit: pooling=transaction
"""A settings file of Django's, of a program behind PgBouncer."""

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",  # expect: PEN715
        "NAME": "app",
        "OPTIONS": {"options": "-c statement_timeout=5000"},  # expect: PEN707
    }
}
