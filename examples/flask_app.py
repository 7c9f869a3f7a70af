"""Notes over HTTP, with Flask: a pool for each worker process, of at most five connections.

    export DSN=postgresql://localhost/postgres
    psql "$DSN" -c "CREATE TABLE notes (id serial PRIMARY KEY, note text NOT NULL)"
    .venv/bin/gunicorn --chdir examples --workers 2 --threads 8 --preload flask_app:app
"""

import os

from flask import Flask, jsonify, request

from penstock.integrations.flask import Penstock

app = Flask(__name__)
app.config.update(
    PENSTOCK_CONNINFO=os.environ["DSN"],
    PENSTOCK_OPTIONS={"min_size": 1, "max_size": 5},
    PENSTOCK_DEADLINE=2.0,
    PENSTOCK_LIVE="/livez",
    PENSTOCK_READY="/readyz",
)
db = Penstock(app)


@app.post("/notes")
def add():
    with db.connection.transaction():
        row = db.connection.execute("INSERT INTO notes (note) VALUES (%s) RETURNING id", (request.json,)).fetchone()
    return jsonify(row[0]), 201


@app.get("/notes/<int:number>")
def read(number):
    row = db.connection.execute("SELECT note FROM notes WHERE id = %s", (number,)).fetchone()
    return jsonify(row[0] if row else None)
