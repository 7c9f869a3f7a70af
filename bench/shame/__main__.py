"""`python -m bench.shame [row ...]`: the hall of shame as one Markdown table, for the README."""

import argparse
import faulthandler
import logging
import sys
import time
import warnings
from collections.abc import Callable

from rich.console import Console

from bench import machine
from bench.context import Context
from bench.report import markdown
from bench.shame import faults, lost, process, waiting
from bench.shame.pools import CONTESTANTS
from penstock.drill.postgres import EmbeddedPostgres

Row = Callable[[str, Context], str]

ROWS: dict[str, tuple[str, Row]] = {
    "restart": ("8 idle connections die, validation on: next good one after", faults.restart_validated),
    "restart_default": ("the same with defaults: of the next 12 requests", faults.restart_default),
    "down": ("database down, may wait 2 s: told after", faults.database_down),
    "fairness": ("40 threads, 4 connections, 3 s: served least / most, longest wait", waiting.fairness),
    "spike": ("20 arrive at once, connect takes 50 ms: last one served after", waiting.spike),
    "timed_out": ("borrowers that gave up waiting: what is kept of each", waiting.timed_out),
    "queue_limit": ("queue limit of 5, five gave up: the next one", waiting.queue_limit),
    "lost": ("reference dropped: the connection is back after", lost.lost_reference),
    "named": ("all connections out: the error says who has them", lost.borrower_named),
    "transaction": ("given back in a transaction: the next one gets it", lost.returned_in_transaction),
    "thrash": ("keep 1, allow 10; 5 threads, 100 checkouts: connections opened", lost.thrash),
    "fork": ("used, then forked: the child's connection is", process.fork_after_use),
    "loop": ("used in a second event loop: borrowers there meet", process.second_event_loop),
    "cancel": ("cancelled at the hand-off: swallowed", process.cancelled_at_handoff),
}
TOO_LONG = 60.0  # seconds for one cell; then every thread's stack is printed and the run ends


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.shame", description=__doc__)
    parser.add_argument("row", nargs="*", help=f"which; all when none is named: {', '.join(ROWS)}")
    chosen = parser.parse_args().row or list(ROWS)
    if unknown := set(chosen) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    console = Console(stderr=True, highlight=False, markup=False)
    with EmbeddedPostgres(max_connections=100) as server:
        context = Context(server, False, lambda text: console.print(f"  {text}"))
        table = [[ROWS[row][0], *(_cell(row, name, context) for name in CONTESTANTS)] for row in chosen]
    print(markdown(["", *map(_heading, CONTESTANTS)], table))
    print(f"\nIn bold: what its user would not want. {machine.python()}, {machine.machine()}.")
    return 0


def _cell(row: str, name: str, context: Context) -> str:
    started = time.perf_counter()
    faulthandler.dump_traceback_later(TOO_LONG, exit=True)
    try:
        told = ROWS[row][1](name, context)
    except Exception as error:
        told = f"failed: {type(error).__name__}: {error}".partition("\n")[0]
    finally:
        faulthandler.cancel_dump_traceback_later()
    context.say(f"{row}, {name}: {told} ({time.perf_counter() - started:.1f} s)")
    return told


def _heading(name: str) -> str:
    return f"{name} {machine.versions()[{'psycopg2': 'psycopg2-binary'}.get(name, name)]}"


if __name__ == "__main__":
    sys.exit(main())
