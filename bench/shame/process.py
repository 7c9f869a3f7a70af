"""Processes, event loops and cancelled tasks: what fork and asyncio do to a pool."""

import os
import subprocess
import sys
from pathlib import Path

from bench import handoff
from bench.claims.cancel_handoff import ask
from bench.context import Context

ROOT = Path(__file__).parents[2]
NOT_ASYNC = "no asyncio"


def fork_after_use(name: str, ctx: Context) -> str:
    """The pool is used, the process forks, the child uses the pool: whose connection the child gets."""
    told = _script("fork", name, ctx)
    return told if told == "its own" else f"**{told}**"


def second_event_loop(name: str, ctx: Context) -> str:
    """An asyncio pool is used in one event loop and then, contended, in another one."""
    if name not in handoff.CONTESTANTS:
        return NOT_ASYNC
    return _script("loops", name, ctx)


def cancelled_at_handoff(name: str, ctx: Context) -> str:
    """A waiting task is cancelled just as it is handed a connection: cancellations that were swallowed."""
    if name not in handoff.CONTESTANTS:
        return NOT_ASYNC
    found = ask(sys.executable, name, ctx.dsn)
    if found is None:
        return "**failed**"
    told = f"{found['swallowed']} of {found['cancelled']}"
    if found["lost"]:
        told += f", {found['lost']} slots lost"
    return f"**{told}**" if found["swallowed"] or found["lost"] else told


def _script(module: str, name: str, ctx: Context) -> str:
    """What a script of this folder prints, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-m", f"bench.shame.{module}", name],
        cwd=ROOT,
        env={**os.environ, "DSN": ctx.dsn},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
    return done.stdout.strip() or "**failed**"
