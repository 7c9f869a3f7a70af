"""One budget for many processes: each one's share, agreed through the database itself."""

from .settings import Fleet

__all__ = ["Fleet"]
