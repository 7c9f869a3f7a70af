"""`python -m bench [claim ...]`: run the claims, print one table. Exit status 1 when a bar was not met."""

import argparse
import faulthandler
import logging
import sys
import time
import traceback
from datetime import date
from pathlib import Path

from rich.console import Console

from bench import claims, machine
from bench.context import Context
from bench.report import COLUMNS, Line, Result, markdown, show
from penstock.drill.postgres import EmbeddedPostgres

RESULTS = Path(__file__).with_name("RESULTS.md")
TOO_LONG = 900.0  # seconds for one claim; then every thread's stack is printed and the run ends


def main() -> int:
    arguments = _arguments()
    console = Console(stderr=True, highlight=False, markup=False)
    logging.getLogger().addHandler(logging.NullHandler())  # peers log every dead connection; the table is what we want
    if machine.busy():
        console.print("This machine is busy: what it shows now is not worth writing down.")
    with EmbeddedPostgres(max_connections=100) as server:
        context = Context(server, arguments.quick, lambda text: console.print(f"  {text}"))
        with server.admin() as admin:
            postgres = f"PostgreSQL {admin.info.parameter_status('server_version')}"
        lines = [line for name in arguments.claim or claims.names() for line in _run(name, context, console)]
    show(lines, Console(highlight=False, markup=False))
    if arguments.markdown:
        arguments.markdown.write_text(_page(lines, postgres))
    return 1 if any(line.met is False for line in lines) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Penstock's claims against its peers.")
    parser.add_argument("claim", nargs="*", help=f"which; all when none is named: {', '.join(claims.names())}")
    parser.add_argument("--quick", action="store_true", help="one round of what is long, and shorter outages")
    parser.add_argument(
        "--markdown", nargs="?", type=Path, const=RESULTS, metavar="FILE", help=f"write the table ({RESULTS.name})"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.claim) - set(claims.names()):
        parser.error(f"no such claim: {', '.join(sorted(unknown))}; there are {', '.join(claims.names())}")
    return arguments


def _run(name: str, context: Context, console: Console) -> Result:
    bar = ""
    started = time.perf_counter()
    faulthandler.dump_traceback_later(TOO_LONG, exit=True)
    try:
        claim = claims.load(name)
        bar = claim.BAR
        console.print(f"{name}: {claim.CLAIM}")
        return claim.run(context)
    except Exception as error:
        traceback.print_exc()
        return [Line(name, f"failed: {type(error).__name__}", "", "", bar, False)]
    finally:
        faulthandler.cancel_dump_traceback_later()
        console.print(f"  {time.perf_counter() - started:.1f} s")


def _page(lines: list[Line], postgres: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions().items())
    return "\n\n".join(
        [
            "# Results",
            f"{date.today():%d %B %Y}. {machine.machine()}. {machine.python()}. {postgres}. {versions}.",
            "Written by `python -m bench --markdown`; what each line measures, and how, is in [README.md](README.md).",
            markdown(COLUMNS, [line.cells() for line in lines]) + "\n",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
