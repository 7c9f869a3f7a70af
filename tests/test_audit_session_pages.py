"""The pages of the rules of transactions, deployment and session state: their examples are judged as they say."""

from __future__ import annotations

import re

import pytest

from penstock.audit.audit import audit
from penstock.audit.pages import page
from penstock.audit.rules import deployed, lost, session_state, transactions
from penstock.audit.source import parse

CODES = [rule.code for family in (transactions, lost, session_state) for rule in family.RULES]
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def _codes(example: str, code: str) -> set[str]:
    pooling = {"PEN726": "statement"}.get(code, "transaction" if code.startswith("PEN7") else None)
    return {one.code for one in audit([parse(example, "example.py", "example")], pooling).findings}


@pytest.mark.parametrize("code", CODES)
def test_the_bad_example_of_a_page_is_found_and_the_good_one_is_not(code: str) -> None:
    bad, good = _PYTHON.findall(page(code) or "")
    assert code in _codes(bad, code)
    assert not {one for one in _codes(good, code) if one[:4] == code[:4]}


@pytest.mark.parametrize("code", [rule.code for rule in deployed.RULES])
def test_a_rule_of_several_files_has_a_page_too(code: str) -> None:
    text = page(code) or ""
    assert text.startswith(f"# {code}: ")
    assert len(_PYTHON.findall(text)) == 2
