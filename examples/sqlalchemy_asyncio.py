"""Notes over HTTP, with SQLAlchemy's asyncio engine under Starlette: one line of `create_async_engine` is changed.

    export DSN=postgresql://localhost/postgres
    psql "$DSN" -c "CREATE TABLE notes (id serial PRIMARY KEY, note text NOT NULL)"
    .venv/bin/uvicorn --app-dir examples sqlalchemy_asyncio:app
"""

import os
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from penstock.integrations.asgi import PenstockMiddleware
from penstock.integrations.sqlalchemy import PenstockPool

url = os.environ["DSN"].replace("postgresql://", "postgresql+psycopg://", 1)
engine = create_async_engine(url, poolclass=PenstockPool, pool_size=5, max_overflow=0)


@asynccontextmanager
async def lifespan(app):
    yield
    await engine.dispose()


async def add(request):
    async with engine.begin() as conn:
        insert = text("INSERT INTO notes (note) VALUES (:note) RETURNING id")
        number = (await conn.execute(insert, {"note": await request.json()})).scalar_one()
    return JSONResponse(number, 201)


async def read(request):
    async with engine.connect() as conn:
        select = text("SELECT note FROM notes WHERE id = :number")
        return JSONResponse((await conn.execute(select, {"number": request.path_params["number"]})).scalar())


app = Starlette(
    routes=[Route("/notes", add, methods=["POST"]), Route("/notes/{number:int}", read)],
    middleware=[Middleware(PenstockMiddleware, deadline=2.0, live="/livez")],
    lifespan=lifespan,
)
