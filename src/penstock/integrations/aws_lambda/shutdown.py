"""The platform's last signal: what is open is closed, and whoever else wanted to hear it does.

A signal's handler runs between any two steps of the main thread, which may hold a lock of the pool's just then. So a
thread closes, and the handler waits for it for a moment only.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType
from typing import Any

from ...pool.base import BasePool
from ...pool.sync import Pool

SECONDS = 0.25  # of the 0.3 that AWS gives a runtime


def close_on_sigterm(pools: Iterable[BasePool[Any]]) -> None:
    """Close these pools at SIGTERM, then do what was to be done at SIGTERM before. No effect but in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.getsignal(signal.SIGTERM)

    def close(number: int, frame: FrameType | None) -> None:
        here, until = asyncio._get_running_loop(), time.monotonic() + SECONDS
        # A loop that this very handler interrupts cannot close anything while the handler waits for it.
        able = [pool for pool in pools if here is None or getattr(pool, "_loop", None) is not here]
        closers = [threading.Thread(target=_close, args=(pool,), daemon=True) for pool in able]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(max(0.0, until - time.monotonic()))
        if callable(before):
            before(number, frame)
        elif before is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, close)


def _close(pool: BasePool[Any]) -> None:
    if isinstance(pool, Pool):
        pool.close(SECONDS)
        return
    loop: asyncio.AbstractEventLoop | None = getattr(pool, "_loop", None)
    if loop is None:
        return
    with suppress(RuntimeError, TimeoutError):  # its loop is closed, or stands still in the midst of an event
        if loop.is_running():
            asyncio.run_coroutine_threadsafe(pool.close(SECONDS), loop).result(SECONDS)  # type: ignore[attr-defined]
        else:
            loop.run_until_complete(pool.close(SECONDS))  # type: ignore[attr-defined]
