"""psycopg_pool's exceptions. What Penstock's pools raise derives from them: PoolExhausted is a PoolTimeout here too."""

try:
    import psycopg
except ModuleNotFoundError as error:
    raise ImportError(f"penstock.compat.psycopg_pool needs {error.name}: pip install 'penstock[postgres]'") from None

from ... import errors

PoolClosed = errors.under(errors.PoolClosed, psycopg.OperationalError)
PoolTimeout = errors.under(errors.PoolTimeout, psycopg.OperationalError)
TooManyRequests = errors.under(errors.TooManyRequests, psycopg.OperationalError)

__all__ = ["PoolClosed", "PoolTimeout", "TooManyRequests"]
