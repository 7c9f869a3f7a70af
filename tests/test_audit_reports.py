"""The forms in which findings are told: each as the program that reads it wants it, whatever stands in the code."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from penstock.audit.audit import RULES
from support import sarif
from support.audited import CLEAN, LEAK, NO_TIMEOUT, audit, found, write

pytestmark = pytest.mark.usefixtures("here")

STRANGE = 'import requests\n\n\ndef ask():\n\tx = "é\u200b]]>&<"; return requests.get("http://127.0.0.1/%0A,:")\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    return tmp_path


def report(form: str, *arguments: str) -> str:
    return audit("--format", form, *arguments).stdout


def log(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report("sarif", *arguments))
    jsonschema.Draft7Validator(sarif.LOG, format_checker=jsonschema.FormatChecker()).validate(found)
    return found


def fingerprints(*arguments: str) -> list[str]:
    return [one["partialFingerprints"]["penstock/v1"] for one in log(*arguments)["runs"][0]["results"]]


# ------------------------------------------------------------------------------------------ text


def test_text_shows_the_line_with_what_is_meant_underlined_and_says_what_to_do_first(here: Path) -> None:
    write(here, bad=LEAK, ask=NO_TIMEOUT)
    lines = audit().stdout.splitlines()
    assert lines[:4] == [
        "ask.py",
        "  5:12  PEN401 medium  requests.get() waits for an answer for ever: give it timeout= some seconds  [fixable]",
        '    5 |     return requests.get("http://127.0.0.1/")',
        "      |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
    ]
    assert lines[-3].startswith("2 findings (2 medium")
    assert lines[-2].startswith("Begin with bad.py:5 (PEN101): each time it happens a connection is gone")
    assert lines[-1] == "`penstock audit explain PEN101` says more."


def test_the_caret_stands_right_after_tabs_and_wide_letters_and_no_letter_moves_the_cursor(here: Path) -> None:
    write(here, strange=STRANGE)
    source, caret = audit().stdout.splitlines()[2:4]
    assert source[caret.index("^") :].startswith("requests.get(")
    assert "\t" not in source
    assert "\u200b" not in source


def test_where_nothing_is_found_the_text_says_how_much_was_read(here: Path) -> None:
    write(here, good=CLEAN)
    assert audit().stdout.startswith("Nothing found in 1 file, 8 lines")


def test_no_colour_is_written_where_there_is_no_terminal(here: Path) -> None:
    write(here, bad=LEAK)
    assert "\x1b" not in audit().stdout


# ------------------------------------------------------------------------------------------ json


def test_json_is_a_list_of_objects_with_the_keys_that_were_promised(here: Path) -> None:
    write(here, bad=LEAK.replace("connect(dsn)", "connect(\n        dsn\n    )"))
    (one,) = found()
    assert one["message"]
    del one["message"]
    assert one == {
        "path": "bad.py",
        "line": 5,
        "end_line": 7,
        "code": "PEN101",
        "kind": "leak",
        "severity": "medium",
        "confidence": "high",
        "fixable": one["fixable"],
    }
    assert isinstance(one["fixable"], bool)


def test_json_of_nothing_is_an_empty_list(here: Path) -> None:
    assert json.loads(audit("--json").stdout) == []


# ------------------------------------------------------------------------------------------ sarif


def test_sarif_is_valid_and_says_where_and_what(here: Path) -> None:
    write(here, **{"with space": LEAK}, old="print 1\n", strange=STRANGE)
    (run,) = log()["runs"]
    first = run["results"][0]
    assert run["tool"]["driver"]["rules"][first["ruleIndex"]]["id"] == first["ruleId"] == "PEN401"
    place = run["results"][1]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "with%20space.py", "uriBaseId": "ROOT"}
    assert place["region"] == {"startLine": 5, "startColumn": 12, "endLine": 5, "endColumn": 33}
    (note,) = run["invocations"][0]["toolExecutionNotifications"]
    assert note["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "old.py"
    assert run["invocations"][0]["executionSuccessful"]


def test_sarif_has_every_rule_with_its_help(here: Path) -> None:
    rules = log()["runs"][0]["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == sorted(RULES)
    assert all(rule["help"]["markdown"] for rule in rules)


def test_a_fingerprint_stays_when_lines_move_and_differs_from_every_other(here: Path) -> None:
    write(here, bad=LEAK + LEAK.replace("report", "another"), ask=NO_TIMEOUT)
    before = fingerprints()
    assert len(set(before)) == len(before) == 3
    write(here, bad="\n# moved\n" + LEAK + "\n" + LEAK.replace("report", "another"))
    assert fingerprints() == before


# ------------------------------------------------------------------------------------------ github and junit


def test_github_gets_a_command_a_finding_with_nothing_in_it_that_ends_it(here: Path) -> None:
    write(here, **{"a,b:c": LEAK}, strange=STRANGE)
    lines = report("github").splitlines()
    assert lines[0].startswith(
        "::warning file=a%2Cb%3Ac.py,line=5,endLine=5,col=12,endColumn=33,title=penstock audit PEN101::"
    )
    assert len(lines) == 2


def test_github_is_told_paths_as_the_repository_has_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, app__bad=LEAK)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(here))
    monkeypatch.chdir(here / "app")
    assert report("github").startswith("::warning file=app/bad.py,line=5")


def test_junit_fails_a_case_for_each_finding(here: Path) -> None:
    write(here, bad=LEAK.replace("(dsn)\n    conn.", "(dsn)  # \x01\n    conn."), strange=STRANGE)
    suite = ElementTree.fromstring(report("junit")).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    failures = [one.find("failure") for one in suite.iter("testcase")]
    assert all(failure is not None and failure.get("message") for failure in failures)


def test_junit_of_nothing_is_a_case_that_passes(here: Path) -> None:
    suite = ElementTree.fromstring(report("junit")).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), len(suite)) == ("1", "0", 1)


def test_a_report_is_written_to_a_file_whatever_its_form(here: Path) -> None:
    write(here, bad=LEAK)
    for form in ("text", "json", "sarif", "github", "junit"):
        written = report(form)
        assert audit("--format", form, "--output", "report").stdout == ""
        assert (here / "report").read_text() == written
    assert audit("--output", "nowhere/report").exit_code == 2
