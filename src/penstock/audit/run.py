"""A whole audit: of what changed, in as many processes as it is worth, and from memory for the rest."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import blake2b

from . import deployment
from .cache import Entry
from .deployment import Deployment
from .files import Found
from .imports import digests
from .source import Unread
from .worker import DEEP, Worker, undisturbed

_ALONE = 400_000  # bytes that one process judges before another has started
_CHUNK = 300_000  # bytes that a process is given at a time


@dataclass(slots=True)
class Judged:
    """What was found in a program, file by file; *anew*: how many files were judged, and not remembered."""

    entries: dict[str, Entry]
    anew: int


def run(
    files: Sequence[Found],
    around: Sequence[Found] = (),
    pooling: str | None = None,
    known: Mapping[str, Entry] | None = None,
    jobs: int = 0,
) -> Judged:
    """Judge *files*.

    :param around: files of the same program, of which things are known and not told. With such nothing is remembered:
        what they import is not looked at.
    :param pooling: of the pooler in front of the database.
    :param known: what was found before, by path.
    :param jobs: processes; 0 for as many as there are cores.
    """
    jobs = jobs or os.cpu_count() or 1
    worker = Worker(files, around, pooling, jobs)
    entries = {file.shown: _entry(file, known or {}) for file in files}
    worker.deployment = told = _deployment(entries, around)
    fresh = [shown for shown, entry in entries.items() if not entry.digest or not entry.key]
    with undisturbed():
        _take_in(fresh, entries, worker, jobs)
        stale = [] if around else _stale(entries, worker.program.names, f"{pooling}\0{told}", fresh)
        _take_in(stale, entries, worker, jobs)
    return Judged(entries, len(fresh) + len(stale))


def _entry(file: Found, known: Mapping[str, Entry]) -> Entry:
    """What is known of a file as it is now."""
    data = file.contents()
    digest = "" if isinstance(data, Unread) else blake2b(data, digest_size=16).hexdigest()
    before = known.get(file.shown)
    if before is not None and digest and before.digest == digest:
        return before
    if isinstance(data, Unread):
        return Entry(digest)
    return Entry(digest, size=len(data), told=deployment.told(data))


def _deployment(entries: Mapping[str, Entry], around: Iterable[Found]) -> Deployment:
    """How the program is run, as all of its files tell."""
    beside = ((file.shown, deployment.told(data)) for file in around if not isinstance(data := file.contents(), Unread))
    return deployment.together([*((shown, entry.told) for shown, entry in entries.items()), *beside])


def _stale(
    entries: Mapping[str, Entry], names: Mapping[str, str | None], circumstances: str, fresh: Iterable[str]
) -> list[str]:
    """Those whose findings rest on something that is not what it was. Each entry gets the key that it has now."""
    rests = digests(
        {shown: entry.digest for shown, entry in entries.items()},
        {shown: entry.imports for shown, entry in entries.items()},
        names,
    )
    anew = set(fresh)
    stale = []
    for shown, entry in entries.items():
        key = blake2b(f"{rests[shown]}\0{circumstances}".encode(), digest_size=16).hexdigest()
        if shown not in anew and entry.key != key:
            stale.append(shown)
        entry.key = key if entry.digest else ""
    return stale


def _take_in(wanted: Sequence[str], entries: Mapping[str, Entry], worker: Worker, jobs: int) -> None:
    for shown, found in _judged(wanted, entries, worker, jobs):
        entry = entries[shown]
        if found.digest != entry.digest:  # it changed while we were at it
            entry.digest = ""
        entry.lines, entry.imports, entry.ignores = found.lines, found.imports, found.ignores
        entry.findings, entry.unread = found.findings, found.unread


def _judged(
    wanted: Sequence[str], entries: Mapping[str, Entry], worker: Worker, jobs: int
) -> Iterator[tuple[str, Entry]]:
    tasks = list(_tasks(sorted(wanted), entries))
    jobs = min(jobs, len(tasks))
    if jobs <= 1 or sum(entries[shown].size for shown in wanted) <= _ALONE:
        for task in tasks:
            yield from worker.judge(task)
        return
    failed = []
    with _processes(worker, jobs) as pool:
        waiting = {pool.submit(_work, task): task for task in tasks}
        for future in as_completed(waiting):
            try:
                yield from future.result()
            except BrokenProcessPool:
                failed.append(waiting[future])
    for task in failed:
        yield from _one_by_one(task, worker)


def _tasks(wanted: Iterable[str], entries: Mapping[str, Entry]) -> Iterator[list[str]]:
    """Neighbours go together: they use the same files."""
    task: list[str] = []
    size = 0
    for shown in wanted:
        task.append(shown)
        size += entries[shown].size
        if size > _CHUNK:
            yield task
            task, size = [], 0
    if task:
        yield task


def _one_by_one(task: list[str], worker: Worker) -> Iterator[tuple[str, Entry]]:
    """What a process ended over, until it is known which file it was."""
    for shown in task:
        with _processes(worker, 1) as pool:
            try:
                yield from pool.submit(_work, [shown]).result()
            except BrokenProcessPool:
                yield shown, Entry("", unread=[Unread(shown, 1, "Python itself ended over it")])


def _processes(worker: Worker, count: int) -> ProcessPoolExecutor:
    # A fork is quick, and is not safe where other threads run.
    way = "fork" if "fork" in multiprocessing.get_all_start_methods() and threading.active_count() == 1 else "spawn"
    return ProcessPoolExecutor(count, multiprocessing.get_context(way), _begin, (worker,))


_worker: Worker | None = None  # of this process, if it is one of several


def _begin(worker: Worker) -> None:
    global _worker
    _worker = worker
    gc.disable()
    sys.setrecursionlimit(DEEP)


def _work(task: list[str]) -> list[tuple[str, Entry]]:
    assert _worker is not None
    return list(_worker.judge(task))
