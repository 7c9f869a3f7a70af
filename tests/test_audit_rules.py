"""The audit against the collection in ``tests/audit``: what it must find, where, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import audit_labels

HERE = Path(__file__).parent / "audit"
FILES = sorted(HERE.glob("*/*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_each_file_gets_the_findings_that_are_written_in_it_and_no_other(path: Path) -> None:
    assert audit_labels.found(path) == audit_labels.expected(path)


def test_bad_files_have_something_to_find_in_them() -> None:
    assert all(audit_labels.expected(path) for path in FILES if path.parent.name == "bad")
