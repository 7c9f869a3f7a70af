"""Who holds which connection, and where they stand: told when somebody asks, not kept up to date.

A checkout only notes its code object and instruction. Lines, stacks and statements are looked up here.
"""

from __future__ import annotations

import asyncio
import re
import sys
import sysconfig
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from types import CodeType, FrameType
from typing import Any, NamedTuple

_INNER = (
    "penstock.pool.",
    "penstock.core.",
    "penstock.drivers.",
    "penstock.guard.",
    "psycopg.",
    "psycopg2.",
    "oracledb.",
    "asyncpg.",
    "penstock.compat.",
    "penstock.integrations.",
    "django.",
    "asgiref.",
    "sqlalchemy.",
    "psycopg_pool.",
    "dbutils.",
    "penstock.guard.",
)  # modules that no holder is looked for in
_STACK_DEPTH = 4  # lines of a holder's stack that are shown: the innermost tells what it waits for
_SITES_SHOWN = 10
_STATEMENT_SHOWN = 120
_PASSWORD = re.compile(r"(password\s+)'(?:[^']|'')*'", re.IGNORECASE)


class CallSite(NamedTuple):
    """A line of code that asked for a connection."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


OTHER = CallSite("other", 0, "other")  # all those beyond as many as are told apart


@dataclass(slots=True, frozen=True)
class Holder:
    """A connection in somebody's hands. Times are seconds."""

    site: CallSite
    held: float
    idle: float | None  # in hand without a statement running; None while one runs
    statement: str | None  # the one that runs, or else the last one; without parameters
    status: str  # of the transaction: IDLE, INTRANS, INERROR, ACTIVE or BAD
    owner: str  # thread or task
    stack: tuple[CallSite, ...]  # where the holder stands now, innermost first; empty when it cannot be known
    suspected: bool = False  # was reported as a suspected leak

    def __str__(self) -> str:
        doing = f"idle in hand for {self.idle:.1f} s" if self.idle is not None else f"running {self.statement!r}"
        return f"{self.site} ({self.owner}): held for {self.held:.1f} s, {doing}, {self.status}"


@lru_cache(maxsize=1000)  # events ask for the same few lines, of functions that may be long
def call_site(code: CodeType | None, lasti: int) -> CallSite:
    """The line that instruction *lasti* of *code* is on."""
    if code is None:
        return CallSite("<unknown>", 0, "<unknown>")
    line = next((line for start, end, line in code.co_lines() if start <= lasti < end), None)
    return CallSite(code.co_filename, line or code.co_firstlineno, code.co_qualname)


def statement_text(statement: Any) -> str | None:
    """*statement* fit to be shown: one line, not too long, without a password."""
    if statement is None:
        return None
    if isinstance(statement, bytes):
        statement = statement.decode(errors="replace")
    text = " ".join(str(statement).split())
    text = _PASSWORD.sub(r"\1'***'", text)
    return text if len(text) <= _STATEMENT_SHOWN else text[: _STATEMENT_SHOWN - 3] + "..."


def thread_name(ident: int) -> str:
    for thread in threading.enumerate():
        if thread.ident == ident:
            return f"thread {thread.name}"
    return f"thread {ident}, which has ended"


def thread_stack(ident: int) -> tuple[CallSite, ...]:
    """Where a thread stands, innermost first."""
    # Nothing may keep a frame: a frame that knows itself is a cycle, which would keep a dropped connection alive.
    return _shown(_outwards(sys._current_frames().get(ident)))


def task_stack(task: asyncio.Task[Any]) -> tuple[CallSite, ...]:
    """Where a task stands: from its innermost await outwards."""
    frames = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            frames.append(frame)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return _shown(reversed(frames))


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _shown(frames: Iterable[FrameType]) -> tuple[CallSite, ...]:
    # The user's lines are the point: a statement alone takes four frames of the driver's and ours, and a request to an
    # API takes six of libraries. So the last one shown is the user's own code, if none before it is.
    found: list[tuple[CodeType, int]] = []
    own = False
    for frame in frames:
        if _is_inner(frame.f_globals.get("__name__", "")):
            continue
        own = own or _is_own(frame.f_code.co_filename)
        if len(found) < _STACK_DEPTH:
            found.append((frame.f_code, frame.f_lasti))
        elif own:
            found[-1] = (frame.f_code, frame.f_lasti)
        if own and len(found) == _STACK_DEPTH:
            break
    return tuple(call_site(code, lasti) for code, lasti in found)


def _is_own(file: str) -> bool:
    """Whether it is the user's, and no library's."""
    return not file.startswith(_libraries()) and "-packages/" not in file and not file.startswith("<frozen ")


@cache
def _libraries() -> tuple[str, ...]:
    return tuple({f"{sysconfig.get_path(which)}/" for which in ("stdlib", "platstdlib")})


def _is_inner(module: str) -> bool:
    return module.startswith(_INNER) or module == "psycopg"


def report(holders: list[Holder]) -> str:
    """The holders grouped by call site, most connections first, for an error message."""
    groups: dict[CallSite, list[Holder]] = defaultdict(list)
    for holder in holders:
        groups[holder.site].append(holder)
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    lines = [line for site, group in ranked[:_SITES_SHOWN] for line in _group_lines(site, group)]
    if len(ranked) > _SITES_SHOWN:
        lines.append(f"  and {len(ranked) - _SITES_SHOWN} more lines of code")
    return "\n".join(lines)


def _group_lines(site: CallSite, group: list[Holder]) -> Iterator[str]:
    longest = max(group, key=lambda holder: holder.held)
    shortest = min(holder.held for holder in group)
    span = f"{longest.held:.1f} s" if len(group) == 1 else f"{shortest:.1f} to {longest.held:.1f} s"
    yield f"  {len(group)} held by {site} for {span}"
    idle = [holder for holder in group if holder.idle is not None]
    if idle:
        states = ", ".join(sorted({holder.status for holder in idle}))
        yield f"    {len(idle)} idle in hand, the longest for {max(h.idle or 0 for h in idle):.1f} s ({states})"
    running = [holder for holder in group if holder.idle is None]
    for statement in sorted({holder.statement or "a statement" for holder in running}):
        yield f"    {sum((h.statement or 'a statement') == statement for h in running)} running {statement!r}"
    if longest.stack:
        here = " < ".join(str(frame) for frame in longest.stack)
        yield f"    the longest, {longest.owner}, now stands at {here}"
