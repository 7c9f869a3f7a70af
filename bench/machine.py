"""Where and on what the figures were taken; without it they mean nothing."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import penstock

PEERS = ("psycopg", "psycopg_pool", "SQLAlchemy", "asyncpg", "psycopg2-binary", "DBUtils", "uvloop")
IDLE_LOAD = 0.5  # processes that want to run, over the last minute


def versions() -> dict[str, str]:
    """Our version and every peer's that is installed."""
    return {"Penstock": penstock.__version__} | {name: _version(name) for name in PEERS}


def machine() -> str:
    """Cores, memory and processor."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {next(_models(), platform.machine())}"


def busy() -> bool:
    """Whether this machine has other things to do than being measured."""
    return os.getloadavg()[0] > IDLE_LOAD


def python() -> str:
    """The interpreter and the system beneath it."""
    return f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.release()}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _models() -> Iterator[str]:
    try:
        with open("/proc/cpuinfo") as lines:
            yield from (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except OSError:
        return
