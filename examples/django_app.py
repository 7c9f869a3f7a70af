"""Notes over HTTP, with Django in one file: under WSGI or ASGI, at most five connections a process.

    export DSN=postgresql://localhost/postgres
    psql "$DSN" -c "CREATE TABLE notes (id serial PRIMARY KEY, note text NOT NULL)"
    .venv/bin/gunicorn --chdir examples --threads 8 django_app:application
    .venv/bin/uvicorn --app-dir examples django_app:asgi
"""

import json
import os
import sys

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from psycopg.conninfo import conninfo_to_dict

from penstock.integrations import asgi as penstock_asgi
from penstock.integrations import wsgi as penstock_wsgi

where = conninfo_to_dict(os.environ["DSN"])
settings.configure(
    SECRET_KEY="an example's",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["penstock.integrations.django"],
    DATABASES={
        "default": {
            "ENGINE": "penstock.integrations.django.postgresql",
            "NAME": where.pop("dbname"),
            "USER": where.pop("user", ""),
            "PASSWORD": where.pop("password", ""),
            "HOST": where.pop("host", ""),
            "PORT": where.pop("port", ""),
            "OPTIONS": {"pool": {"min_size": 1, "max_size": 5}, **where},
        }
    },
)


@csrf_exempt
def add(request):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO notes (note) VALUES (%s) RETURNING id", (json.loads(request.body),))
        return JsonResponse(cursor.fetchone()[0], safe=False, status=201)


def read(request, number):
    with connection.cursor() as cursor:
        cursor.execute("SELECT note FROM notes WHERE id = %s", (number,))
        row = cursor.fetchone()
    return JsonResponse(row[0] if row else None, safe=False)


urlpatterns = [path("notes", add), path("notes/<int:number>", read)]

# Django makes and opens the pool of each of its aliases itself.
application = penstock_wsgi.PenstockMiddleware(get_wsgi_application(), deadline=2.0, live="/livez")
asgi = penstock_asgi.PenstockMiddleware(get_asgi_application(), deadline=2.0, live="/livez")

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)  # python examples/django_app.py penstock
