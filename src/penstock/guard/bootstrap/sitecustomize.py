"""Runs before a program that is under guard, in its interpreter and in those of its children.

It costs little where no driver and no web framework is imported: Penstock itself is loaded with the first of them.
Another `sitecustomize` that this one stands before (Debian has one, and so have other tools) runs after it, as it would
have without.
"""

import importlib.util
import os
import sys

DRIVERS = ("psycopg", "psycopg2", "asyncpg", "pymysql", "MySQLdb", "mysql.connector", "aiomysql", "sqlite3")
FRAMEWORKS = (
    *("flask.app", "django.core.handlers.wsgi", "django.core.handlers.asgi", "starlette.applications", "litestar.app"),
    *("falcon.app", "falcon.asgi.app", "bottle", "aiohttp.web_app", "celery.signals"),
)


def start() -> None:
    if os.environ.get("PENSTOCK", "").lower() in ("off", "0", "false", "no") or not os.environ.get("PENSTOCK_RUN"):
        return
    try:
        from wrapt import register_post_import_hook
    except ImportError:  # an interpreter of another environment, such as a tool that the program calls
        return
    if importlib.util.find_spec("penstock") is None:
        return
    for driver in DRIVERS:
        register_post_import_hook("penstock.guard.imported:imported", driver)
    for framework in FRAMEWORKS:
        register_post_import_hook("penstock.guard.frameworks:imported", framework)


def give_way() -> None:
    """Run the `sitecustomize` that would have run."""
    here = os.path.dirname(os.path.abspath(__file__))
    before = sys.path[:]
    sys.path[:] = [entry for entry in before if os.path.abspath(entry or ".") != here]
    this = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        if this is not None:
            sys.modules["sitecustomize"] = this
    finally:
        sys.path[:] = before


start()
give_way()
