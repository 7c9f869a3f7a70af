"""Told of each driver as it is imported, before the program sees it."""

from __future__ import annotations

import logging
from importlib import import_module
from types import ModuleType

from .settings import Mode, from_environ

logger = logging.getLogger("penstock.guard")

_FILES = {"MySQLdb": "mysqlclient", "mysql.connector": "mysql_connector"}
_ROOMS = {Mode.WATCH: "watching", Mode.HOLD: "holding"}
_ONLY_WATCHED = {"sqlite3"}  # in this process: there is no server that could have too many


def imported(driver: ModuleType) -> None:
    """Put *driver* under guard. Whatever goes wrong here, the program runs as it would have."""
    try:
        settings = from_environ()
        if settings is not None and not (settings.mode is Mode.HOLD and driver.__name__ in _ONLY_WATCHED):
            name = _FILES.get(driver.__name__, driver.__name__)
            import_module(f"penstock.guard.{_ROOMS[settings.mode]}.{name}").install(driver, settings)
    except Exception:
        logger.exception("%s is not under guard", driver.__name__)
