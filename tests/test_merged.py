"""What was merged is whole: no file still holds both sides of it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"^(?:<{7} |>{7} |\|{7} )", re.MULTILINE)


def test_no_file_holds_a_merges_marks() -> None:
    folders = ("src", "docs", "tests", "bench", "examples", "scripts")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files = [path for path in found if path.suffix in (".py", ".md", ".toml")]
    files += ROOT.glob("*.md")
    assert len(files) > 100
    assert [str(path) for path in files if MARK.search(path.read_text())] == []


def test_a_merges_marks_are_known() -> None:
    assert MARK.search("a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> other\n")
