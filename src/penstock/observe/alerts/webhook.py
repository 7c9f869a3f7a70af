"""Alerts to a chat: a module of its own, because what speaks HTTP takes longer to load than all the rest."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import sleep
from typing import Any
from urllib.parse import urlsplit

from .kinds import Alert
from .sinks import Undelivered

TIMEOUT = 5.0  # seconds that it may take for each step,
DEADLINE = 15.0  # and for all of them: one that sends a byte now and then takes for ever
PAUSES = (1.0, 5.0)  # seconds before each further try


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
        self._sock: socket.socket | None = None
        self._opener = urllib.request.build_opener(_NoRedirect, _Http(self._connect), _Https(self._connect))

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
        late = threading.Event()
        timer = threading.Timer(DEADLINE, self._give_up, (late,))
        timer.daemon = True
        timer.start()
        try:
            why, again = self._ask(alert)
        finally:
            timer.cancel()
            sock, self._sock = self._sock, None
            if sock is not None:
                sock.close()
        return (f"the webhook did not answer within {DEADLINE:g} s", False) if why and late.is_set() else (why, again)

    def _connect(self, *args: Any) -> socket.socket:
        sock = socket.create_connection(*args)
        if self._sock is not None:
            self._sock.close()
        self._sock = sock.dup()  # whatever becomes of the other, this one ends the connection
        return sock

    def _give_up(self, late: threading.Event) -> None:
        late.set()
        sock = self._sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _ask(self, alert: Alert) -> tuple[str | None, bool]:
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


Connect = Callable[..., socket.socket]


class _Http(urllib.request.HTTPHandler):
    """Over connections that *connect* makes."""

    def __init__(self, connect: Connect) -> None:
        super().__init__()
        self._connect = connect

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_made, http.client.HTTPConnection, self._connect), req)


class _Https(urllib.request.HTTPSHandler):
    """Likewise."""

    def __init__(self, connect: Connect) -> None:
        super().__init__()
        self._connect = connect

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_made, http.client.HTTPSConnection, self._connect), req)


def _made(
    kind: type[http.client.HTTPConnection], connect: Connect, *args: Any, **kwargs: Any
) -> http.client.HTTPConnection:
    made = kind(*args, **kwargs)
    made._create_connection = connect  # type: ignore[attr-defined]
    return made


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Whoever has the URL does not hand it on."""

    def redirect_request(self, *_: Any) -> None:
        return None


def text(alert: Alert) -> str:
    """For people; escaped as Slack has it."""
    state = {"raised": "ALERT", "worse": "WORSE"}.get(alert.state, alert.state)
    line = f"{state}: {alert.pool}: {alert.kind.value}: {alert.why}"
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
