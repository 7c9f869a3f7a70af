"""SQLAlchemy's engine on our pool: ``create_engine(url, poolclass=PenstockPool)``.

SQLAlchemy keeps what is its own: it connects, in the thread or task that asks, fires its events, resets and recycles.
What it lends is a record of its own, a place for one connection. Those places are the connections of a pool of ours,
which decides who gets which, in whose turn, and knows who holds it.
"""

from .pool import AsyncPenstockPool, PenstockPool

__all__ = ["AsyncPenstockPool", "PenstockPool"]
