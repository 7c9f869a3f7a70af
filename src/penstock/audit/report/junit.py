"""JUnit's XML, which every CI server shows: a test case a finding, and one that passes where there is none."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from ..check import Report

# Characters that no XML may have, however they are written.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Report) -> str:
    """The findings as a test suite."""
    failures = str(len(report.findings))
    top = ElementTree.Element("testsuites", name="penstock audit", failures=failures, errors="0")
    suite = ElementTree.SubElement(top, "testsuite", name="penstock audit", failures=failures, errors="0", skipped="0")
    for finding in report.findings:
        name = f"{finding.code} line {finding.line}"
        place = {"classname": _clean(finding.path), "file": _clean(finding.path), "line": str(finding.line)}
        case = ElementTree.SubElement(suite, "testcase", place, name=name, time="0")
        message = _clean(f"{finding.path}:{finding.line}: {finding.message}")
        ElementTree.SubElement(case, "failure", type=finding.severity.value, message=message).text = _clean(
            report.texts.line(finding.path, finding.line).strip()
        )
    if not report.findings:
        ElementTree.SubElement(suite, "testcase", name="penstock audit", classname="penstock", time="0")
    for one in (top, suite):
        one.set("tests", str(len(suite)))
    if report.notes:
        notes = ElementTree.SubElement(suite, "system-out")
        notes.text = _clean("".join(f"{note.path}:{note.line}: {note.why}\n" for note in report.notes))
    ElementTree.indent(top, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(top, encoding="unicode")


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", text)
