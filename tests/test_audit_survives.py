"""The audit reads whatever it is given, and ends: what it cannot read it says, what is too tangled it leaves alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench.mutants import files, mutants

from penstock.audit.files import Found
from penstock.audit.finding import Finding
from penstock.audit.run import run
from penstock.audit.source import LARGEST, Unread
from support.audited import LEAK, NO_TIMEOUT, audit, write

SEEDS = sorted((Path(__file__).parent / "audit").glob("*/*.py"))


def judged(data: bytes) -> tuple[list[Finding], list[Unread]]:
    entry = run([Found(Path("x.py"), "x.py", data=data)], jobs=1).entries["x.py"]
    return entry.findings, entry.unread


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'print "x"\n', "it does not parse as this Python's: Missing parentheses"),
        (b"x = 1\0", "null bytes"),
        (bytes(range(256)), "no text in the encoding"),
        (b"# coding: nope\nx = 1\n", "no text in the encoding"),
        (b"# coding: undefined\nx = 1\n", "no text in the encoding"),
        (b"# coding: zlib\nx = 1\n", "no text in the encoding"),
        ("x = 1\n".encode("utf-16"), "no text in the encoding"),
        (b"x = '" + b"x" * LARGEST + b"'\n", "made by a program"),
        (b"x = " + b"(" * 10_000, "too many nested parentheses"),
        (b"x = " + b"-" * 100_000 + b"1\n", "it does not parse"),
        (b"x = a" + b".b" * 100_000, "it does not parse"),
        (b"x = " + b"9" * 100_000, "it does not parse"),
    ],
)
def test_what_cannot_be_read_is_a_note_of_one_line(data: bytes, why: str) -> None:
    findings, (note,) = judged(data)
    assert findings == []
    assert why in note.why
    assert "\n" not in note.why
    assert len(note.why) < 200


def deep(head: str, levels: int) -> bytes:
    lines = ["import psycopg2", "def work(a):"]
    lines += [" " * level + head for level in range(1, levels)]
    return "\n".join([*lines, " " * levels + "pass\n"]).encode()


@pytest.mark.parametrize(
    "data",
    [
        deep("for x in psycopg2.connect(''):", 20),
        deep("while g() and psycopg2.connect(''):", 20),
        deep("if psycopg2.connect('') and g():", 95),
        deep("def f():", 95),
        b"import psycopg2\ndef f():\n"
        + b"".join(b" try:\n  c%d = psycopg2.connect('')\n except E:\n  h()\n" % number for number in range(300)),
        b"import psycopg2\ndef f():\n" + b"".join(b" c%d = psycopg2.connect('')\n" % number for number in range(800)),
        b"import psycopg2\ndef f(a):\n if a: pass\n" + b" elif a: g()\n" * 3000,
        b"import psycopg2\nx = psycopg2.connect('')\n"
        + b"x = x or y\ny = y or x\n" * 3000
        + b"def f():\n x.cursor()\n",
        b"import psycopg2\ndef f():\n psycopg2.connect('')" + b".b()" * 2000,
    ],
    ids=["for", "while", "if", "def", "try", "connections", "elif", "names", "calls"],
)
@pytest.mark.alone
def test_code_with_more_ways_through_it_than_can_be_followed_takes_no_time(data: bytes) -> None:
    started = os.times().user
    judged(data)
    assert os.times().user - started < 3  # a second, and what a busy machine adds


def test_a_chain_of_elif_as_programs_write_them_is_followed() -> None:
    tests = b"".join(b"    elif a == %d: g()\n" % number for number in range(500))
    findings, unread = judged(b"import psycopg2\ndef f(a):\n    conn = psycopg2.connect('')\n    if a: g()\n" + tests)
    assert unread == []
    assert [finding.code for finding in findings if finding.code.startswith("PEN1")] == ["PEN101"]


def test_lines_are_counted_as_python_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form feed, and what else some take for a line's end, is none; a lone carriage return is one."""
    monkeypatch.chdir(tmp_path)
    text = "# \x0c \x1c \u2028\r" + NO_TIMEOUT.replace("\n", "\r")
    Path("bad.py").write_bytes(text.encode())
    lines = audit("bad.py").stdout.splitlines()
    assert lines[1].startswith("  6:12")
    assert lines[2] == '    6 |     return requests.get("http://127.0.0.1/")'


def test_a_pipe_that_is_called_like_a_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, bad=LEAK)
    os.mkfifo("pipe.py")
    result = audit("--no-cache", ".")
    assert result.exit_code == 1
    assert "pipe.py:1: it is no plain file" in result.stderr


def test_one_mistake_of_the_audits_own_is_one_files_note(monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.audit import worker

    def broken(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(worker, "judge", broken)
    findings, (note,) = judged(b"x = 1\n")
    assert findings == []
    assert "a mistake of Penstock's: KeyError in broken, line" in note.why


# In an interpreter of its own: only one without threads has its processes forked, with what is replaced in it.
DIES = """
import os
import subprocess
import sys
from pathlib import Path
from penstock.audit import run as running, worker
from penstock.audit.files import Found
from support.audited import LEAK

def dies(self, shown, project, real=worker.Worker._judge):
    return os._exit(9) if shown == "3.py" else real(self, shown, project)

worker.Worker._judge = dies
running._ALONE, running._CHUNK = 0, 300
found = [Found(Path(f"{n}.py"), f"{n}.py", data=LEAK.encode()) for n in range(12)]
entries = running.run(found, jobs=2).entries
assert [entry.unread[0].why for entry in entries.values() if entry.unread] == ["Python itself ended over it"]
assert [shown for shown, entry in entries.items() if not entry.findings] == ["3.py"]
"""


def test_a_process_that_dies_over_a_file_costs_that_file_alone() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", DIES], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_mutated_files_never_make_it_fail() -> None:
    """`python -m bench audit_fuzz` takes more of them, and their time."""
    for data in mutants(300, files(SEEDS), seed=1):
        _, unread = judged(data)
        assert not any("mistake of Penstock's" in note.why for note in unread), data
