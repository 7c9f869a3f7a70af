"""How a program is run, as far as its files tell: what a rule has to know of files that the judged one never imports.

Each file tells a few words, by which a gunicorn configuration, a Celery hook or an ASGI server is known. They are
looked for in its bytes, so that whoever remembers a file's findings need not parse it for this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_TOLD = {
    "preload": re.compile(rb"^[ \t]*preload_app[ \t]*=[ \t]*True\b", re.MULTILINE),
    "after-fork": re.compile(rb"\bdef post_fork\b|\bpost_worker_init\b|\bregister_at_fork\b"),
    "after-celery-fork": re.compile(rb"\bworker_process_init\b|\bworker_pool\b|\bregister_at_fork\b"),
    "asgi": re.compile(
        rb"^ASGI_APPLICATION[ \t]*=|^[ \t]+[\"'](?:daphne|channels)[\"'],"
        rb"|Uvicorn(?:H11)?Worker|^(?:import|from) (?:uvicorn|daphne|hypercorn)\b",
        re.MULTILINE,
    ),
}
_WORDS = re.compile(
    rb"preload_app|post_fork|post_worker_init|register_at_fork|worker_p|ASGI_|daphne|channels|[Uu]vicorn|hypercorn"
)


@dataclass(frozen=True, slots=True)
class Deployment:
    """*preload*: the file that has gunicorn load the program before it forks; *asgi*: one by which it is ASGI's."""

    preload: str = ""
    asgi: str = ""
    after_fork: bool = False  # something is done in each of gunicorn's workers as it begins
    after_celery_fork: bool = False


def told(data: bytes) -> list[str]:
    """What the file tells that has *data*."""
    if _WORDS.search(data) is None:
        return []
    return [name for name, pattern in _TOLD.items() if pattern.search(data)]


def together(files: Iterable[tuple[str, Iterable[str]]]) -> Deployment:
    """What they tell together: each by its path as shown, with what it told."""
    by_word: dict[str, list[str]] = {}
    for shown, words in files:
        for word in words:
            by_word.setdefault(word, []).append(shown)
    return Deployment(
        preload=min(by_word.get("preload", ()), default=""),
        asgi=min(by_word.get("asgi", ()), default=""),
        after_fork="after-fork" in by_word,
        after_celery_fork="after-celery-fork" in by_word,
    )
