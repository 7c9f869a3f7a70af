"""`penstock serve`: the live page of all pools of this user's processes."""

import socket
import sys
from typing import Annotated

import typer

FAILED, USAGE = 1, 2
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens.")] = 8123,
    host: Annotated[
        str, typer.Option(help="The address that it listens at. Others than this machine's own need a token.")
    ] = "127.0.0.1",
    pgbouncer: Annotated[
        str | None,
        typer.Option(metavar="DSN", help="Show a PgBouncer's pools too: postgresql://user@host:6432/pgbouncer."),
    ] = None,
) -> None:
    """Show the pools of all processes of this user, live, in a browser: read-only, over their telemetry sockets.

    Where PENSTOCK_SERVE_TOKEN is set, readers need it; else it answers this machine only, under its own name.
    """
    try:
        import uvicorn

        from penstock.drivers import conninfo
        from penstock.observe import web
        from penstock.observe.web.door import ENVIRONMENT, from_environment

        if pgbouncer is not None:
            conninfo.parse(pgbouncer)
        app = web.of_all_processes(pgbouncer)
    except ImportError as error:
        print(f"penstock serve: {error.name} is missing: pip install 'penstock[serve]'", file=sys.stderr)
        raise typer.Exit(USAGE) from None
    except ValueError as error:
        print(f"penstock serve: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from None
    if host not in _LOOPBACK and from_environment() is None:
        why = f"{host} can be reached from elsewhere: set {ENVIRONMENT} to a secret that readers have to know"
        print(f"penstock serve: {why}, or leave --host out", file=sys.stderr)
        raise typer.Exit(USAGE)
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", proxy_headers=False, server_header=False)
    try:
        listener = _listen(host, port)
    except OSError as error:
        print(f"penstock serve: {shown}:{port}: {error.strerror or error}", file=sys.stderr)
        raise typer.Exit(FAILED) from None
    print(f"penstock serve: http://{shown}:{port}/ (Ctrl-C ends it)", file=sys.stderr, flush=True)
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Before it is said where it listens: the port may be another's."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address, family=family)
