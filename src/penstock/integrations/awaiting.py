"""Who awaits what this thread does: asgiref's `sync_to_async` runs it in a thread, where the user's line is not."""

from __future__ import annotations

import sys
from asyncio import Future, Task
from collections.abc import Iterator
from types import FrameType
from typing import Any

_HANDLER = "thread_handler"  # asgiref's, with the loop of who awaits and the function that is run as its variables
_MOST = 50  # futures that are looked through: between a thread and its task there are three, with `gather` five


def awaiting(frame: FrameType) -> Iterator[FrameType]:
    """The frames of the coroutines that wait for this thread, from the innermost outwards; none outside of asgiref.

    asyncio has no way to ask. Either the loop is about to suspend the caller, and has it on its stack still; or the
    future that the thread will set is followed to the task that it wakes.
    """
    handler = _handler(frame)
    if handler is None:
        return
    function = handler.f_locals.get("func")
    asked = sys._current_frames().get(getattr(handler.f_locals.get("loop"), "_thread_id", None) or 0)
    stack = []
    while asked is not None:
        stack.append(asked)
        asked = asked.f_back
    starts = [at for at, each in enumerate(stack) if each.f_globals is handler.f_globals
              and function is not None and each.f_locals.get("func") is function]  # fmt: skip
    if starts:
        yield from stack[starts[0] :]
        return
    for task in _tasks(_future(handler)):
        yield from reversed(list(_coroutines(task.get_coro())))


def _handler(frame: FrameType) -> FrameType | None:
    asked: FrameType | None = frame
    while asked is not None:
        if asked.f_globals.get("__name__") == "asgiref.sync" and asked.f_code.co_name == _HANDLER:
            return asked
        asked = asked.f_back
    return None


def _future(handler: FrameType) -> Any:
    """What the executor sets when the work is done."""
    asked = handler.f_back
    while asked is not None:
        work = asked.f_locals.get("self") if asked.f_code.co_name == "run" else None
        future = getattr(work, "future", None)
        if future is not None:
            return future
        asked = asked.f_back
    return None


def _tasks(future: Any) -> Iterator[Task[Any]]:
    """Those that wait for it, the nearest first, by what is called when it is done."""
    ahead: list[Any] = [future]
    seen: set[int] = set()
    while ahead and len(seen) < _MOST:
        future = ahead.pop(0)
        if id(future) in seen:
            continue
        seen.add(id(future))
        if isinstance(future, Task):
            yield future
        called = [*(getattr(future, "_callbacks", None) or ()), *(getattr(future, "_done_callbacks", None) or ())]
        for each in called:
            callback = each[0] if isinstance(each, tuple) else each
            cells = [cell.cell_contents for cell in getattr(callback, "__closure__", None) or () if _filled(cell)]
            ahead += [it for it in (getattr(callback, "__self__", None), *cells) if isinstance(it, Future)]


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _coroutines(coroutine: Any) -> Iterator[FrameType]:
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame
        coroutine = coroutine.cr_await
