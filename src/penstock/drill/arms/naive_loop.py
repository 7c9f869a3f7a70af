"""The loop that somebody writes in five minutes, and that runs for a night."""

import json
from typing import ClassVar
from urllib.error import HTTPError
from urllib.request import urlopen

import psycopg

from penstock.drill.arms.errand import INSERT, Errand


class NaiveLoop(Errand):
    """One after the other, a connection for each and held over the call, no timeout, and no memory of what is done."""

    name: ClassVar[str] = "naive-loop"
    title: ClassVar[str] = "the naive loop"

    def run(self, items: int, url: str) -> None:
        for number in range(items):
            with psycopg.connect(self._dsn) as connection:
                try:
                    with urlopen(f"{url}/users/{number}") as answer:
                        user = json.load(answer)
                except HTTPError:
                    continue  # in the log, which nobody reads
                connection.execute(INSERT, (user["id"], user["name"]))
