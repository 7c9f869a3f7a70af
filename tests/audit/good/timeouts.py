"""Requests that end, and what only looks like one."""

import urllib.request

import aiohttp
import httpx
import requests
from requests.adapters import HTTPAdapter

OPTIONS = {"timeout": 5}


def bounded(url):
    requests.get(url, timeout=5)
    requests.post(url, json={}, timeout=(3, 10))
    requests.get(url, **OPTIONS)
    urllib.request.urlopen(url, timeout=5)
    urllib.request.urlopen(url, None, 5)


def by_default(url):
    httpx.get(url)
    with httpx.Client() as client:
        return client.get(url)


async def aiohttps(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


class Api:
    def __init__(self):
        self.requests = {}

    def find(self, key):
        return self.requests.get(key)


def a_mapping(requests):
    return requests.get("a")


class Bounded(HTTPAdapter):
    def send(self, request, **options):
        options.setdefault("timeout", 5)
        return super().send(request, **options)


def cached(session: dict, key):
    return session.get(key)


def handed_on(url, **options):
    options.setdefault("timeout", 10)
    return requests.get(url, **options)
