"""What a job was asked to do, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ..core.settings import check_count, check_seconds
from ..pool.base import BasePool
from .checkpoint import LONGEST_JOB, LONGEST_KEY
from .retry import Rate, Retry


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds. See `penstock.batch.for_each` for what each means."""

    work: Callable[..., Any]
    save: Callable[..., Any] | None
    pool: Any
    job: str
    key: Callable[[Any], Any] | None
    concurrency: int
    http: Any
    rate: Rate | None
    retry: Retry
    timeout: float
    retry_failed: bool
    stop_after: int
    grace: float
    total: int | None
    progress: bool


def check(
    items: Any, *, is_async: bool, rate: Rate | float | None, retry: Retry | None, total: int | None, **given: Any
) -> Settings:
    """The settings, of all that `for_each` was given, with what can be told from `items`, `rate` and no `retry`.

    :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
    """
    if total is None and isinstance(items, (Sequence, Set, Mapping)):  # not whatever has a length: a QuerySet loads all
        total = len(items)
    if total is not None:
        check_count("total", total, at_least=0)
    if rate is not None and not isinstance(rate, Rate):
        rate = Rate(rate)
    settings = Settings(rate=rate, retry=Retry() if retry is None else retry, total=total, **given)
    for name in ("work", "save", "key"):
        if not callable(value := getattr(settings, name)) and (value is not None or name == "work"):
            raise TypeError(f"{name} must be a function, not {value!r}")
    _check_items(items, is_async)
    _check_pool(settings.pool, is_async)
    _check_http(settings.http, is_async)
    if not isinstance(settings.job, str):
        raise TypeError(f"job must be a name, not {settings.job!r}")
    if not 0 < len(settings.job) <= LONGEST_JOB or "\0" in settings.job:
        raise ValueError(f"job must be a name of 1 to {LONGEST_JOB} characters, not {settings.job!r}")
    check_count("concurrency", settings.concurrency, at_least=1)
    check_count("stop_after", settings.stop_after, at_least=1)
    if not isinstance(settings.retry, Retry):
        raise TypeError(f"retry must be a penstock.batch.Retry, not {settings.retry!r}")
    for name in ("timeout", "grace"):
        check_seconds(name, seconds := getattr(settings, name))
        if not math.isfinite(seconds) or (name == "timeout" and not seconds):
            raise ValueError(f"{name} must be a number of seconds that ends, not {seconds!r}")
    return settings


def _check_items(items: Any, is_async: bool) -> None:
    if isinstance(items, (str, bytes)):
        raise TypeError(f"items must be an iterable of items, not one {type(items).__name__}")
    if not isinstance(items, Iterable) and not (is_async and hasattr(items, "__aiter__")):
        raise TypeError(f"items must be an iterable{' (async or not)' if is_async else ''}, not {items!r}")


def _check_pool(pool: Any, is_async: bool) -> None:
    wanted = "penstock.AsyncPool" if is_async else "penstock.Pool"
    if not isinstance(pool, BasePool) or pool._is_async is not is_async:
        raise TypeError(f"pool must be a {wanted}, not {pool!r}: its connections save the results")


def _check_http(http: Any, is_async: bool) -> None:
    import httpx

    wanted = httpx.AsyncClient if is_async else httpx.Client
    if http is None or isinstance(http, wanted):
        return
    if not isinstance(http, Mapping):
        raise TypeError(
            f"http must be arguments for httpx.{wanted.__name__} in a dict, or one that is made, not {http!r}"
        )
    for name in ("timeout", "limits"):
        if name in http and not _ends(http[name]):
            raise ValueError(f"http has {name}={http[name]!r}, which is no limit: give numbers, or leave it out")


def _ends(limit: Any) -> bool:
    """Whether httpx's timeout or limits bound all that they can."""
    import httpx

    if isinstance(limit, httpx.Limits):
        return limit.max_connections is not None
    timeout = httpx.Timeout(limit)
    return None not in (timeout.connect, timeout.read, timeout.write, timeout.pool)


def name_of(key: Any) -> str:
    """The key of an item, as the checkpoint has it.

    :raises ValueError: (or TypeError) when it can have none.
    """
    if isinstance(key, bool) or not isinstance(key, (str, int, UUID)):
        raise TypeError(
            f"an item is known by a str, an int or a UUID, not by {key!r}: say which of it, as in"
            " key=lambda user: user.id"
        )
    text = str(key)
    if len(text) > LONGEST_KEY or "\0" in text:
        raise ValueError(f"an item's key must be of {LONGEST_KEY} characters at most, without NUL, not {text[:40]!r}")
    return text
