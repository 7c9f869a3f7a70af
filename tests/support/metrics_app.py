"""For gunicorn: an application with a pool, whose workers tell Prometheus of it together.

``gunicorn -c tests/support/metrics_app.py support.metrics_app:app``: it is its own configuration.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, multiprocess

import penstock
from penstock.observe import prometheus

if __name__ != "__config__":  # gunicorn reads its configuration before the application, and in the parent
    pool = penstock.Pool(os.environ["DSN"], min_size=1, max_size=3, open=False, name="web")
    prometheus.register()


def child_exit(server: Any, worker: Any) -> None:
    """As prometheus_client's manual has it."""
    multiprocess.mark_process_dead(worker.pid)


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """``/use`` borrows a connection, ``/metrics`` is for Prometheus; each answers with what it has."""
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        pool.open()
        with pool.connection() as conn:
            conn.execute("SELECT 1")
        body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
