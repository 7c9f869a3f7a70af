"""What `import penstock` costs a program that imports its driver anyway. Each import in a fresh interpreter."""

import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median

from bench.context import Context
from bench.measure import interleave
from bench.report import Line, Result, at_most, listed

CLAIM = "`import penstock`, with both pools, beyond the driver's own import"
BAR = "<= 40 ms, no third-party module loaded besides the driver"

ROUNDS = 15

# Both pools are asked for by name, so that nothing is put off until later.
IMPORTS = {
    "ours": "from penstock import AsyncPool, Pool",
    "psycopg_pool": "from psycopg_pool import AsyncConnectionPool, ConnectionPool",
    "SQLAlchemy": "from sqlalchemy import create_engine",
    "asyncpg": "from asyncpg import create_pool",
}
SCRIPT = """
import json, sys, time
import psycopg
before, started = set(sys.modules), time.perf_counter()
{}
seconds = time.perf_counter() - started
new = {{name.partition('.')[0] for name in set(sys.modules) - before}}
print(json.dumps([seconds, sorted(new - set(sys.stdlib_module_names))]))
"""


def run(ctx: Context) -> Result:
    _import("ours")  # whoever comes first compiles
    found = interleave({name: _turn(name) for name in IMPORTS}, ROUNDS)
    seconds = {name: median(second for second, _ in turns) * 1e3 for name, turns in found.items()}
    foreign = {module for _, modules in found["ours"] for module in modules} - {"penstock"}
    return [
        at_most("import penstock beyond psycopg", seconds.pop("ours"), 40, "ms", peers=listed(seconds, "ms")),
        Line(
            "import penstock: third-party modules besides psycopg",
            ", ".join(sorted(foreign)) or "none",
            "",
            "",
            "none",
            not foreign,
        ),
    ]


def _turn(name: str) -> Callable[[], tuple[float, list[str]]]:
    return lambda: _import(name)


def _import(name: str) -> tuple[float, list[str]]:
    """Seconds, and the top-level modules that it loaded besides the standard library's."""
    script = SCRIPT.format(IMPORTS[name])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    seconds, modules = json.loads(done.stdout)
    return seconds, modules
