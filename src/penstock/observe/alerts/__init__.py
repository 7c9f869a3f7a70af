"""Alerts of the process's own pools, with hysteresis, and only for the root of a trouble.

from penstock.observe import alerts

alerts.start(webhook=os.environ["SLACK_WEBHOOK"])
"""

from __future__ import annotations

import os
from time import monotonic

from ...pool import registry
from .. import looplag
from ..sources import Source
from .kinds import Alert, Kind, Thresholds
from .sinks import Deliver, Sink, log
from .watch import Watch

__all__ = ["Alert", "Kind", "Thresholds", "active", "dropped", "raised", "recent", "start", "stop"]


def _lag(source: Source) -> float | None:
    looplag.ask(monotonic(), [source])  # its own turn is a second too
    found = looplag.lag(source)
    return None if found is None else found.last


_watch = Watch(_lag)
os.register_at_fork(after_in_child=lambda: _after_fork())


def start(callback: Deliver | None = None, *, webhook: str | None = None, thresholds: Thresholds | None = None) -> None:
    """Look at every pool of this process once a second, and tell the log `penstock.alerts` of what is alarming.

    Called again it begins anew, with what it is given then. Nothing here can hold up a pool: whoever is told has a
    thread and a bounded queue of its own, and what does not fit is dropped and counted.

    :param callback: called with each `Alert`, raised, worse or cleared, in a thread of its own. That it raised is
        logged and counted; after 20 times in a row it is called no more.
    :param webhook: a URL that ``{"text": ...}`` is posted to, as Slack takes it. It is a secret and never shown.
    :param thresholds: from where on something is alarming.
    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function that takes an Alert, not {callback!r}")
    sinks = [Sink("the log", log)]
    if callback is not None:
        sinks.append(Sink("the callback", callback))
    if webhook is not None:
        from .webhook import Webhook  # here: few need it, and it takes long to load

        sinks.append(Sink("the webhook", Webhook(webhook)))
    stop()
    _watch.sinks = tuple(sinks)
    _watch.judge_by(thresholds or Thresholds())
    _watch.start()


def stop() -> None:
    """Tell nobody any more. What is alarming is still known to who asks for it."""
    ended, _watch.sinks = _watch.sinks, ()
    for sink in ended:
        sink.end()


def active(source: Source) -> list[Alert]:
    """What *source* is alarmed about now, the roots first. Whoever asks first has it looked at from then on."""
    _watch.start()
    return _watch.active(source)


def raised() -> list[Alert]:
    """What any pool of this process is alarmed about now."""
    _watch.start()
    return _watch.raised()


def recent() -> list[Alert]:
    """The last alerts, raised and cleared, the oldest first."""
    _watch.start()
    return list(_watch.recent)


def dropped() -> dict[str, int]:
    """Alerts that each sink could not deliver."""
    return {sink.name: sink.dropped for sink in _watch.sinks}


def _after_fork() -> None:
    """A child that has somebody to tell looks from the moment at which it uses a pool."""
    _watch.begin_anew()
    if _watch.sinks:
        registry.watch_with(_begin)


def _begin(_: object) -> None:
    if _watch.sinks:
        _watch.start()
