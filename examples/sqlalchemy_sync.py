"""Notes over HTTP, with SQLAlchemy: one line of `create_engine` is changed.

    export DSN=postgresql://localhost/postgres
    psql "$DSN" -c "CREATE TABLE notes (id serial PRIMARY KEY, note text NOT NULL)"
    .venv/bin/gunicorn --chdir examples --threads 8 sqlalchemy_sync:app
"""

import os

from flask import Flask, jsonify, request
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from penstock.integrations.sqlalchemy import PenstockPool
from penstock.integrations.wsgi import PenstockMiddleware


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str]


url = os.environ["DSN"].replace("postgresql://", "postgresql+psycopg://", 1)
engine = create_engine(url, poolclass=PenstockPool, pool_size=5, max_overflow=0)

app = Flask(__name__)
app.wsgi_app = PenstockMiddleware(app.wsgi_app, deadline=2.0, live="/livez")


@app.post("/notes")
def add():
    with Session(engine) as session, session.begin():
        note = Note(note=request.json)
        session.add(note)
        session.flush()
        return jsonify(note.id), 201


@app.get("/notes/<int:number>")
def read(number):
    with Session(engine) as session:
        note = session.get(Note, number)
        return jsonify(note.note if note else None)
