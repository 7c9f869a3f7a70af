"""Who may read, and who may act.

Reading is for who asks from this very machine, by its own name, or has the token; acting is for who has the token. The
token comes in a header and nowhere else: no cookie that another site's page could make use of, no query that ends up in
a log.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

Readers = Literal["local", "token", "anyone"]

ENVIRONMENT = "PENSTOCK_SERVE_TOKEN"
SHORTEST = 16  # characters of a token
_PROXIES = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via")
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def from_environment() -> str | None:
    """The token that is set there; without the line's end that a file it was read from may have."""
    return os.environ.get(ENVIRONMENT, "").strip() or None


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """*status* is HTTP's; *why* may be shown."""

    status: int
    why: str


@dataclass(frozen=True)
class Door:
    """:raises ValueError: when *token* is too short, or *readers* is none of those there are."""

    token: str | None
    readers: Readers

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < SHORTEST:
            raise ValueError(f"the token ({ENVIRONMENT}) must have {SHORTEST} characters or more")
        if self.token is not None and not re.fullmatch("[!-~]+", self.token):
            raise ValueError(f"the token ({ENVIRONMENT}) may have no space, line's end or letter beyond ASCII in it")
        if self.readers not in ("local", "token", "anyone"):
            raise ValueError(f"readers must be 'local', 'token' or 'anyone', not {self.readers!r}")

    def let_read(self, scope: Mapping[str, Any]) -> None:
        """:raises Refused: unless this request may read."""
        if self.readers == "anyone" or self._has_token(scope):
            return
        if self.readers == "local" and _is_local(scope):
            return
        if self.token is None:
            here = "from this machine only" if self.readers == "local" else "to nobody"
            raise Refused(403, f"This is shown {here}: no token is set ({ENVIRONMENT}, or token=).")
        raise Refused(401, "This needs the token, in the header Authorization: Bearer ...")

    def let_act(self, scope: Mapping[str, Any]) -> None:
        """:raises Refused: unless this request may change something."""
        if self.token is None:
            raise Refused(403, f"Nothing can be changed here: no token is set ({ENVIRONMENT}, or token=).")
        if not self._has_token(scope):
            raise Refused(401, "This needs the token, in the header Authorization: Bearer ...")

    def _has_token(self, scope: Mapping[str, Any]) -> bool:
        scheme, _, given = _header(scope, b"authorization").partition(b" ")
        if self.token is None or scheme.lower() != b"bearer":
            return False
        return hmac.compare_digest(given.strip(), self.token.encode())


def _is_local(scope: Mapping[str, Any]) -> bool:
    """Asked from this machine, under its own name (or another site's name could be made to lead here), by no proxy."""
    client = scope.get("client")
    if not client or any(name in _PROXIES for name, _ in scope["headers"]):
        return False
    try:
        address = ipaddress.ip_address(client[0])
        host = urlsplit(f"//{_header(scope, b'host').decode('ascii')}").hostname
    except ValueError:
        return False
    return address.is_loopback and host in _LOCAL_NAMES


def _header(scope: Mapping[str, Any], name: bytes) -> bytes:
    return next((value for known, value in scope["headers"] if known == name), b"")
