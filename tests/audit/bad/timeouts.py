# ruff: noqa: C417
"""Requests that may wait for ever."""

import urllib.request
from urllib.request import urlopen

import httpx
import requests
import requests as rq
from requests import get, post
from requests.sessions import Session


def plain(url):
    return requests.get(url)  # expect: PEN401


def by_other_names(url):
    rq.post(url, json={})  # expect: PEN401
    get(url)  # expect: PEN401
    post(url, data=b"")  # expect: PEN401
    requests.request("PATCH", url)  # expect: PEN401
    requests.delete(url, headers={"a": "b"})  # expect: PEN401


def told_so(url):
    requests.put(url, timeout=None)  # expect: PEN401
    httpx.get(url, timeout=None)  # expect: PEN401


def of_a_session(url):
    with requests.Session() as session:
        return session.get(url)  # expect: PEN401


def given(session: Session, url):
    return session.post(url)  # expect: PEN401


class Api:
    def __init__(self):
        self.session = requests.Session()
        self.session.headers["a"] = "b"

    def fetch(self, url):
        return self.session.get(url)  # expect: PEN401


def opened(url):
    with urlopen(url) as answer:  # expect: PEN401
        return answer.read()


def opened_by_its_module(url):
    return urllib.request.urlopen(url, None).read()  # expect: PEN401


ANSWER = requests.get("http://localhost/", verify=False)  # expect: PEN401


async def a_client(url):
    async with httpx.AsyncClient(timeout=None) as client:  # expect: PEN401
        return await client.get(url)


def in_a_lambda(urls):
    return list(map(lambda url: requests.get(url), urls))  # expect: PEN401


def late(url):
    import requests as later

    return later.head(url)  # expect: PEN401
