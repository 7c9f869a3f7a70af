"""A small Django project. Its database comes from the environment, as JSON: what `DATABASES["default"]` is to be."""

import json
import os
from importlib.util import find_spec

if find_spec("MySQLdb") is None and "mysql" in os.environ["DJANGO_DATABASE"]:
    import pymysql

    pymysql.install_as_MySQLdb()

SECRET_KEY = "of no use to anybody"
DATABASES = {"default": json.loads(os.environ["DJANGO_DATABASE"])}
INSTALLED_APPS = ["penstock.integrations.django", "support.django_project"]
ROOT_URLCONF = "support.django_project.urls"
ASGI_APPLICATION = "support.django_project.asgi.application"
MIDDLEWARE: list[str] = []
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
ALLOWED_HOSTS = ["*"]
