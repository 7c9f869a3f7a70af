"""Notes by Celery: each process of the worker has a pool of its own, made of the one here after the fork.

    export DSN=postgresql://localhost/postgres
    psql "$DSN" -c "CREATE TABLE notes (id serial PRIMARY KEY, note text NOT NULL)"
    .venv/bin/celery --workdir examples -A worker worker --concurrency 2
    .venv/bin/python examples/worker.py "buy milk"

The jobs go through a folder, examples/jobs unless JOBS names another, so that no broker is needed to try it.
"""

import os
import sys
from pathlib import Path

from celery import Celery

from penstock import Pool, deadline
from penstock.integrations.celery import close_with_worker

pool = Pool(os.environ["DSN"], min_size=1, max_size=2, open=True, name="worker")
close_with_worker(pool)

jobs = Path(os.environ.get("JOBS", Path(__file__).parent / "jobs"))
jobs.mkdir(exist_ok=True)
app = Celery("worker", broker="filesystem://")
app.conf.broker_transport_options = {"data_folder_in": jobs, "data_folder_out": jobs, "control_folder": jobs}


@app.task(name="add")
def add(note: str) -> None:
    with deadline(10), pool.connection() as conn:
        conn.execute("INSERT INTO notes (note) VALUES (%s)", (f"{note}, says process {os.getpid()}",))


if __name__ == "__main__":
    add.delay(sys.argv[1])
