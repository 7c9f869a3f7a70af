"""What became of a job, and how it ends when it does not come to its end."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .. import errors

_LONGEST = 300  # characters of an error that are kept
# A URL's user and password (to the last @, as a password may have a slash or another one unquoted), and what follows
# its path: keys and tokens are often there.
_URL = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?:[^\s/@:'\"]*:[^\s'\"]*@|[^\s/@'\"]*@)?(?P<rest>[^\s?#'\"]*)[^\s'\"]*",
    re.IGNORECASE,
)
# What may follow such a name: of an authorization the rest of the line, as schemes have words and commas of their own.
_HEADER = re.compile(r"(?P<name>\bauthorization['\"]?\s*[=:]\s*)(?:'[^']*'|\"[^\"]*\"|.*)", re.IGNORECASE)
_NAMED = re.compile(
    r"(?P<name>(?:[\w-]*(?:password|passwd|pwd|secret|token|credentials?|signature|[_-]key)|(?:api|access|private)key|\bsig)"
    r"\d*['\"]?\s*[=:]\s*)"
    r"(?:(?:bearer|basic)\s+)?(?:'[^']*'|\"[^\"]*\"|[^\s,;&'\"]+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that was given up.

    :ivar key: by which it is known.
    :ivar tries: how often it was tried in the run that gave it up.
    :ivar error: the last error, in one line, without the queries of URLs and what else is often secret.
    """

    key: str
    tries: int
    error: str

    def __str__(self) -> str:
        return f"{self.key}: {self.error} (tried {self.tries} {'time' if self.tries == 1 else 'times'})"


@dataclass(frozen=True, slots=True)
class Report:
    """What one run of a job has done.

    :ivar job: its name.
    :ivar done: items saved by this run.
    :ivar skipped: items that were saved before, or came twice.
    :ivar elsewhere: items that another run of the same job has saved meanwhile.
    :ivar failed: items that this run has given up.
    :ivar failed_before: items that an earlier run has given up, and this one was not told to try again.
    :ivar failures: the first of those that have failed and were not saved since, of earlier runs too.
    :ivar failures_in_all: how many these are; None when the database could not be asked.
    :ivar seconds: how long it took.
    """

    job: str
    done: int
    skipped: int
    elsewhere: int
    failed: int
    failed_before: int
    failures: tuple[Failure, ...]
    failures_in_all: int | None
    seconds: float

    @property
    def per_second(self) -> float:
        """Items saved a second."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        parts = [f"{self.done:,} done in {self.seconds:,.1f} s ({self.per_second:,.0f}/s)"]
        others = {
            "done before": self.skipped,
            "saved meanwhile by another run": self.elsewhere,
            "failed": self.failed,
            "failed before": self.failed_before,
        }
        line = f"{self.job}: " + ", ".join(parts + [f"{number:,} {what}" for what, number in others.items() if number])
        if self.failures:
            line += f". The first that failed: {self.failures[0]}. To try those again: retry_failed=True"
        return line


class BatchStopped(Exception):
    """The job has ended itself before its end: items fail one after the other, or the database is not to be had.

    Whatever is not in the checkpoint is done when the job is started again.

    :ivar report: what it has done so far.
    """

    def __init__(self, why: str, report: Report) -> None:
        super().__init__(why, report)
        self.why = why
        self.report = report

    def __str__(self) -> str:
        return f"{self.report.job} has stopped: {self.why}. {self.report}. Start it again, and it goes on from here"


class BatchInterrupted(KeyboardInterrupt):
    """Ctrl-C: what was in flight has been finished and saved, as far as there was time.

    :ivar report: what it has done so far.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        return f"stopped by Ctrl-C: {self.report}. Start it again, and it goes on from here"


class HeldOverCall(errors.PoolError):
    """A request was made while its thread or task held a connection of the job's pool. It was not sent."""


def told(error: BaseException) -> str:
    """The error in one line that may be kept: its first, without what is often secret in it."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
    text = _URL.sub(r"\g<scheme>\g<rest>", text)
    for secret in (_HEADER, _NAMED):
        text = secret.sub(r"\g<name>***", text)
    text = text.replace("\0", "")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
