"""A WSGI application behind our middleware, and Flask with our extension."""

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import flask
import pytest
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app

import penstock
from penstock import AsyncPool, Overloaded, Pool
from penstock.integrations.flask import Penstock
from penstock.integrations.wsgi import PenstockMiddleware
from support.waiting import aside, eventually
from support.web import left, outlived


def app_of(work: Callable[[], Any]) -> Any:
    """A bare application that answers what *work* returns."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        body = str(work()).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return app


def get(app: Any, path: str = "/", **options: Any) -> Any:
    """Its response, with WSGI's own rules kept by both sides."""
    return Client(validator(app)).open(path, buffered=True, **options)


@contextmanager
def held(pool: Pool[Any]) -> Iterator[None]:
    """The pool's only connection, by another thread: one that waits for what it holds itself is told so at once."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with pool.connection(timeout=5):
            taken.set()
            done.wait(10)

    pool.open()
    thread = aside(hold)
    assert taken.wait(5)
    try:
        yield
    finally:
        done.set()
        thread.result(5)


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool[Any]]:
    pool = Pool(dsn, min_size=1, open=False, name="secret-name")
    yield pool
    pool.close()


def one(pool: Pool[Any], timeout: float = 0.05) -> int:
    with pool.connection(timeout if pool.snapshot().leased else None) as conn:
        return int(conn.execute("SELECT 1").fetchone()[0])


# ------------------------------------------------------------------------------------------ any application


def test_pools_are_opened_at_the_first_request(pool: Pool[Any]) -> None:
    app = PenstockMiddleware(app_of(lambda: one(pool)), [pool])
    assert pool.closed
    assert get(app).data == b"1"
    assert not pool.closed


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_connection_is_503(pool: Pool[Any], method: str) -> None:
    """With Retry-After, and without a word of whom holds what."""
    app = PenstockMiddleware(app_of(lambda: one(pool)), [pool])
    with held(pool):
        response = get(app, method=method)
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.data == b"" if method == "HEAD" else response.json["status"] == 503
    assert b"secret-name" not in response.data


def test_a_framework_s_500_for_it_is_503(pool: Pool[Any]) -> None:
    """Most catch whatever is raised, and answer 500 themselves; its body is closed, and not sent."""
    closed = []

    class Page(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start_response: Any) -> Any:
        try:
            one(pool)
        except Exception:
            start_response("500 Internal Server Error", [("Content-Type", "text/html")])
            return Page([b"<h1>Oh dear</h1>"])

    with held(pool):
        response = get(PenstockMiddleware(app, [pool]))
    assert (response.status_code, response.json["status"]) == (503, 503)
    assert closed == [True]


def test_a_500_that_a_generator_answers_with_is_503(pool: Pool[Any]) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        try:
            one(pool)
        except Exception:
            start_response("500 Internal Server Error", [("Content-Type", "text/html")])
            yield b"<h1>Oh dear</h1>"

    with held(pool):
        response = get(PenstockMiddleware(app, [pool]))
    assert (response.status_code, response.json["status"]) == (503, 503)


def test_an_application_that_works_while_it_is_read_is_answered_for_too(pool: Pool[Any]) -> None:
    """A generator does nothing before the server asks for its first chunk."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        body = str(one(pool)).encode()
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield body

    wrapped = PenstockMiddleware(app, [pool])
    assert get(wrapped).data == b"1"
    with held(pool):
        response = get(wrapped)
    assert (response.status_code, response.json["status"]) == (503, 503)


def test_a_response_that_has_begun_is_not_begun_anew(pool: Pool[Any]) -> None:
    """Its error goes to the server, which breaks the response off."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"half"
        one(pool)

    with held(pool):
        chunks, status, _ = run_wsgi_app(PenstockMiddleware(app, [pool]), EnvironBuilder().get_environ())
        chunks = iter(chunks)
        assert (next(chunks), status) == (b"half", "200 OK")
        with pytest.raises(penstock.PoolExhausted):
            next(chunks)


def test_a_generator_has_the_deadline_until_its_response_begins() -> None:
    """All that it does before `start_response` it does while it is read."""
    found = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        found.append(left() is not None)
        start_response("200 OK", [("Content-Type", "text/plain")])
        found.append(left() is not None)
        yield b"done"

    assert get(PenstockMiddleware(app, deadline=5.0)).data == b"done"
    assert found == [True, False]


def test_a_file_is_the_server_s_to_send() -> None:
    """It knows its own wrapper, and sends the file without reading it."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"a file"))

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ["wsgi.file_wrapper"] = FileWrapper
    body = PenstockMiddleware(app)(environ, lambda *args: None)
    assert isinstance(body, FileWrapper)
    assert b"".join(body) == b"a file"


def test_another_error_is_nobody_s_503(pool: Pool[Any]) -> None:
    def work() -> None:
        raise LookupError("no such key")

    with pytest.raises(LookupError):
        get(PenstockMiddleware(app_of(work), [pool]))


def test_a_request_has_its_deadline_from_when_the_proxy_took_it_in() -> None:
    """While the application works: not in what is streamed, and not after."""
    found: dict[str, float | None] = {}

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        found["app"] = left()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream()

    def stream() -> Iterator[bytes]:
        found["stream"] = left()
        yield b"x"

    wrapped = PenstockMiddleware(app, deadline=5.0, arrival_header="X-Request-Start")
    assert get(wrapped, headers={"X-Request-Start": f"t={time.time() - 2:.3f}"}).data == b"x"
    assert 2.5 < (found["app"] or 0) < 3.05
    assert found["stream"] is None
    get(wrapped)
    assert 4.5 < (found["app"] or 0) <= 5
    assert left() is None


def test_a_connection_that_outlives_its_request_is_reported(pool: Pool[Any], caplog: pytest.LogCaptureFixture) -> None:
    """When the response is complete, not before: a stream may hold one until its end."""
    kept: list[Any] = []

    def leak(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        with pool.connection() as conn:
            yield str(conn.execute("SELECT 1").fetchone()[0]).encode()
        if environ["PATH_INFO"] == "/leak":
            kept.append(pool.getconn())
        yield b"."

    app = PenstockMiddleware(leak, [pool])
    events = outlived(pool)
    assert get(app, "/stream").data == b"1."
    assert events == []
    assert get(app, "/leak").data == b"1."
    assert [(event.request, event.holder.site.function.split(".")[-1]) for event in events] == [("GET /leak", "leak")]
    assert "a connection outlives its request, GET /leak: taken at " in caplog.text
    pool.putconn(kept.pop())


def test_health_waits_for_nobody(dsn: str) -> None:
    """All connections held and a queue before the pool: ready, and no connection was asked for."""
    pool = Pool(dsn, min_size=1, open=False, name="main")
    app = PenstockMiddleware(app_of(lambda: "mine"), [pool], live="/livez", ready="/readyz")
    assert get(app, "/readyz").json == {"status": "ready", "pools": {"main": "ready"}}
    with held(pool):
        waiting = aside(lambda: one(pool, 5))
        eventually(lambda: pool.snapshot().waiting)
        asked = pool.snapshot().requests
        assert get(app, "/readyz").status_code == 200
        assert pool.snapshot().requests == asked
    assert waiting.result(5) == 1
    pool.close()
    response = get(app, "/livez")
    assert (response.status_code, response.json) == (200, {"status": "alive"})
    response = get(app, "/readyz")
    assert (response.status_code, response.json["pools"]) == (503, {"main": "not open"})
    assert get(app, "/readyz", method="POST").data == b"mine"


def test_what_is_wrong_is_named(dsn: str) -> None:
    with pytest.raises(TypeError, match=r"pools must be a list of Pool \(an AsyncPool is for ASGI\), and there is a"):
        PenstockMiddleware(app_of(str), [AsyncPool(dsn, open=False)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="deadline must be 0 seconds or more"):
        PenstockMiddleware(app_of(str), deadline=-1)


# ------------------------------------------------------------------------------------------ Flask


def flask_app(dsn: str, **config: Any) -> tuple[flask.Flask, Penstock]:
    app = flask.Flask("shop")
    app.config.update(PENSTOCK_CONNINFO=dsn, PENSTOCK_OPTIONS={"min_size": 1, "timeout": 0.2}, **config)
    extension = Penstock()
    extension.init_app(app)
    logging.getLogger("shop").setLevel(logging.CRITICAL)
    return app, extension


def close(app: flask.Flask) -> None:
    for pool in app.extensions["penstock"].pools:
        pool.close()


def test_flask_has_a_pool_by_its_configuration(dsn: str) -> None:
    """Named after the application; the same connection for all of a request, named by the user's line."""
    app, db = flask_app(dsn)
    sites = []

    @app.get("/")
    def root() -> str:
        pids = {db.connection.info.backend_pid for _ in range(3)}
        sites.extend(holder.site.function.split(".")[-1] for holder in db.pool.holders())
        return f"{db.pool.name} {len(pids)} {db.pool.snapshot().leased}"

    assert app.test_client().get("/").text == "shop 1 1"
    assert sites == ["<setcomp>"] or sites == ["root"]
    with app.app_context():
        assert db.pool.snapshot().leased == 0
        assert db.connection.execute("SELECT 1").fetchone() == (1,)
        assert db.pool.snapshot().leased == 1
    close(app)


def test_flask_rolls_back_what_was_not_committed(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """In silence: to read is to leave a transaction open. However the request ends."""
    app, db = flask_app(dsn)
    with penstock.Pool(dsn, min_size=1) as pool, pool.connection() as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS web_flask_rolls_back (x text)")
        conn.execute("TRUNCATE web_flask_rolls_back")

    @app.get("/<how>")
    def write(how: str) -> str:
        with db.connection.transaction():
            db.connection.execute("INSERT INTO web_flask_rolls_back VALUES (%s)", (how,))
        db.connection.execute("INSERT INTO web_flask_rolls_back VALUES ('not committed')")
        if how == "raises":
            raise LookupError
        if how == "aborts":
            flask.abort(404)
        return how

    client = app.test_client()
    statuses = [client.get(f"/{how}").status_code for how in ("returns", "raises", "aborts")]
    assert statuses == [200, 500, 404]
    with app.app_context():
        assert db.pool.snapshot().leased == 0
        rows = db.connection.execute("SELECT x FROM web_flask_rolls_back ORDER BY x").fetchall()
    assert rows == [("aborts",), ("raises",), ("returns",)]
    assert "rolling back" not in caplog.text
    assert "outlives" not in caplog.text
    close(app)


def test_flask_answers_503_and_says_which_route(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    app, db = flask_app(dsn, PENSTOCK_READY="/readyz")

    @app.get("/orders/<int:number>")
    def order(number: int) -> str:
        with db.pool.connection():
            return "got one"

    client = app.test_client()
    assert client.get("/readyz").status_code == 200
    with app.app_context():
        pool = db.pool
    with held(pool):
        response = client.get("/orders/7")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert "503 for GET /orders/<int:number>: PoolExhausted: shop: " in caplog.text
    assert client.get("/orders/7").text == "got one"
    close(app)


def test_flask_s_own_handler_comes_first(dsn: str) -> None:
    app, db = flask_app(dsn)
    app.register_error_handler(penstock.PoolExhausted, lambda error: ("mine", 429))
    app.add_url_rule("/", view_func=lambda: db.connection.execute("SELECT 1"))
    with app.app_context():
        pool = db.pool
    with held(pool):
        assert app.test_client().get("/").status_code == 429
    close(app)


def test_flask_refuses_by_deadline(dsn: str) -> None:
    app, db = flask_app(dsn, PENSTOCK_DEADLINE=1.0, PENSTOCK_ARRIVAL_HEADER="X-Request-Start")

    @app.get("/")
    def root() -> str:
        return str(db.connection.execute("SELECT 1").fetchone()[0])

    client = app.test_client()
    assert client.get("/").text == "1"
    late = client.get("/", headers={"X-Request-Start": f"t={time.time() - 2:.3f}"})
    assert late.status_code == 503
    close(app)


def test_flask_reports_a_connection_that_outlives_its_request(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    app, db = flask_app(dsn)
    kept = []

    @app.get("/orders/<int:number>")
    def leak(number: int) -> str:
        kept.append(db.pool.getconn())
        return ""

    with app.app_context():
        pool = db.pool
    app.test_client().get("/orders/7", buffered=True)
    assert "a connection outlives its request, GET /orders/<int:number>: taken at " in caplog.text
    pool.putconn(kept.pop())
    close(app)


def test_flask_says_what_is_missing() -> None:
    app = flask.Flask("shop")
    with pytest.raises(RuntimeError, match=r'set app.config\["PENSTOCK_CONNINFO"\]'):
        Penstock(app)
    app.config["PENSTOCK_CONNINFO"] = "host=nowhere"
    Penstock(app)
    with pytest.raises(RuntimeError, match="has a Penstock already"):
        Penstock(app)


def test_refusals_that_a_view_raises_itself_are_503_too(dsn: str) -> None:
    """With what they say of when to come back."""
    app, _ = flask_app(dsn)

    @app.get("/")
    def root() -> str:
        raise Overloaded("shop", retry_after=4.2)

    assert app.test_client().get("/").headers["Retry-After"] == "5"
