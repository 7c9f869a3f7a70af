"""A web application as many are: psycopg2, a connection for each request, forgotten when the request fails.

It knows nothing of Penstock, and is a program of its own, so that `penstock run` can take it as it is:
`python naive.py DSN` prints the port of 127.0.0.1 that it serves, and ends with its standard input.

A request's path says what is to be done: GET /?number=7&failing=0&statement=0.1&elsewhere=0.03
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import psycopg2  # type: ignore[import-untyped]

DSN = sys.argv[1]
reported: list[
    Exception
] = []  # an error reporter, as every service has one: it keeps the exception, which keeps the connection


class NotAllowed(Exception):
    """The service's own `no`."""


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    asked = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    try:
        status, answer = "200 OK", serve(**asked)
    except Exception as error:
        reported.append(error)
        status, answer = "500 Internal Server Error", f"{type(error).__name__}: {error}"
    body = answer.encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def serve(number: str, failing: str, statement: str, elsewhere: str) -> str:
    connection = psycopg2.connect(DSN)
    cursor = connection.cursor()
    cursor.execute("SELECT %s::int + 1", (int(number),))
    answer = str(cursor.fetchone()[0])
    if int(failing):
        raise NotAllowed(f"request {number} is not allowed")
    if float(statement):
        cursor.execute("SELECT pg_sleep(%s)", (float(statement),))
    time.sleep(float(elsewhere))  # such as a call of somebody's API, with the connection in hand
    connection.close()
    return answer


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 256


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Quiet)
    server.set_app(app)
    print(server.server_port, flush=True)
    threading.Thread(target=end_with_parent, daemon=True).start()
    server.serve_forever()
