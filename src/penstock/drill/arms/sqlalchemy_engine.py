"""SQLAlchemy as people configure it: not at all."""

from typing import ClassVar

from psycopg.conninfo import conninfo_to_dict

from penstock.drill.arms.arm import Arm
from penstock.drill.work import Request


class SQLAlchemyEngine(Arm):
    """`create_engine(url)`: 5 connections and 10 more in each instance, which nobody multiplies by the instances."""

    name: ClassVar[str] = "sqlalchemy"
    title: ClassVar[str] = "SQLAlchemy as people configure it"
    package: ClassVar[str] = "sqlalchemy"

    def __init__(self, dsn: str, pool_size: int) -> None:
        self._dsn = dsn

    def start(self) -> None:
        from sqlalchemy import URL, create_engine

        parameters = {name: str(value) for name, value in conninfo_to_dict(self._dsn).items() if value is not None}
        # In the query, because a conninfo may hold what a URL has no place for (a socket's folder, several hosts).
        self._engine = create_engine(URL.create("postgresql+psycopg", query=parameters))

    def request(self, work: Request) -> None:
        with self._engine.connect() as connection:
            work(connection.exec_driver_sql)
            connection.commit()

    def stop(self) -> None:
        self._engine.dispose()
