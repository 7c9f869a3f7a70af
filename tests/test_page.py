"""The live page in a real browser: it moves, it names the leak, it says when it is old, and it runs nobody's script."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from inspect import getsourcelines
from typing import Any

import pytest
from bench.browser import NoBrowser, browser, complaints, resize

from penstock import Pool
from penstock.observe import web
from support.asgi import served
from support.waiting import eventually
from support.web import free_port

EVIL = "<script>window.evil = 1</script><img src=x onerror='window.evil = 1'>"
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    """One for all tests here: to start it takes seconds."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(browser())
        except NoBrowser as error:
            pytest.skip(str(error))
        yield opened


@pytest.fixture
def chromium(started: Any) -> Any:
    """With nothing to complain of yet."""
    started.get("about:blank")
    complaints(started)
    return started


def shown(chromium: Any, selector: str) -> str:
    """The text that a reader sees there."""
    text: str = chromium.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
    return text


@contextmanager
def busy(pool: Pool) -> Iterator[None]:
    """Four threads use it all the while."""
    over = threading.Event()

    def use() -> None:
        while not over.wait(0.005):
            with pool.connection() as conn:
                conn.execute("SELECT pg_sleep(0.02)")

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def leak(pool: Pool) -> Any:
    conn = pool.getconn()  # leaked here
    conn.execute(f'SELECT 1 AS "{EVIL.replace(chr(34), "")}"')
    return conn


LEAKED = next(
    number for number, line in enumerate(getsourcelines(leak)[0], getsourcelines(leak)[1]) if "leaked here" in line
)


def test_charts_move_and_a_leak_shows_with_its_line(dsn: str, chromium: Any) -> None:
    """Under load, with nothing for the console to complain of."""
    with Pool(dsn, min_size=2, max_size=8, name="page", open=False, leak_after=0.3) as pool, busy(pool):
        with served(web.app(readers="local")) as address:
            chromium.get(f"{address}/")
            eventually(lambda: "Live" in shown(chromium, "#status"), 20)
            path = "return document.querySelector('#chart-connections path.in-use')?.getAttribute('d')"
            eventually(lambda: chromium.execute_script(path), 20)
            first = chromium.execute_script(path)
            eventually(lambda: chromium.execute_script(path) != first, 20)
            assert "of 8 in use" in shown(chromium, "#of-max")
            conn = leak(pool)
            eventually(lambda: "suspected leak" in shown(chromium, "#holders"), 20)
            assert f"test_page.py:{LEAKED}" in shown(chromium, "#holders")
            eventually(lambda: "leak suspected" in shown(chromium, "#alert-list"), 20)
            assert f"test_page.py:{LEAKED}" in shown(chromium, "#alert-list")
            eventually(lambda: "Alert: leak suspected" in shown_to_a_reader(chromium), 20)
            pool.putconn(conn)
            eventually(lambda: "suspected leak" not in shown(chromium, "#holders"), 20)
            assert complaints(chromium) == []


def shown_to_a_reader(chromium: Any) -> str:
    """What a screen reader is told beside what is seen."""
    text: str = chromium.execute_script("return document.querySelector('#announced').textContent")
    return text


def test_whatever_a_process_tells_is_text(dsn: str, chromium: Any) -> None:
    """A pool's name, a statement, an alert with a script in it: shown as such, and never run."""
    with Pool(dsn, min_size=1, max_size=4, name=EVIL, open=False, leak_after=0.2) as pool:
        conn = leak(pool)
        with served(web.app(readers="local")) as address:
            chromium.get(f"{address}/")
            eventually(lambda: "suspected leak" in shown(chromium, "#holders"), 20)
            assert shown(chromium, "#pool-name") == EVIL
            eventually(lambda: EVIL in shown(chromium, "#alert-list"), 20)
            assert "onerror" in chromium.page_source
            assert chromium.execute_script("return window.evil") is None
            assert complaints(chromium) == []
        pool.putconn(conn)


def test_it_says_that_it_is_old_and_comes_back(dsn: str, chromium: Any) -> None:
    """The server goes away, and is there again."""
    port = free_port()
    with Pool(dsn, min_size=1, max_size=4, name="stale", open=False) as pool:
        pool.wait()
        with served(web.app(readers="local"), port) as address:
            chromium.get(f"{address}/")
            eventually(lambda: "Live" in shown(chromium, "#status") and shown(chromium, "#pool-name"), 20)
            known = shown(chromium, "#pool-name")  # another test's, if that is still there and worse off
        eventually(lambda: "Stale" in shown(chromium, "#status"), 20)
        assert shown(chromium, "#pool-name") == known
        with served(web.app(readers="local"), port):
            eventually(lambda: "Live" in shown(chromium, "#status"), 20)


def test_it_fits_a_telephone_and_wants_no_mouse(dsn: str, chromium: Any) -> None:
    """320 px wide nothing sticks out; every control can be reached and has a name; there is one heading of the page."""
    with Pool(dsn, min_size=1, max_size=4, name="small-" + "x" * 60, open=False) as pool:
        pool.wait()
        with pool.connection(), served(web.app(readers="local", token=TOKEN)) as address:
            resize(chromium, 320, 640)
            chromium.get(f"{address}/")
            eventually(lambda: "Live" in shown(chromium, "#status"), 20)
            eventually(lambda: "in use" in shown(chromium, "#caption-connections"), 20)
            assert chromium.execute_script("return document.documentElement.scrollWidth") <= 320
            resize(chromium, 1280, 900)
            unnamed = """return [...document.querySelectorAll('button, input, select, [tabindex="0"], svg[role=img]')]
                .filter(e => !(e.innerText || e.labels?.length || e.getAttribute('aria-labelledby')
                    || e.getAttribute('aria-label'))).map(e => e.outerHTML)"""
            assert chromium.execute_script(unnamed) == []
            assert chromium.execute_script("return document.querySelectorAll('h1, main, header, nav').length") == 4
            headless = "return [...document.querySelectorAll('th')].filter(e => !e.scope).length"
            assert chromium.execute_script(headless) == 0
            reached = set()
            for _ in range(40):
                chromium.switch_to.active_element.send_keys("\ue004")  # Tab
                reached.add(chromium.execute_script("return document.activeElement.id"))
            assert {"action-token", "size", "leak"} <= reached
            assert complaints(chromium) == []


def test_with_the_token_it_reads_and_acts(dsn: str, chromium: Any) -> None:
    """Without, it asks for it; the token stays out of the address."""
    with Pool(dsn, min_size=1, max_size=4, name="acted", open=False) as pool:
        pool.wait()
        with served(web.app(token=TOKEN)) as address:
            chromium.get(f"{address}/")
            eventually(lambda: "needs the token" in shown(chromium, "#token-why"), 20)
            chromium.find_element("id", "token").send_keys(f"{TOKEN}\n")
            eventually(lambda: "Live" in shown(chromium, "#status"), 20)
            chromium.find_element("id", "action-token").send_keys(TOKEN)
            chromium.find_element("id", "size").send_keys("6")
            chromium.find_element("css selector", "form[data-do=resize] button").click()
            eventually(lambda: "Done: resized from at most 4 to at most 6" in shown(chromium, "#acted"), 20)
            assert pool.max_size == 6
            assert TOKEN not in chromium.current_url
            refused = [message for message in complaints(chromium) if "401" not in message]
            assert refused == []


def test_the_return_key_does_what_stands_beside_it(dsn: str, chromium: Any) -> None:
    """In a field of the actions it drained the pool; now nothing is drained that was not confirmed."""
    with Pool(dsn, min_size=1, max_size=4, name="entered", open=False) as pool:
        pool.wait()
        with served(web.app(token=TOKEN, readers="local")) as address:
            chromium.get(f"{address}/")
            eventually(lambda: "Live" in shown(chromium, "#status"), 20)
            chromium.find_element("id", "action-token").send_keys(f"{TOKEN}\n")
            chromium.find_element("id", "size").send_keys("6\n")
            eventually(lambda: "resized" in shown(chromium, "#acted"), 20)
            assert pool.max_size == 6
            drain = chromium.find_element("css selector", "form[data-do=drain] button")
            drain.click()
            chromium.switch_to.alert.dismiss()
            assert not pool.snapshot().closes
            drain.click()
            chromium.switch_to.alert.accept()
            eventually(lambda: "Done: drained" in shown(chromium, "#acted"), 20)
        drain.click()
        chromium.switch_to.alert.accept()
        eventually(lambda: "No answer" in shown(chromium, "#acted"), 20)  # the server has gone


def test_an_alert_leads_to_its_pool(dsn: str, chromium: Any) -> None:
    """The page opens on it, and goes back to it by the alert itself."""
    with (
        Pool(dsn, min_size=1, max_size=4, name="a-quiet-one", open=False) as quiet,
        Pool(dsn, min_size=1, max_size=4, name="the-leaking-one", open=False, leak_after=0.2) as leaking,
    ):
        quiet.wait()
        conn = leak(leaking)
        with served(web.app(readers="local")) as address:
            chromium.get(f"{address}/")
            eventually(lambda: shown(chromium, "#pool-name") == "the-leaking-one", 20)
            eventually(lambda: "the-leaking-one" in shown(chromium, "#alert-list .pool"), 20)
            chromium.find_element("css selector", "#pool-list button").click()
            assert shown(chromium, "#pool-name") == "a-quiet-one"
            chromium.find_element("css selector", "#alert-list .pool").click()
            assert shown(chromium, "#pool-name") == "the-leaking-one"
        leaking.putconn(conn)
