"""Where alerts go. Each sink has a thread and a bounded queue of its own: none holds up another, or the pool."""

from __future__ import annotations

import http.client
import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from queue import Full, Queue
from time import sleep
from typing import Any
from urllib.parse import urlsplit

from .kinds import Alert

logger = logging.getLogger("penstock.alerts")

QUEUE = 64  # alerts that wait for a sink; more are dropped, and counted
TIMEOUT = 5.0  # seconds that a webhook may take for each step
PAUSES = (1.0, 5.0)  # seconds before each further try

Deliver = Callable[[Alert], object]


class Sink:
    """Delivers alerts one after the other, in a thread that begins with the first.

    :ivar dropped: alerts that found the queue full, or were given up.
    """

    def __init__(self, name: str, deliver: Deliver) -> None:
        self.name = name
        self.dropped = 0
        self._deliver = deliver
        self.begin_anew()

    def begin_anew(self) -> None:
        """With nothing in the queue; after a fork there is no thread either."""
        self._queue: Queue[Alert | None] = Queue(QUEUE)
        self._thread: threading.Thread | None = None
        self._over = False

    def offer(self, alert: Alert) -> None:
        """Never waits."""
        if self._over:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"penstock-alerts-{self.name}", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(alert)
        except Full:
            self._drop("it does not keep up")

    def end(self) -> None:
        """No more after those in the queue."""
        self._over = True
        try:
            self._queue.put_nowait(None)
        except Full:
            pass  # its thread looks at `_over` too

    def _run(self) -> None:
        while (alert := self._queue.get()) is not None:
            try:
                self._deliver(alert)
            except Undelivered as error:
                self._drop(str(error))
            except (Exception, SystemExit):
                logger.exception("penstock: %s raised and gets no more alerts", self.name)
                self._over = True
                return
            if self._over and self._queue.empty():
                return

    def _drop(self, why: str) -> None:
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # the first, second, fourth, eighth ...
            logger.warning("penstock: %s: %d alerts not delivered: %s", self.name, self.dropped, why)


class Undelivered(Exception):
    """An alert was given up; the message may be shown."""


def log(alert: Alert) -> None:
    """A line in the log `penstock.alerts`; as *alert* it goes along for whoever logs JSON."""
    level = logging.WARNING if alert.cleared is None else logging.INFO
    logger.log(level, "%s", alert, extra={"alert": alert.as_dict()})


class Webhook:
    """Posts ``{"text": ...}``, which Slack, Mattermost and their like show. The URL is a secret: nothing tells of it.

    :raises ValueError: when *url* is no http(s) URL.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            fit = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isascii() and url.isprintable()
        except (ValueError, AttributeError, TypeError):
            fit = False
        if not fit or " " in url:
            raise ValueError("webhook must be a URL that begins with https:// or http:// (it is not shown: a secret)")
        self._url = url
        self._opener = urllib.request.build_opener(_NoRedirect)

    def __call__(self, alert: Alert) -> None:
        """:raises Undelivered: after three tries, or when told that it will never do."""
        for pause in (*PAUSES, None):
            why, again = self._post(alert)
            if why is None:
                return
            if pause is None or not again:
                raise Undelivered(why)
            sleep(pause)

    def _post(self, alert: Alert) -> tuple[str | None, bool]:
        """What went wrong, without the URL; and whether it may go well another time."""
        body = json.dumps({"text": text(alert)}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                response.read(1)
        except urllib.error.HTTPError as error:
            error.close()
            return f"the webhook answered {error.code}", error.code == 429 or error.code >= 500
        except TimeoutError:
            return f"the webhook did not answer within {TIMEOUT:g} s", True
        except OSError as error:  # its message may have the URL in it
            reason = getattr(error, "reason", error)
            return f"the webhook cannot be reached ({getattr(reason, 'strerror', None) or type(reason).__name__})", True
        except (http.client.HTTPException, ValueError) as error:
            return f"the webhook's answer made no sense ({type(error).__name__})", False
        return None, False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Whoever has the URL does not hand it on."""

    def redirect_request(self, *_: Any) -> None:
        return None


def text(alert: Alert) -> str:
    """For people; escaped as Slack has it."""
    state = "cleared" if alert.cleared is not None else "ALERT"
    line = f"{state}: {alert.pool}: {alert.kind.value}: {alert.why}"
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
