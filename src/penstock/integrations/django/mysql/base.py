"""``ENGINE = "penstock.integrations.django.mysql"``: MySQL and MariaDB, which have no pool in Django."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper  # type: ignore[import-untyped]
from django.db.backends.mysql import base  # type: ignore[import-untyped]

from ..wrapper import Pooled


class DatabaseWrapper(Pooled, base.DatabaseWrapper):  # type: ignore[misc]
    """Django's own, whose connections are lent by a pool (see `Pooled`)."""

    # PyMySQL can stand in for mysqlclient: `pymysql.install_as_MySQLdb()`.
    pool_driver = "pymysql" if base.Database.__name__ == "pymysql" else "mysqlclient"

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
        params.pop("pool", None)
        return params  # type: ignore[no-any-return]

    def pool_kwargs(self, params: dict[str, Any]) -> dict[str, Any]:
        return params | {"autocommit": True}  # Django sets it as it is to be

    def configuring(self) -> Callable[[Any], object]:
        begin = base.DatabaseWrapper.init_connection_state

        def configure(conn: Any) -> None:
            if conn.encoders.get(bytes) is bytes:  # as Django does, to each connection that it makes
                conn.encoders.pop(bytes)
            wrapper = self.for_one(conn)
            wrapper.get_connection_params()  # which learns the isolation level
            begin(wrapper)
            conn.commit()  # mysqlclient does not know whether what was set has begun a transaction

        return configure

    def connect_lent(self, conn_params: Mapping[str, Any]) -> Any:
        pool = self.pool
        assert pool is not None, "bug: nobody to borrow from"
        return pool.getconn()

    def init_connection_state(self) -> None:
        if self._lender is None:
            super().init_connection_state()
        else:  # the pool has done it, once: with each connect Django would set the session, which is then to be reset
            BaseDatabaseWrapper.init_connection_state(self)

    def is_usable(self) -> bool:
        return self.connection is not None and bool(super().is_usable())  # Django's own keeps one that is closed
