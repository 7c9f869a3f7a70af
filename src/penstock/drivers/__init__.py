"""One file a driver; `base` says what a pool asks of each."""

from __future__ import annotations

from importlib import import_module

from .base import Driver

# A name of the public face to the module and class that serve it. Imported when a pool asks for it, not before.
_DRIVERS = {"psycopg": ("psycopg", "PsycopgDriver"), "asyncpg": ("asyncpg", "AsyncpgDriver")}


def load(name: str | Driver, connection_class: type | None, is_async: bool) -> Driver:
    """The driver of that name for connections of *connection_class* (None: the driver's own).

    One that is an object already is taken as it is.

    :raises ValueError: when there is no such driver.
    :raises ImportError: when the package that it needs is not installed; the message says which.
    """
    if not isinstance(name, str):
        return name
    if name not in _DRIVERS:
        raise ValueError(f"driver must be one of {', '.join(map(repr, _DRIVERS))}, not {name!r}")
    module, cls = _DRIVERS[name]
    try:
        driver: Driver = getattr(import_module(f".{module}", __name__), cls)(connection_class, is_async)
    except ModuleNotFoundError as error:
        raise ImportError(f"driver {name!r} needs {error.name}: pip install 'penstock[postgres]'") from None
    return driver
