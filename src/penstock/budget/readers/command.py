"""Command lines of the servers that run Python: how many processes they start, and how many threads in each.

Read from gunicorn 27, uvicorn 0.54 and celery 5.7: ``WEB_CONCURRENCY`` is the default of gunicorn's and uvicorn's
workers, 1 without it; celery starts a process for each CPU unless it is told how many.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePosixPath

from .facts import Command, Environment, Fact, Place, shown

_PYTHON = ("python", "python3", "pypy", "pypy3")
_BEFORE = (
    "exec", "tini", "dumb-init", "nice", "newrelic-admin", "run-program", "ddtrace-run", "opentelemetry-instrument",
)  # fmt: skip
_RUN = ("uv", "poetry", "pipenv", "pdm", "hatch", "penstock")  # each with "run"
GREENLETS = 1000  # gunicorn's worker_connections: each greenlet may hold a connection


def read(
    words: str | Sequence[str], place: Place, environment: Environment | None = None, directory: str = ""
) -> Command | None:
    """What *words* start; None when they are no command line that can be read, or start nothing."""
    environment = environment or Environment()
    found = _programs(_split(words))
    for runner, arguments in reversed(found):  # what is started last stays; what comes before it prepares
        if runner in _READERS:
            return _READERS[runner](arguments, place, environment)
    return Command(found[-1][0]) if found else None


def _split(words: str | Sequence[str]) -> list[str]:
    """The words of a command; ``sh -c "..."`` is the words inside."""
    try:
        found = shlex.split(words, comments=False) if isinstance(words, str) else [str(each) for each in words]
        if len(found) >= 3 and PurePosixPath(found[0]).name in ("sh", "bash", "ash", "dash") and "c" in found[1]:
            return shlex.split(found[2].replace(";", " ; ").replace("\n", " ; "))
    except ValueError:  # a quote that is not closed
        return []
    return found


def _programs(words: list[str]) -> list[tuple[str, list[str]]]:
    """Each command of a line such as ``migrate && exec gunicorn app:app``, by its program's bare name."""
    found: list[tuple[str, list[str]]] = []
    command: list[str] = []
    for word in [*words, ";"]:
        if word not in (";", "&&", "||", "&", "|"):
            command.append(word)
        elif command:
            if program := _program(command):
                found.append(program)
            command = []
    return found


def _program(words: list[str]) -> tuple[str, list[str]] | None:
    words = list(words)
    while words:
        name = PurePosixPath(words.pop(0)).name
        if ("=" in name and not name.startswith("-")) or name in _BEFORE or name in ("env", "--", "-g", "-s"):
            continue
        if name in _RUN and words[:1] == ["run"]:
            del words[:1]
            continue
        if name.rstrip("0123456789.") in ("python", "pypy") or name in _PYTHON:
            while words and words[0] in ("-u", "-O", "-B", "-I", "-X", "-W"):
                del words[: 2 if words[0] in ("-X", "-W") else 1]
            if words[:1] == ["-m"]:
                del words[:1]
                continue
            return (PurePosixPath(words[0]).name, words[1:]) if words else ("python", [])
        return name, words
    return None


def option(words: Sequence[str], *names: str) -> str | None:
    """The last value of an option, in each form: ``--workers 4``, ``--workers=4``, ``-w 4``, ``-w4``."""
    found = None
    for index, word in enumerate(words):
        for name in names:
            if word == name and index + 1 < len(words):
                found = words[index + 1]
            elif name.startswith("--") and word.startswith(name + "="):
                found = word[len(name) + 1 :]
            elif not name.startswith("--") and len(word) > len(name) and word.startswith(name) and word[1] != "-":
                found = word[len(name) :].removeprefix("=")
    return found


def figure(text: str, said: str, place: Place, environment: Environment) -> Fact:
    """A figure of a command line, where a variable may stand: ``${WORKERS:-4}``."""
    value = expand(text, environment)
    if value is not None and value.isascii() and value.isdigit():
        return Fact(int(value), place, said)
    return Fact(None, place, f"{said}: no figure that these files tell")


def expand(text: str, environment: Environment) -> str | None:
    """*text* with its one variable filled in, as a shell does it; None when that is not known."""
    if not text.startswith("$"):
        return text
    name = text[1:].strip("{}()")
    name, sign, fallback = name.partition(":-") if ":-" in name else name.partition("-")
    if not environment.knows(name):
        return None
    return environment.get(name) or (fallback if sign else None)


def web_concurrency(place: Place, environment: Environment) -> Fact | None:
    """What WEB_CONCURRENCY says; None when it is not set."""
    if not environment.knows("WEB_CONCURRENCY"):
        return Fact(None, place, "WEB_CONCURRENCY is set where penstock cannot look")
    if (value := environment.get("WEB_CONCURRENCY")) is None:
        return None
    return figure(value, f"WEB_CONCURRENCY={shown(value)}", place, environment)


def gunicorn_threads(worker: str | None, threads: Fact | None, connections: Fact | None, place: Place) -> Fact:
    """How many connections a gunicorn worker may hold when each of its threads has one."""
    if worker is None or worker in ("sync", "gthread"):
        return threads or Fact(1, place, "1 thread by default")
    if worker in ("gevent", "eventlet"):
        return connections or Fact(GREENLETS, place, f"worker_connections of {worker}, {GREENLETS} by default")
    if "uvicorn" in worker.lower() or worker in ("asgi", "tornado"):
        return Fact(None, place, f"{worker} serves any number of requests at once", endless=True)
    return Fact(None, place, f"worker class {worker} is not one that penstock knows")


def _gunicorn(words: list[str], place: Place, environment: Environment) -> Command:
    extra = environment.get("GUNICORN_CMD_ARGS")
    words = [*(_split(extra) if extra else []), *words]  # the command line comes last, and wins
    processes = _option_figure(words, ("--workers", "-w"), place, environment)
    if processes is None and not environment.knows("GUNICORN_CMD_ARGS"):
        processes = Fact(None, place, "GUNICORN_CMD_ARGS is set where penstock cannot look")
    return Command(
        "gunicorn",
        processes,
        _option_figure(words, ("--threads",), place, environment),
        option(words, "--config", "-c"),
        option(words, "--worker-class", "-k"),
        _option_figure(words, ("--worker-connections",), place, environment),
    )


def _option_figure(words: list[str], names: tuple[str, ...], place: Place, environment: Environment) -> Fact | None:
    given = option(words, *names)
    return None if given is None else figure(given, f"{names[0]} {shown(given)}", place, environment)


def _asgi(runner: str, words: list[str], place: Place, environment: Environment) -> Command:
    names = ("--workers", "-w") if runner == "hypercorn" else ("--workers",)
    processes = _option_figure(words, names, place, environment)
    if processes is None and runner == "uvicorn":
        processes = web_concurrency(place, environment)
    threads = Fact(None, place, f"{runner} serves any number of requests at once", endless=True)
    return Command(runner, processes or Fact(1, place, f"{runner}, 1 process by default"), threads)


def _celery(words: list[str], place: Place, environment: Environment) -> Command:
    if "worker" not in words:  # beat, flower
        return _one("celery", place)
    scale = option(words, "--autoscale")
    if scale is not None:
        many: Fact | None = figure(scale.split(",")[0], f"--autoscale {shown(scale.split(',')[0])}", place, environment)
    else:
        many = _option_figure(words, ("--concurrency", "-c"), place, environment)
    pool = option(words, "--pool", "-P") or "prefork"
    if pool == "solo":
        return _one("celery", place)
    if pool not in ("prefork", "processes"):
        threads = many or Fact(None, place, f"--pool {pool} without --concurrency")
        return Command("celery", Fact(1, place, f"--pool {pool}"), threads)
    by_cpus = Fact(None, place, "celery starts a process for each CPU of the machine: give it --concurrency")
    return Command("celery", many or by_cpus, Fact(1, place, "1 task at a time in each process"))


def _dramatiq(words: list[str], place: Place, environment: Environment) -> Command:
    by_cpus = Fact(None, place, "dramatiq starts a process for each CPU of the machine: give it --processes")
    threads = _option_figure(words, ("--threads", "-t"), place, environment)
    processes = _option_figure(words, ("--processes", "-p"), place, environment)
    return Command("dramatiq", processes or by_cpus, threads or Fact(8, place, "8 threads by default"))


def _one(runner: str, place: Place) -> Command:
    return Command(runner, Fact(1, place, f"{runner}, 1 process"), Fact(1, place, "1 task at a time"))


_Reader = Callable[[list[str], Place, Environment], Command]
_READERS: dict[str, _Reader] = {
    "gunicorn": _gunicorn,
    "celery": _celery,
    "dramatiq": _dramatiq,
    "rq": lambda words, place, environment: _one("rq", place),
    **{name: partial(_asgi, name) for name in ("uvicorn", "hypercorn", "granian", "daphne")},
}
