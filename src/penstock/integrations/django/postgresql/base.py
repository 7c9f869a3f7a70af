"""``ENGINE = "penstock.integrations.django.postgresql"``"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured  # type: ignore[import-untyped]
from django.db.backends.postgresql import base  # type: ignore[import-untyped]
from django.db.backends.postgresql.psycopg_any import is_psycopg3  # type: ignore[import-untyped]

from ..wrapper import Pooled

if not is_psycopg3:
    raise ImproperlyConfigured("this database backend needs psycopg 3: pip install 'penstock[django]'")

from psycopg.pq import TransactionStatus

from ....drivers.psycopg import tracked


class DatabaseWrapper(Pooled, base.DatabaseWrapper):  # type: ignore[misc]
    """Django's own, whose connections are lent by a pool (see `Pooled`)."""

    pool_driver = "psycopg"

    def configuring(self) -> Callable[[Any], object]:
        return lambda conn: self.for_one(conn)._configure_connection(conn)

    def pool_kwargs(self, params: dict[str, Any]) -> dict[str, Any]:
        return params | {"autocommit": True}  # Django sets it as it is to be

    def named(self, params: dict[str, Any], name: str) -> dict[str, Any]:
        return {"fallback_application_name": name} | params

    def connect_lent(self, conn_params: Mapping[str, Any]) -> Any:
        return base.DatabaseWrapper.get_new_connection(self, conn_params)

    def _set_autocommit(self, autocommit: bool) -> None:
        # Django says it with each connect. Said again it changes nothing, but the connection would not look untouched.
        conn = self.connection
        if conn.autocommit != autocommit or conn.pgconn.transaction_status != TransactionStatus.IDLE:
            super()._set_autocommit(autocommit)

    def create_cursor(self, name: str | None = None) -> Any:
        cursor = super().create_cursor(name)
        if name is not None and self._lender is not None:  # made past the connection's own factories
            made: Any = type(cursor)
            cursor.__class__ = tracked(made)
        return cursor
