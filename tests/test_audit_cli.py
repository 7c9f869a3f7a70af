"""`penstock audit` as it is called: what it reads, what it tells, what it leaves out, and how it ends."""

import subprocess
from pathlib import Path

import pytest

from penstock.audit import cache
from penstock.audit.audit import RULES
from support.audited import CLEAN, LEAK, NO_TIMEOUT, audit, codes, found, write

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()  # where the search for settings ends
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(here: Path, text: str) -> None:
    (here / "pyproject.toml").write_text(f"[tool.penstock.audit]\n{text}\n")


def git(here: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main", *arguments]
    subprocess.run(command, cwd=here, check=True, capture_output=True)


def repository(here: Path) -> None:
    (here / ".git").rmdir()
    git(here, "init")
    git(here, "add", ".")
    git(here, "commit", "-m", "as it was")


# ------------------------------------------------------------------------------------------ statuses


def test_the_status_is_0_for_nothing_1_for_findings_and_2_for_a_wrong_question(here: Path) -> None:
    write(here, good=CLEAN, bad=LEAK)
    assert audit("good.py").exit_code == 0
    assert audit("bad.py").exit_code == 1
    assert audit("nowhere.py").exit_code == 2
    assert audit("--select", "PEN999").exit_code == 2
    assert audit("--pooling", "sideways").exit_code == 2


def test_a_file_that_was_named_and_cannot_be_read_is_status_2_and_one_in_a_directory_is_a_note(here: Path) -> None:
    write(here, old='print "Python 2"\n', good=CLEAN)
    named, walked = audit("old.py"), audit()
    assert (named.exit_code, walked.exit_code) == (2, 0)
    for result in (named, walked):
        assert "old.py:1: it does not parse" in result.stderr


def test_hints_are_told_only_if_asked_for_and_never_counted(here: Path) -> None:
    write(here, good=CLEAN.replace("(dsn)) as", "('host=x')) as"))
    assert found("good.py") == []
    result = audit("good.py", "--hints")
    assert result.exit_code == 0
    assert "PEN402 hint" in result.stdout


# ------------------------------------------------------------------------------------------ files


def test_directories_of_tools_environments_and_output_are_not_walked(here: Path) -> None:
    inside = (".hidden", "node_modules/x", "build/lib", "dist", "env/lib", "__pycache__", "app")
    for directory in inside:
        write(here / directory, bad=LEAK)
    (here / "env/pyvenv.cfg").touch()
    assert {path for path, _, _ in codes()} == {"app/bad.py"}


def test_a_package_called_build_is_the_programs_own(here: Path) -> None:
    write(here, build__bad=LEAK)
    (here / "build/__init__.py").touch()
    assert codes() == [("build/bad.py", 5, "PEN101")]


def test_links_that_go_in_circles_end(here: Path) -> None:
    write(here, app__bad=LEAK)
    (here / "app/again").symlink_to(here)
    (here / "app/nowhere.py").symlink_to(here / "missing")
    result = audit("--json")
    assert result.exit_code == 1
    assert "app/nowhere.py:1: it could not be opened" in result.stderr


def test_what_is_excluded_is_left_out_unless_it_is_named_itself(here: Path) -> None:
    write(here, app__bad=LEAK, vendor__x__bad=LEAK)
    settings(here, 'exclude = ["vendor"]')
    assert codes() == [("app/bad.py", 5, "PEN101")]
    assert codes("--exclude", "app/**") == []
    assert codes("vendor/x/bad.py") == [("vendor/x/bad.py", 5, "PEN101")]


def test_standard_input_is_a_file(here: Path) -> None:
    assert [one["line"] for one in found("-", stdin=LEAK.encode())] == [5]
    assert audit("-", "--changed", "HEAD", stdin=b"").exit_code == 2


def test_a_file_that_is_named_alone_is_judged_with_what_it_imports(here: Path) -> None:
    write(here, app__db="import psycopg2\ndef make(dsn):\n    return psycopg2.connect(dsn)\n")
    write(here, app__use="from app.db import make\ndef work():\n    conn = make('')\n    conn.cursor()\n")
    assert codes("app/use.py") == [("app/use.py", 3, "PEN101")]


# ------------------------------------------------------------------------------------------ comments


@pytest.mark.parametrize(
    "text",
    [
        LEAK.replace("(dsn)\n    conn.", "(dsn)  # penstock: ignore[PEN101] a script\n    conn."),
        LEAK.replace("(dsn)\n    conn.", "(dsn)  # noqa # penstock: ignore[PEN4, pen1]\n    conn."),
        LEAK.replace("    conn =", "    # penstock: ignore[PEN101] closed by the system\n    # that is so\n    conn ="),
        LEAK.replace("connect(dsn)", "connect(  # penstock: ignore[PEN101]\n        dsn,\n    )"),
        LEAK.replace("connect(dsn)", "connect(\n        dsn,\n    )  # penstock: ignore[PEN101]"),
    ],
)
def test_a_comment_ignores_what_it_names_in_its_statement(here: Path, text: str) -> None:
    write(here, bad=text)
    result = audit("--select", "PEN1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "1 ignored by comments" in result.stdout


@pytest.mark.parametrize(
    ("comment", "note"),
    [
        ("# penstock: ignore", "says nothing without a code"),
        ("# penstock: ignore[PEN401]", "ignore[PEN401] ignores nothing: it can go"),
        ("# penstock: ignore[PEN999]", "ignore[PEN999]: there is no such rule"),
    ],
)
def test_a_comment_that_ignores_nothing_is_told(here: Path, comment: str, note: str) -> None:
    write(here, bad=LEAK.replace("(dsn)\n    conn.", f"(dsn)  {comment}\n    conn."))
    result = audit()
    assert result.exit_code == 1
    assert f"bad.py:5: {note}" in result.stderr or note in result.stderr


def test_a_comment_for_a_rule_that_was_not_asked_for_is_let_be(here: Path) -> None:
    write(here, bad=LEAK.replace("(dsn)\n    conn.", "(dsn)  # penstock: ignore[PEN401]\n    conn."))
    assert audit("--select", "PEN1").stderr == ""


def test_a_string_that_looks_like_a_comment_is_none(here: Path) -> None:
    write(here, bad=LEAK.replace("select 1", "# penstock: ignore[PEN101]"))
    assert codes() == [("bad.py", 5, "PEN101")]


# ------------------------------------------------------------------------------------------ settings


def test_settings_choose_rules_everywhere_and_by_path(here: Path) -> None:
    write(here, app__bad=LEAK, app__ask=NO_TIMEOUT, tests__bad=LEAK)
    settings(here, 'per-path-ignore = {"tests/**" = ["PEN1"]}')
    assert codes() == [("app/ask.py", 5, "PEN401"), ("app/bad.py", 5, "PEN101")]
    assert codes("--ignore", "PEN4") == [("app/bad.py", 5, "PEN101")]
    assert codes("--select", "PEN4") == [("app/ask.py", 5, "PEN401")]


def test_settings_are_seen_from_their_own_directory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, app__tests__bad=LEAK, app__bad=LEAK)
    settings(here, 'exclude = ["app/tests/**"]')
    monkeypatch.chdir(here / "app")
    assert codes() == [("bad.py", 5, "PEN101")]


def test_every_setting_that_means_nothing_is_told_with_its_line(here: Path) -> None:
    settings(here, 'selct = ["PEN1"]\nselect = ["PEN9"]\npooling = "sideways"\nhints = 1\nexclude = "x"')
    result = audit()
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert [line.split(":")[2] for line in lines] == ["2", "3", "4", "5", "6"]
    assert "selct: is no setting of the audit: there are select," in lines[0]
    assert "PEN9 is no rule and no family of rules" in lines[1]


def test_settings_of_the_audit_alone_are_no_budget(here: Path) -> None:
    from penstock import budget
    from penstock.errors import NoBudget

    settings(here, "hints = true")
    with pytest.raises(NoBudget):
        budget.load()


# ------------------------------------------------------------------------------------------ baseline


def test_what_is_in_the_baseline_stays_known_when_its_line_moves(here: Path) -> None:
    write(here, bad=LEAK)
    assert audit("--baseline", "known.json", "--write-baseline").exit_code == 0
    write(here, bad="# a line more\n\n" + LEAK)
    result = audit("--baseline", "known.json")
    assert result.exit_code == 0
    assert "1 known already" in result.stdout


def test_a_second_one_like_it_is_new(here: Path) -> None:
    write(here, bad=LEAK)
    audit("--baseline", "known.json", "--write-baseline")
    write(here, bad=LEAK + LEAK.replace("report", "another"))
    assert codes("--baseline", "known.json") == [("bad.py", 11, "PEN101")]


def test_what_is_gone_from_the_baseline_is_told(here: Path) -> None:
    write(here, bad=LEAK)
    settings(here, 'baseline = "known.json"')
    audit("--write-baseline")
    write(here, bad=CLEAN)
    assert "1 of the baseline are gone" in audit().stdout


@pytest.mark.parametrize("text", ["", "[]", "{", '{"known": [{"a": 1}]}'])
def test_a_baseline_that_is_none_is_a_wrong_question(here: Path, text: str) -> None:
    (here / "known.json").write_text(text)
    result = audit("--baseline", "known.json")
    assert result.exit_code == 2
    assert "known.json: is no baseline" in result.stderr


# ------------------------------------------------------------------------------------------ changed


def test_only_what_a_change_brought_in_is_told(here: Path) -> None:
    write(here, old=LEAK, good=CLEAN)
    repository(here)
    assert codes("--changed", "HEAD") == []
    write(here, old="\n\n" + LEAK, good=LEAK, new=NO_TIMEOUT)
    assert codes("--changed", "HEAD") == [("good.py", 5, "PEN101"), ("new.py", 5, "PEN401")]


def test_a_change_that_shows_in_another_file_is_told_there(here: Path) -> None:
    write(here, db="def finish(conn):\n    conn.close()\n")
    write(
        here,
        use="import psycopg2\nfrom db import finish\ndef work():\n    conn = psycopg2.connect('')\n    finish(conn)\n",
    )
    repository(here)
    assert codes() == []
    write(here, db="def finish(conn):\n    pass\n")
    assert codes("--changed", "HEAD") == [("use.py", 4, "PEN101")]


def test_a_file_that_was_renamed_is_the_same_file(here: Path) -> None:
    write(here, old=LEAK)
    repository(here)
    git(here, "mv", "old.py", "new.py")
    assert codes("--changed", "HEAD") == []


@pytest.mark.parametrize("revision", ["no-such-thing", "--output=x"])
def test_a_revision_that_git_does_not_know_is_a_wrong_question(here: Path, revision: str) -> None:
    write(here, old=LEAK)
    repository(here)
    result = audit("--changed", revision)
    assert result.exit_code == 2
    assert "--changed: git rev-parse" in result.stderr


# ------------------------------------------------------------------------------------------ cache


def kept(here: Path) -> dict[str, cache.Entry]:
    return cache.load(here / cache.FOLDER)


def test_what_was_found_before_is_told_again_and_the_same(here: Path) -> None:
    write(here, bad=LEAK, ask=NO_TIMEOUT)
    first = found("--hints")
    assert set(kept(here)) == {"bad.py", "ask.py"}
    assert found("--hints") == first == found("--hints", "--no-cache")


def test_a_change_in_a_file_that_another_rests_on_is_seen_through_the_cache(here: Path) -> None:
    write(here, db="from inner import finish\n", inner="def finish(conn):\n    conn.close()\n")
    write(
        here,
        use="import psycopg2\nfrom db import finish\ndef work():\n    conn = psycopg2.connect('')\n    finish(conn)\n",
    )
    assert codes() == []
    write(here, inner="def finish(conn):\n    pass\n")
    assert codes() == [("use.py", 4, "PEN101")]
    (here / "inner.py").unlink()
    assert codes() == codes("--no-cache")
    write(here, inner="def finish(conn):\n    conn.close()\n", other__inner="def finish(conn):\n    pass\n")
    assert codes() == codes("--no-cache")


def test_the_cache_is_used_and_only_what_changed_is_judged_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, bad=LEAK, alone=CLEAN)
    audit()
    judged: list[str] = []
    from penstock.audit import worker

    real = worker.Worker.judge
    monkeypatch.setattr(worker.Worker, "judge", lambda self, task: (judged.extend(task), real(self, task))[1])
    audit()
    assert judged == []
    write(here, bad=LEAK + "\n")
    audit()
    assert judged == ["bad.py"]


def test_another_pooler_is_another_question(here: Path) -> None:
    write(
        here,
        app=CLEAN.replace("select 1", "LISTEN x"),
    )
    audit()
    assert codes("--pooling", "transaction") == codes("--pooling", "transaction", "--no-cache")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"by": 1}', '{"by": "x", "files": []}'])
def test_a_cache_that_is_broken_is_none(here: Path, text: str) -> None:
    write(here, bad=LEAK)
    audit()
    (here / cache.FOLDER / "audit.json").write_text(text)
    assert codes() == [("bad.py", 5, "PEN101")]


def test_several_processes_find_what_one_finds(here: Path) -> None:
    padding = "x = 1\n" * 20_000
    write(here, **{f"app__bad{number}": LEAK + padding for number in range(6)})
    write(here, app__use="from app.bad1 import report\n" + padding)
    alone = codes("--no-cache", "--jobs", "1")
    assert len(alone) == 6
    assert codes("--no-cache", "--jobs", "2") == alone


# ------------------------------------------------------------------------------------------ explain


def test_explain_prints_the_page_of_a_rule(here: Path) -> None:
    for code, rule in RULES.items():
        result = audit("explain", code.lower())
        assert result.exit_code == 0
        assert result.stdout.startswith(f"# {code}"), f"{code} ({rule.title}) has no page"
    assert all(code in audit("explain").stdout for code in RULES)
    assert audit("explain", "PEN999").exit_code == 2


@pytest.mark.parametrize("table", ["audit = 3", "audit = []", 'audit = "PEN1"', 'audit = [{select = ["PEN1"]}]'])
def test_settings_that_are_no_table_are_said_to_be_none(here: Path, table: str) -> None:
    write(here, bad=LEAK)
    (here / "pyproject.toml").write_text(f"[tool.penstock]\n{table}\n# penstock.audit\n")
    done = audit()
    assert done.exit_code == 2
    assert "is a table" in done.stderr


def test_settings_count_however_the_table_is_written(here: Path) -> None:
    write(here, bad=LEAK)
    (here / "pyproject.toml").write_text('[tool.penstock]\naudit = {ignore = ["PEN1"]}\n')
    assert audit().exit_code == 0
