"""What one service may have, with everything that its settings are written from."""

from __future__ import annotations

from dataclasses import dataclass

from ..formula import count
from ..model import Budget, Database, Pooler, Service
from ..shares import Account

# Seconds, the same for every stack. A caller that waits for a connection must give up before the proxy in front of it
# does (30 s is common), and a connection must be older than no firewall, failover or DNS change can bear.
CONNECT = 5
WAIT = 10
IDLE = 600
LIFETIME = 1800
PREPARED = "Behind a pooler in transaction mode the next statement may be on another connection: prepare none."
WARM = 4  # connections that a pool keeps open when it may, as psycopg's own does


@dataclass(frozen=True, slots=True)
class Share:
    """The share of one service, at the worst moment.

    :ivar each: connections that each of its processes may open; 1 or more.
    :ivar pooler: what it connects to, when that is not the database.
    """

    budget: Budget
    service: Service
    account: Account
    each: int
    database: Database
    pooler: Pooler | None

    @property
    def warm(self) -> int:
        """Connections to keep open when nobody needs them."""
        return min(WARM, self.each)

    @property
    def variable(self) -> str:
        """The environment variable that has the URL; the URL itself is never shown."""
        where = self.database if self.pooler is None else self.pooler
        url = where.url or ""
        return url.removeprefix("env:") if url.startswith("env:") else "DATABASE_URL"

    @property
    def arithmetic(self) -> list[str]:
        """Where the figure comes from, a sentence a line."""
        service, account = self.service, self.account
        extra = service.alive - service.replicas
        replicas = f"({service.replicas} + {extra} in a deploy)" if extra else str(service.replicas)
        many = service.processes_at_worst
        others = account.usable - many * self.each
        rest = f"; {others} are for other services or left over" if others else ""
        line = self.budget.line("services", service.name)
        taken = account.limit - account.usable
        return [
            f"Service {service.name} ({self.budget.path}:{line}): at most {count(self.each, 'connection')} a process.",
            f"{account.kind} {account.name}: {account.limit} connections, {taken} spoken for: {account.usable} usable.",
            f"{replicas} x {count(service.processes, 'process', 'processes')} = {many} at the worst moment.",
            f"{many} x {self.each} = {many * self.each} of {account.usable}{rest}.",
        ]

    def comment(self, sign: str, *more: str) -> str:
        """The arithmetic as comments that begin with *sign*, and *more* lines after it."""
        return "\n".join(f"{sign} {line}" for line in (*self.arithmetic, *more)) + "\n"
