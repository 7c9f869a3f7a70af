"""A server that forks: each process has a pool of its own, whatever was open before. Celery's: test_examples."""

from pathlib import Path
from typing import Any

import httpx

from support.waiting import eventually
from support.web import Sessions, free_port, serving

PRELOADED = """
import os
from penstock import Pool
from penstock.integrations.wsgi import PenstockMiddleware

pool = Pool(os.environ["DSN"], min_size=2, open=True, name="preloaded")
pool.wait()

def own(environ, start_response):
    with pool.connection() as conn:
        backend = conn.execute("SELECT pg_backend_pid()").fetchone()[0]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getppid()} {os.getpid()} {backend}".encode()]

app = PenstockMiddleware(own, [pool])
"""


def test_gunicorn_s_workers_have_a_pool_each(own_postgres: Any, tmp_path: Path) -> None:
    """Of one that was open before the fork; all say goodbye at the end."""
    database = own_postgres()
    (tmp_path / "preloaded.py").write_text(PRELOADED)
    port = free_port()
    command = ["-m", "gunicorn", "--chdir", str(tmp_path), "--preload", "--workers", "2", "--threads", "4"]
    backends: dict[int, set[int]] = {}
    parents = set()
    with database.admin() as admin:
        sessions = Sessions(admin)

        def ask() -> bool:
            parent, worker, backend = map(int, httpx.get(f"http://127.0.0.1:{port}/").text.split())
            backends.setdefault(worker, set()).add(backend)
            parents.add(parent)
            return len(backends) == 2

        bind = ["--bind", f"127.0.0.1:{port}", "preloaded:app"]
        with serving([*command, *bind], port, {"DSN": database.dsn}):
            eventually(ask, 20)
            one, other = backends.values()
            assert not one & other
            assert len(parents) == 1
            assert sessions.connections() <= 2 * 3
        eventually(lambda: sessions.connections() == 0)
        assert sessions.lost() == 0
