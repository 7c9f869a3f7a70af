"""A read-through cache in front of a query, for when there is no connection to be had.

While the database answers, it answers from memory for `fresh` seconds and loads anew after that. While the pool is
exhausted, shedding or broken, the last good value stands in, with its age; where there is none, `Unavailable` is raised
at once, which a web layer maps to 503 with ``Retry-After``. ``docs/fallback.md`` has it in full.
"""

from .aio import AsyncFallback
from .policy import Answer
from .redis import Redis
from .snapshot import Snapshot
from .sync import Fallback
from .trouble import Unavailable

__all__ = ["Answer", "AsyncFallback", "Fallback", "Redis", "Snapshot", "Unavailable"]
