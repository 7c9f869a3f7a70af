"""pgbouncer.ini for one instance of a pooler.

PgBouncer has no limit on all its server connections: only on those of a database entry or of a user, and every
(database, user) pair is a pool of its own. So the budget's `pool_size` is the limit of the one database entry, and a
second entry would double it.
"""

from __future__ import annotations

from ..formula import count
from ..model import Budget
from .share import CONNECT, IDLE, LIFETIME, WAIT


def ini(budget: Budget, name: str) -> str:
    """The settings of one instance. Addresses and users stay yours: no URL is read."""
    pooler = budget.poolers[name]
    all_of_them = pooler.instances * pooler.pool_size
    size = count(pooler.pool_size, "connection")
    clients = pooler.instances * pooler.max_clients
    through = ", ".join(each.name for each in budget.services_through(name)) or "none declared"
    lines = [
        f"Pooler {name}: one instance of {pooler.instances} ({budget.path}:{budget.line('poolers', name)}).",
        f"{count(pooler.instances, 'instance')} x {size} = {all_of_them} of database {pooler.database}.",
        f"{count(pooler.instances, 'instance')} x {pooler.max_clients} clients = {clients} for services: {through}.",
        "With so_reuseport each process counts as an instance.",
    ]
    comment = "\n".join(f"; {line}" for line in lines)
    return f"""{comment}

[databases]
; Keep it to one entry: max_db_connections counts for each. Fill in where the database is, and as whom to connect:
; with `user=` there is one pool, whoever comes.
;{pooler.database} = host=... port=5432 dbname=... user=...

[pgbouncer]
pool_mode = transaction
; what no entry passes, all its users together
max_db_connections = {pooler.pool_size}
; each (database, user) pair is a pool; 0 would mean no limit since PgBouncer 1.24
default_pool_size = {pooler.pool_size}
min_pool_size = {min(4, pooler.pool_size)}
reserve_pool_size = 0
; needs as many open files: ulimit -n at least {pooler.max_clients + pooler.pool_size + 100}
max_client_conn = {pooler.max_clients}
; for clients that prepare statements all the same; PgBouncer has it since 1.21, and an older one does not start with it
;max_prepared_statements = 200
; seconds. A client that waits longer is refused, before the proxy in front of it gives up (120 if not given)
query_wait_timeout = {WAIT}
server_connect_timeout = {CONNECT}
; a database that refused is tried again after this; 15 if not given makes a short outage last as long
server_login_retry = 2
server_idle_timeout = {IDLE}
server_lifetime = {LIFETIME}
; ends who keeps a transaction open and does nothing, which holds a server connection
idle_transaction_timeout = 60
; sent by JDBC and others, of no consequence to a pooler
ignore_startup_parameters = extra_float_digits
"""
