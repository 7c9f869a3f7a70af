"""The live page, and the same figures as JSON and for Prometheus: one small ASGI application.

    app.mount("/penstock", penstock.observe.web.app())      # FastAPI, Starlette: this process's own pools

`penstock serve` shows the pools of all processes of this machine's user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .door import Door, Readers, from_environment

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["app", "of_all_processes"]


def app(*, token: str | None = None, readers: Readers = "token") -> ASGIApp:
    """The page of this process's pools, to be mounted in any ASGI application.

    :param token: who has it (``Authorization: Bearer ...``) may read, and act: drain, resize, take a suspected leak
        back. By default that in the environment's PENSTOCK_SERVE_TOKEN; without one nobody can act.
    :param readers: who may read without the token: nobody ("token"), who asks from this very machine and through no
        proxy ("local"), or "anyone", where something before it sees to that.
    :raises ImportError: when Starlette, sse-starlette or prometheus_client is not installed.
    :raises ValueError: when the token is too short or cannot be sent in a header, or *readers* none of those.
    """
    try:
        from .scrape import scrape
        from .site import site
    except ImportError as error:
        raise ImportError(f"the page needs {error.name}: pip install 'penstock[serve]'", name=error.name) from error
    from ..document import document
    from .actions import act
    from .feed import Reading

    given = token if token is not None else from_environment()
    return site(lambda: Reading([document()]), Door(given, readers), act, scrape())


def of_all_processes(pgbouncer: str | None = None) -> ASGIApp:
    """What `penstock serve` serves: the pools of all processes of this user, read over their sockets.

    Readers need the token, if there is one in the environment; else they have to ask from this machine.

    :param pgbouncer: the DSN of a PgBouncer's admin console, whose pools are shown too.
    :raises ImportError: when something is not installed.
    :raises ValueError: when the token in the environment is too short or cannot be sent in a header.
    """
    from .others import read
    from .site import site

    token = from_environment()
    door = Door(token, "local" if token is None else "token")
    if pgbouncer is None:
        return site(read, door)
    from .bouncer import Watched

    return site(read, door, extras=Watched(pgbouncer).latest)
