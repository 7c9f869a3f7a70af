"""Notes over HTTP, with FastAPI: however many come, at most ten connections.

    export DSN=postgresql://localhost/postgres
    psql "$DSN" -c "CREATE TABLE notes (id serial PRIMARY KEY, note text NOT NULL)"
    .venv/bin/uvicorn --app-dir examples fastapi_app:app
"""

import os
from typing import Annotated

from fastapi import Body, FastAPI
from psycopg import AsyncConnection

from penstock import AsyncPool
from penstock.integrations.asgi import PenstockMiddleware
from penstock.integrations.fastapi import connection

pool = AsyncPool(os.environ["DSN"], min_size=1, max_size=10, open=False, name="notes")
Conn = Annotated[AsyncConnection, connection(pool)]

app = FastAPI()
app.add_middleware(PenstockMiddleware, pools=[pool], deadline=2.0, live="/livez", ready="/readyz")


@app.post("/notes", status_code=201)
async def add(note: Annotated[str, Body()], conn: Conn) -> int:
    cursor = await conn.execute("INSERT INTO notes (note) VALUES (%s) RETURNING id", (note,))
    row = await cursor.fetchone()
    return row[0] if row else 0


@app.get("/notes/{number}")
async def read(number: int) -> str | None:
    return await pool.fetchval("SELECT note FROM notes WHERE id = %s", (number,))  # shares a connection
