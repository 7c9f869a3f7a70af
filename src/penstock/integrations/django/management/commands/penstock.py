"""``manage.py penstock``: who holds connections to the project's databases, as far as another process can know."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError  # type: ignore[import-untyped]
from django.db import DatabaseError, connections  # type: ignore[import-untyped]

from ...held import describe
from ...pool import opened
from ...wrapper import Pooled


class Command(BaseCommand):  # type: ignore[misc]
    help = (
        "Shows how many connections each process of this project has and what they do, and how many the server has"
        " left. It asks the server, over one connection outside of any pool."
    )
    requires_system_checks: tuple[str, ...] = ()  # which may ask the database

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--database", metavar="ALIAS", help="this one only; by default all that have a pool")

    def handle(self, *args: Any, database: str | None = None, **options: Any) -> None:
        ours = [alias for alias in connections if isinstance(connections[alias], Pooled)]
        if not ours or database not in (None, *ours):
            which = f"DATABASES[{database!r}]" if database is not None else "any of DATABASES"
            engine = '"ENGINE": "penstock.integrations.django.postgresql"'
            raise CommandError(f"{which} would have to have {engine}; these have it: {', '.join(ours) or 'none'}")
        failed = []
        for alias in [database] if database is not None else ours:
            try:
                self.stdout.write("\n".join(describe(alias)))
            except DatabaseError as error:
                failed.append(alias)
                self.stderr.write(f"{alias}: the server cannot be asked: {' '.join(str(error).split())}")
            if (pool := opened().get(alias)) is not None:
                self.stdout.write(f"  this process: {pool!r}\n{pool.report()}".rstrip())
        if failed:
            raise CommandError(
                f"of {', '.join(failed)} nothing is known. Where the server is full, ask it as a role that it keeps"
                " connections for: pg_stat_activity has what is shown here, as has MySQL's SHOW PROCESSLIST"
            )
