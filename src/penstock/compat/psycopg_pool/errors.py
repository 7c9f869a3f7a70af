"""psycopg_pool's exceptions. What Penstock's pools raise derives from them: PoolExhausted is a PoolTimeout here too."""

import psycopg

from ... import errors

PoolClosed = errors.under(errors.PoolClosed, psycopg.OperationalError)
PoolTimeout = errors.under(errors.PoolTimeout, psycopg.OperationalError)
TooManyRequests = errors.under(errors.TooManyRequests, psycopg.OperationalError)

__all__ = ["PoolClosed", "PoolTimeout", "TooManyRequests"]
