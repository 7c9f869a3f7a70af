"""Celery's worker processes: each has a pool of its own without our doing, and says goodbye when it ends."""

from __future__ import annotations

from typing import Any

from celery.signals import worker_process_shutdown  # type: ignore[import-untyped]

from ..pool.sync import Pool


def close_with_worker(*pools: Pool[Any]) -> None:
    """Close these pools when a worker process ends.

    A process of the prefork pool starts anew after the fork by itself, and opens at its first use. But it ends without
    the interpreter's own end, at which pools are closed otherwise; the server would log a lost client for each
    connection.
    """

    def close(**_: Any) -> None:
        for pool in pools:
            pool.close(timeout=1)

    worker_process_shutdown.connect(close, weak=False)
