"""Each rule has a page, and its examples are true: the bad one is found, the good one is not."""

from __future__ import annotations

import re

import pytest

from penstock.audit.audit import audit
from penstock.audit.pages import page
from penstock.audit.rules import blocking, creation, holding, leaks, pools, timeouts
from penstock.audit.source import Unread, parse

CODES = [rule.code for family in (leaks, creation, pools, timeouts, holding, blocking) for rule in family.RULES]
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("code", CODES)
def test_each_rule_has_a_page_that_parses(code: str) -> None:
    text = page(code)
    assert text is not None
    assert text.startswith(f"# {code}: ")
    assert f"ignore[{code}]" in text
    for example in _PYTHON.findall(text):
        assert not isinstance(parse(example, "example.py", "example"), Unread), example


@pytest.mark.parametrize("code", ["PEN301", "PEN401"])
def test_an_example_without_names_from_elsewhere_is_judged_as_its_page_says(code: str) -> None:
    header = (
        "import pymysql, requests, urllib.request, httpx\n"
        "from dbutils.pooled_db import PooledDB\nfrom sqlalchemy import create_engine\n"
    )
    bad, good = _PYTHON.findall(page(code) or "")
    assert {one.code for one in audit([parse(header + bad, "bad.py", "bad")]).findings} == {code}
    assert not audit([parse(header + good, "good.py", "good")]).findings
