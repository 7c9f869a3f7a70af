"""What has happened to a pool of late, in words."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from time import time
from typing import Any

from .. import events

MOST = 100  # events of a pool that are remembered
# All but those of each checkout, which would cost each checkout.
KINDS = (
    events.Opened,
    events.ConnectFailed,
    events.Closed,
    events.Refused,
    events.LeakSuspected,
    events.OutlivedRequest,
    events.CameBack,
    events.TakenBack,
    events.GaveUp,
)
_LONGEST = 300  # characters


@dataclass(slots=True)
class Entry:
    """*times* such events in a row, the last of them *at* (seconds since 1970)."""

    at: float
    kind: str  # the class of the event
    what: str
    times: int = 1


class Recent:
    """The last events, the oldest first. Called where they happen: it only notes."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=MOST)

    def note(self, event: events.Event) -> None:
        kind, what = type(event).__name__, _what(event)[:_LONGEST]
        last = self._entries[-1] if self._entries else None
        if last is not None and (last.kind, last.what) == (kind, what):
            last.at, last.times = time(), last.times + 1
        else:
            self._entries.append(Entry(time(), kind, what))

    def clear(self) -> None:
        self._entries.clear()

    def entries(self) -> list[Entry]:
        return list(self._entries)


def _what(event: Any) -> str:
    """Without times, which would make each one another."""
    match event:
        case events.Opened():
            return "opened a connection"
        case events.ConnectFailed(error=error) | events.GaveUp(error=error):
            return f"connecting failed: {_line(error)}"
        case events.Closed(reason=reason):
            return f"closed a connection: {reason.value}"
        case events.Refused(site=site, refusal=refusal):
            return f"refused {site}: {refusal.value}"
        case events.LeakSuspected(holder=holder):
            return f"is this a leak? {holder.site}"
        case events.OutlivedRequest(holder=holder, request=request):
            return f"outlives its request, {request}: taken at {holder.site}"
        case events.CameBack(site=site):
            return f"came back after all: taken at {site}"
        case events.TakenBack(site=site, reason=reason):
            return f"took back what was taken at {site}: {reason.value}"
        case _:
            return type(event).__name__


def _line(error: BaseException | None) -> str:
    return "no error known" if error is None else f"{type(error).__name__}: {' '.join(str(error).split())}"
