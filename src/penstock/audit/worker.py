"""One process's part of an audit: some files of a program, one after the other, in bounded memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b

from .audit import judge
from .cache import Entry
from .deployment import Deployment
from .files import Found
from .finding import Finding
from .imports import imported
from .names import Module
from .program import Program
from .project import Project
from .source import Unread
from .suppress import ignores

# Code that was made by a program nests deeper than Python's own limit lets functions call each other; at this one an
# `elif` may have hundreds before it, and the stack of C is not used up yet.
DEEP = 3000

_LINES = 300_000  # to keep in memory, in all processes together
_FEWEST = 60_000  # and in one


class Worker:
    """*files* are its own; *around* is what they may import besides."""

    def __init__(self, files: Sequence[Found], around: Sequence[Found], pooling: str | None, jobs: int) -> None:
        own = {file.shown for file in files}
        everything = [*files, *(file for file in around if file.shown not in own)]
        self.program = Program(everything, max(_LINES // jobs, _FEWEST))
        self.pooling = pooling
        self.deployment = Deployment()

    def judge(self, task: Iterable[str]) -> Iterator[tuple[str, Entry]]:
        """What is in each file of *task*, and what is wrong with it."""
        project = Project(self.program.named)
        for shown in task:
            yield shown, self._judge(shown, project)
            if self.program.forget():
                gc.collect()

    def _judge(self, shown: str, project: Project) -> Entry:
        data = self.program.files[shown].contents()
        digest = "" if isinstance(data, Unread) else blake2b(data, digest_size=16).hexdigest()
        module = self.program.module(shown)
        if isinstance(module, Unread):
            return Entry(digest, unread=[module])
        entry = Entry(digest, lines=module.source.lines, imports=imported(module), ignores=ignores(module.source.text))
        found = self._findings(module, project)
        if isinstance(found, Unread):
            entry.unread = [found]
        else:
            entry.findings = found
        return entry

    def _findings(self, module: Module, project: Project) -> list[Finding] | Unread:
        try:
            return judge(module, project, self.pooling, self.deployment)
        except Exception as error:  # a mistake of ours is one file's, not the whole run's
            where = error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            place = "" if where is None else f" in {where.tb_frame.f_code.co_name}, line {where.tb_lineno}"
            what = f"the audit itself failed on it, which is a mistake of Penstock's: {type(error).__name__}{place}"
            return Unread(module.source.path, 1, what)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Trees are many small things that all live: looking for garbage among them takes as long as all the rest."""
    limit, collects = sys.getrecursionlimit(), gc.isenabled()
    sys.setrecursionlimit(max(limit, DEEP))
    gc.disable()
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
        if collects:
            gc.enable()
