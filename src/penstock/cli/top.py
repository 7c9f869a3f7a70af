"""`penstock top`: who has connections, who waits and who holds them, in a terminal, while it happens."""

import dataclasses
import json
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from penstock.cli import top_view
from penstock.drivers import conninfo
from penstock.observe.pgbouncer import Console as Bouncer
from penstock.observe.server import Server
from penstock.observe.telemetry import reader
from penstock.observe.top import Frame, frame, printable

UNREACHABLE, USAGE = 1, 2
_LINES = 1000  # where there is no terminal to end
_FULL = ("too many clients", "too many connections", "remaining connection slots", "no more connections allowed")


def top(
    dsn: Annotated[
        str | None,
        typer.Argument(metavar="[DSN]", help="Of a PostgreSQL server to look at, instead of this user's processes."),
    ] = None,
    pgbouncer: Annotated[
        str | None, typer.Option(metavar="DSN", help="Look at a PgBouncer: postgresql://user@host:6432/pgbouncer.")
    ] = None,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print what there is now, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Likewise, as JSON.")] = False,
) -> None:
    """Show who has connections, who waits for one, and who holds them longest; q ends it.

    penstock top                                     the pools of all this user's processes, over their sockets
    penstock top postgresql://me@db/                 a PostgreSQL server, with one connection
    penstock top --pgbouncer postgresql://me@db:6432/pgbouncer
    """
    if dsn is not None and pgbouncer is not None:
        _fail("say a server's DSN, or --pgbouncer, not both", USAGE)
    for given in filter(None, (dsn, pgbouncer)):
        try:
            conninfo.parse(given)
        except ValueError as error:
            _fail(str(error), USAGE)
        except ModuleNotFoundError:
            _fail("this needs psycopg: pip install 'penstock[postgres]'", USAGE)
    view: View = _ServerView(dsn) if dsn else _BouncerView(pgbouncer) if pgbouncer else _PoolsView()
    if as_json:
        _print_json(view)
    elif once or not sys.stdout.isatty():
        _print_once(view)
    else:
        _live(view, interval)


class View:
    """Where figures come from, and how they are shown. `look` raises `_Unreachable`."""

    def look(self) -> Any:
        raise NotImplementedError

    def show(self, seen: Any, width: int, height: int) -> RenderableType:
        raise NotImplementedError

    def as_dict(self, seen: Any) -> Any:
        return dataclasses.asdict(seen)


class _Unreachable(Exception):
    pass


class _PoolsView(View):
    def __init__(self) -> None:
        self._before: Frame | None = None

    def look(self) -> reader.Found:
        return reader.read()

    def show(self, seen: reader.Found, width: int, height: int) -> RenderableType:
        self._before = made = frame(seen, time.time(), self._before)
        return top_view.pools(made, width, height)

    def as_dict(self, seen: reader.Found) -> Any:
        silent = [{"pid": each.pid, "path": str(each.path), "why": each.why} for each in seen.silent]
        return {"processes": seen.documents, "silent": silent}


class _ServerView(View):
    def __init__(self, dsn: str) -> None:
        self._server = Server(dsn)

    def look(self) -> Any:
        return _asked(self._server.read)

    def show(self, seen: Any, width: int, height: int) -> RenderableType:
        return top_view.server(seen, width, height)


class _BouncerView(View):
    def __init__(self, dsn: str) -> None:
        self._console = Bouncer(dsn)

    def look(self) -> Any:
        return _asked(self._console.read)

    def show(self, seen: Any, width: int, height: int) -> RenderableType:
        return top_view.bouncer(seen, width, height)


def _asked(read: Callable[[], Any]) -> Any:
    import psycopg

    try:
        return read()
    except psycopg.Error as error:
        said = _one_line(error)
        full = any(words in said for words in _FULL)
        hint = "; the processes with pools tell of them without one: penstock top" if full else ""
        raise _Unreachable(said + hint) from None


def _print_json(view: View) -> None:
    try:
        json.dump(view.as_dict(view.look()), sys.stdout, indent=2, default=str)
    except _Unreachable as error:
        _fail(str(error), UNREACHABLE)
    print()


def _print_once(view: View) -> None:
    width = None if sys.stdout.isatty() else 120
    out = Console(highlight=False, markup=False, width=width)
    try:
        out.print(view.show(view.look(), out.width, _LINES))
    except _Unreachable as error:
        _fail(str(error), UNREACHABLE)


def _live(view: View, interval: float) -> None:
    out = Console(highlight=False, markup=False)
    with _keys() as pressed, Live(console=out, screen=True, auto_refresh=False) as live:
        try:
            while True:
                live.update(_frame(view, out), refresh=True)
                if pressed(interval) in ("q", "Q", "\x03", "\x1b"):
                    return
        except KeyboardInterrupt:
            return


def _frame(view: View, out: Console) -> RenderableType:
    head = Text(f"penstock top  {time.strftime('%H:%M:%S')}  q ends it", "dim", no_wrap=True)
    try:
        return Group(head, view.show(view.look(), out.width, out.height - 1))
    except _Unreachable as error:
        return Group(head, Text(printable(error), "bold red"))


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits for a key for so many seconds at most."""
    if not sys.stdin.isatty():
        yield lambda seconds: time.sleep(seconds) or ""  # type: ignore[func-returns-value]
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return sys.stdin.read(1) if ready else ""

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _fail(why: str, status: int) -> NoReturn:
    print(f"penstock top: {why}", file=sys.stderr)
    raise typer.Exit(status)
