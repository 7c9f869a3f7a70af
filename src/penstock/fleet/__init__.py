"""One budget for many processes: each one's share, agreed through the database itself."""

from ..pool.base import BasePool
from .declared import of
from .settings import Fleet

BasePool._fleet_of = staticmethod(of)  # so that `from_budget` can make what stands above it

__all__ = ["Fleet"]
