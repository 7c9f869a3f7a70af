"""Reads what pools tell of themselves: metrics, alerts, a page, a terminal view. The pools know nothing of it."""

from .watching import begin, end

__all__ = ["begin", "end"]
