"""A bounded job over an API and a database: each item's result saved once, whatever ends the job in between.

`for_each` for threads, `penstock.batch.aio.for_each` for asyncio. ``docs/batch.md`` has it in full.
"""

try:
    import httpx  # noqa: F401 - said here, once and for all of the room
except ModuleNotFoundError as error:
    raise ImportError(f"penstock.batch needs {error.name}: pip install 'penstock[batch]'") from None

from .outcome import BatchInterrupted, BatchStopped, Failure, HeldOverCall, Report
from .retry import Rate, Retry
from .threads import for_each

__all__ = [
    "BatchInterrupted",
    "BatchStopped",
    "Failure",
    "HeldOverCall",
    "Rate",
    "Report",
    "Retry",
    "for_each",
]
