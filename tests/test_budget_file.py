"""A wrong budget file is one clear error that names file, line and key; a right one means what it says."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import BudgetError
from penstock.budget import conninfo, load, read
from penstock.budget.lines import key_lines

EXAMPLE = Path(__file__).parent.parent / "examples" / "penstock.toml"

GOOD = dedent(
    """\
    [databases.main]
    url = "postgresql://app:hush@db/shop"
    max_connections = 100

    [services.web]
    database = "main"
    replicas = 10
    """
)


def with_lines(*lines: str) -> str:
    """A right file with *lines* after it: from line 8 on."""
    return GOOD + "\n".join(lines) + "\n"


def replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


# What is wrong, the file, the line and key that are named, and words of the message.
WRONG: dict[str, tuple[str, int, str, str]] = {
    "unknown table": (with_lines("[service.web]"), 8, "service", "unknown key: did you mean services?"),
    "unknown key": (with_lines("replcias = 3"), 8, "services.web.replcias", "unknown key: did you mean replicas?"),
    "unknown key, like nothing": (with_lines("zzz = 3"), 8, "services.web.zzz", "unknown key: there are database,"),
    "unknown key in a side pool": (
        with_lines("side_pools.celery = {processes = 1, sice = 2, size = 2}"),
        8,
        "services.web.side_pools.celery.sice",
        "did you mean size?",
    ),
    "text for a number": (replaced("10\n", '"ten"\n'), 7, "services.web.replicas", 'a whole number, not "ten"'),
    "a number in quotes": (replaced("10\n", '"10"\n'), 7, "services.web.replicas", "leave out the quotes"),
    "truth for a number": (replaced("10\n", "true\n"), 7, "services.web.replicas", "a whole number, not true"),
    "a fraction for a whole number": (replaced("10\n", "10.0\n"), 7, "services.web.replicas", "not 10.0"),
    "infinity for a whole number": (replaced("10\n", "inf\n"), 7, "services.web.replicas", "not inf"),
    "a date for a number": (replaced("10\n", "1979-05-27\n"), 7, "services.web.replicas", "not 1979-05-27"),
    "an array for a number": (replaced("10\n", "[10]\n"), 7, "services.web.replicas", "not an array"),
    "a table for a number": (replaced("10\n", "{max = 1}\n"), 7, "services.web.replicas", "not a table"),
    "negative": (replaced("100\n", "-100\n"), 3, "databases.main.max_connections", "at least 1, not -100"),
    "negative headroom": (
        replaced("100\n", "100\nheadroom = -1\n"),
        4,
        "databases.main.headroom",
        "at least 0, not -1",
    ),
    "zero replicas": (replaced("10\n", "0\n"), 7, "services.web.replicas", "at least 1, not 0"),
    "more than any server takes": (replaced("100\n", "10_000_000\n"), 3, "databases.main.max_connections", "at most"),
    "a slip of the finger": (replaced("10\n", "10000000\n"), 7, "services.web.replicas", "at most 1000000, not"),
    "a number too long": (replaced("10\n", "1" * 5000 + "\n"), 0, "", "not valid TOML: a number or a nesting too"),
    "brackets without end": (replaced("10\n", "[" * 9000 + "\n"), 0, "", "not valid TOML: a number or a nesting too"),
    "surge as a word": (with_lines('surge = "some"'), 8, "services.web.surge", '"25%", not "some"'),
    "surge as a fraction": (with_lines("surge = 0.25"), 8, "services.web.surge", '"25%", not 0.25'),
    "surge as a broken percentage": (with_lines('surge = "2.5%"'), 8, "services.web.surge", 'not "2.5%"'),
    "negative surge": (with_lines("surge = -1"), 8, "services.web.surge", "not -1"),
    "NaN weight": (with_lines("weight = nan"), 8, "services.web.weight", "a number from 0.001 to 1000, not nan"),
    "infinite weight": (with_lines("weight = inf"), 8, "services.web.weight", "not inf"),
    "zero weight": (with_lines("weight = 0"), 8, "services.web.weight", "not 0"),
    "truth for a weight": (with_lines("weight = true"), 8, "services.web.weight", "not true"),
    "a number for truth": (replaced("100\n", "100\nfleet = 1\n"), 4, "databases.main.fleet", "true or false, not 1"),
    "no database": (replaced('database = "main"\n', ""), 5, "services.web.database", "is missing"),
    "no replicas": (replaced("replicas = 10\n", ""), 5, "services.web.replicas", "is missing: a service must have it"),
    "an unknown database": (replaced('"main"', '"mian"'), 6, "services.web.database", "did you mean main?"),
    "a database that is a number": (replaced('"main"', "1"), 6, "services.web.database", "a name in quotes, not 1"),
    "an unknown pooler": (with_lines('through = "edge"'), 8, "services.web.through", "[poolers.edge]: there are none"),
    "a pooler to another database": (
        with_lines('through = "edge"', "[databases.b]", '[poolers.edge]\ndatabase = "b"\npool_size = 1'),
        8,
        "services.web.through",
        "leads to database b, and `database` is main",
    ),
    "a pooler without pool_size": (
        with_lines("[poolers.edge]", 'database = "main"'),
        8,
        "poolers.edge.pool_size",
        "is missing: a pooler must have it",
    ),
    "a consumer of nothing": (
        with_lines("[consumers.bi]", 'database = "x"', "connections = 1"),
        9,
        "consumers.bi.database",
        "there is main",
    ),
    "max below min": (with_lines("min = 4", "max = 2"), 9, "services.web.max", "max is 2, and min is 4"),
    "a name too long": (
        with_lines("[services.a-very-long-name-indeed]"),
        8,
        "services.a-very-long-name-indeed",
        "1 to 16 of a-z, 0-9, - and _, and begin with a letter or digit, not one of 23",
    ),
    "a name in capitals": (with_lines("[services.Web]"), 8, "services.Web", 'not "Web"'),
    "no name": (with_lines('[services.""]'), 8, 'services.""', 'not ""'),
    "a value where a table must be": (
        with_lines("[services]", "web2 = 3"),
        9,
        "services.web2",
        "must be a table, not 3",
    ),
    "a table where tables must be": (
        with_lines("[consumers]", "connections = 5"),
        9,
        "consumers.connections",
        "a table",
    ),
    "a number for all tables": ("databases = 3\n", 1, "databases", "must be tables such as [databases.<name>], not 3"),
    "an array of tables": (with_lines("[[poolers]]"), 8, "poolers", "not an array"),
    "a broken line": (with_lines("replicas ="), 8, "", "not valid TOML: Invalid value"),
    "an end too early": (with_lines('through = """edge'), 8, "", "not valid TOML"),
    "a key twice": (with_lines("replicas = 3"), 8, "", "stands here for the second time"),
    "a table twice": (with_lines("[services.web]"), 8, "", "stands here for the second time"),
    "an empty file": ("", 0, "", "declares no database"),
    "only comments": ("# to do\n", 0, "", "declares no database"),
    "a url that is none": (replaced("postgresql://app:hush@db/shop", "hush"), 2, "databases.main.url", "must be a URL"),
    "a url that is a number": (replaced('"postgresql://app:hush@db/shop"', "5"), 2, "databases.main.url", "a URL such"),
    "env: without a name": (replaced("postgresql://app:hush@db/shop", "env:"), 2, "databases.main.url", '"env:NAME"'),
    "a url as a database": (
        replaced('database = "main"', 'database = "postgresql://app:hush@db/shop"'),
        6,
        "services.web.database",
        "not shown",
    ),
    "a url as a number": (replaced("10\n", '"postgresql://a:hush@b/c"\n'), 7, "services.web.replicas", "not shown"),
    "an overlay of an unknown service": (
        with_lines("[environments.staging.services.wbe]", "replicas = 2"),
        8,
        "environments.staging.services.wbe",
        "a service that there is not: did you mean web?",
    ),
    "an overlay of an unknown side pool": (
        with_lines("[environments.staging.services.web.side_pools.x]", "size = 2"),
        8,
        "environments.staging.services.web.side_pools.x",
        "a side pool that there is not: there are none",
    ),
    "an unknown key in an overlay": (
        with_lines("[environments.staging.services.web]", "replcias = 2"),
        9,
        "environments.staging.services.web.replcias",
        "did you mean replicas?",
    ),
    "an overlay without its kind": (
        with_lines("[environments.staging]", "replicas = 2"),
        9,
        "environments.staging.replicas",
        "unknown key: there are databases,",
    ),
    "an environment that is no table": (with_lines("[environments]", "a = 1"), 9, "environments.a", "a table, not 1"),
    "environments that are no tables": ("environments = 1\n", 1, "environments", "not 1"),
    "a wrong value in an overlay": (
        with_lines("[environments.staging.services.web]", "replicas = 0"),
        9,
        "environments.staging.services.web.replicas",
        "at least 1, not 0",
    ),
    "an overlay that breaks what the base has": (
        with_lines("max = 4", "[environments.staging.services.web]", "", "min = 5"),
        11,
        "environments.staging.services.web.min",
        "max is 4, and min is 5",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_one_clear_error(what: str) -> None:
    text, line, key, words = WRONG[what]
    with pytest.raises(BudgetError) as caught:
        read(text)
    problem = caught.value.problems[0]
    assert words in problem.what
    assert (problem.line, problem.key) == (line, key)
    place = f"penstock.toml:{line}: " if line else "penstock.toml: "
    assert str(caught.value).splitlines()[0] == place + (f"{key}: " if key else "") + problem.what
    assert "hush" not in str(caught.value) + repr(caught.value)


def test_each_wrong_thing_is_told_once_and_nothing_that_follows_from_it() -> None:
    text = replaced("10\n", "0\n").replace("100\n", '"x"\n') + "weight = nan\n[environments.a]\n[environments.b]\n"
    with pytest.raises(BudgetError) as caught:
        read(text)
    assert [problem.line for problem in caught.value.problems] == [3, 7, 8]


@pytest.mark.parametrize("what", [name for name in WRONG if WRONG[name][2]])
def test_lines_and_keys_are_true_in_pyproject_too(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, line, key, _ = WRONG[what]
    text = "[tool.penstock]\n" + re.sub(r"^(\[+)", r"\1tool.penstock.", text, flags=re.MULTILINE)
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BudgetError) as caught:
        load(environ={})
    problem = caught.value.problems[0]
    assert (problem.path, problem.line, problem.key) == ("pyproject.toml", line + 1, f"tool.penstock.{key}")


# ---------------------------------------------------------------------------------------------- which file


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with directories above it that are ours."""
    monkeypatch.delenv("PENSTOCK_ENV", raising=False)
    monkeypatch.delenv("PENSTOCK_TOML", raising=False)
    below = tmp_path / "repo" / "service"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    return below


def test_the_nearest_file_upwards_is_read(here: Path) -> None:
    (here.parent / "penstock.toml").write_text(GOOD)
    assert load(environ={}).path == str(here.parent / "penstock.toml")
    (here / "pyproject.toml").write_text("[project]\nname = 'penstock-user'\n")  # declares none: passed over
    assert load(environ={}).path == str(here.parent / "penstock.toml")
    (here / "penstock.toml").write_text(GOOD.replace("10", "3"))
    assert (load(environ={}).path, load(environ={}).services["web"].replicas) == ("penstock.toml", 3)


def test_the_variable_goes_before_the_nearest_file(here: Path) -> None:
    (here / "penstock.toml").write_text(GOOD)
    (here / "other.toml").write_text(GOOD.replace("10", "3"))
    assert load(environ={"PENSTOCK_TOML": "other.toml"}).services["web"].replicas == 3


def test_a_file_given_goes_before_the_variable(here: Path) -> None:
    (here / "mine.toml").write_text(GOOD)
    assert load("mine.toml", environ={"PENSTOCK_TOML": "no-such.toml"}).path == "mine.toml"


def failing(**arguments: Any) -> str:
    with pytest.raises(BudgetError) as caught:
        load(**({"environ": {}} | arguments))
    return str(caught.value)


def test_no_file_at_all_is_said(here: Path) -> None:
    assert failing() == (
        f"{here}: no penstock.toml, and no pyproject.toml with [tool.penstock], here or above; PENSTOCK_TOML is not set"
    )


def test_a_file_that_is_not_there_is_said(here: Path) -> None:
    assert failing(environ={"PENSTOCK_TOML": "gone.toml"}) == "gone.toml: cannot be read: No such file or directory"


def test_a_directory_is_said(here: Path) -> None:
    (here / "penstock.toml").mkdir()
    assert failing() == "penstock.toml: cannot be read: Is a directory"


def test_a_file_that_may_not_be_read_is_said(here: Path) -> None:
    for directory in (here, here.parent, here.parent.parent):
        directory.chmod(0o755)
    (here / "penstock.toml").write_text(GOOD)
    (here / "penstock.toml").chmod(0o000)
    # As another user, because nothing is forbidden to root. What the directories above forbid is met the same way.
    become = "os.setuid(65534)" if os.getuid() == 0 else "None"
    code = f"import os\nfrom penstock.budget import load\n{become}\nload('penstock.toml', environ={{}})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert told.stderr.splitlines()[-1] == (
        "penstock.errors.BudgetError: penstock.toml: cannot be read: Permission denied"
    )


def test_bytes_that_are_no_utf_8_are_said_with_their_line(here: Path) -> None:
    (here / "penstock.toml").write_bytes(GOOD.encode() + b"# caf\xe9\n")
    assert failing() == "penstock.toml:8: not UTF-8, which TOML must be: byte 0xe9"


def test_two_files_in_one_directory_are_refused(here: Path) -> None:
    (here / "penstock.toml").write_text(GOOD)
    (here / "pyproject.toml").write_text("[tool.penstock.databases.main]\n")
    assert failing() == (
        f"{here / 'pyproject.toml'}: declares a budget under [tool.penstock], and so does {here / 'penstock.toml'}: "
        "keep one of them"
    )


def test_settings_of_the_audit_stand_beside_a_budget_and_declare_none(here: Path) -> None:
    audit = "[tool.penstock.audit]\nhints = true\n"
    (here / "pyproject.toml").write_text(audit)
    (here / "penstock.toml").write_text(GOOD)
    assert load(environ={}).path == "penstock.toml"
    (here / "penstock.toml").unlink()
    (here / "pyproject.toml").write_text(audit + "[tool.penstock.databases.main]\nmax_connections = 9\n")
    assert load(environ={}).databases["main"].max_connections == 9


def test_a_broken_pyproject_that_may_declare_one_is_not_passed_over(here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.penstock\n")
    assert failing().startswith("pyproject.toml:1: not valid TOML")


def test_a_pyproject_without_the_table_is_said_when_it_is_named(here: Path) -> None:
    (here / "pyproject.toml").write_text("[project]\n")
    assert failing(path="pyproject.toml") == "pyproject.toml: there is no [tool.penstock]"


def test_a_byte_order_mark_and_foreign_line_ends_change_no_line(here: Path) -> None:
    (here / "penstock.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("10\n", "0\n").replace("\n", "\r\n").encode())
    assert failing() == "penstock.toml:7: services.web.replicas: must be at least 1, not 0"


# ---------------------------------------------------------------------------------------------- environments


STAGING = with_lines("[environments.staging.services.web]", "replicas = 2", "[environments.staging.databases.main]")


def test_an_overlay_changes_what_it_names_and_nothing_else() -> None:
    base, staging = read(STAGING), read(STAGING, environment="staging")
    assert (base.services["web"].replicas, staging.services["web"].replicas) == (10, 2)
    assert staging.databases == base.databases
    assert (base.line("services", "web", "replicas"), staging.line("services", "web", "replicas")) == (7, 9)


def test_an_overlay_is_chosen_by_the_variable(here: Path) -> None:
    (here / "penstock.toml").write_text(STAGING)
    assert load(environ={}).environment is None
    assert load(environ={"PENSTOCK_ENV": ""}).environment is None
    assert load(environ={"PENSTOCK_ENV": "staging"}).services["web"].replicas == 2
    assert "did you mean staging?" in failing(environ={"PENSTOCK_ENV": "stagin"})
    assert "there are none" in failing(environment="prod", path=written(here, GOOD))


def written(here: Path, text: str) -> Path:
    path = here / "other.toml"
    path.write_text(text)
    return path


# ---------------------------------------------------------------------------------------------- where it is


def test_the_url_is_the_files_or_the_variables() -> None:
    assert conninfo(read(GOOD), "databases", "main", environ={}) == "postgresql://app:hush@db/shop"
    by_name = read(replaced("postgresql://app:hush@db/shop", "env:SHOP"))
    assert conninfo(by_name, "databases", "main", environ={"SHOP": "host=db"}) == "host=db"
    for unset in ({}, {"SHOP": ""}):
        with pytest.raises(BudgetError) as caught:
            conninfo(by_name, "databases", "main", environ=unset)
        assert str(caught.value) == "penstock.toml:2: databases.main.url: the variable SHOP is not set, or empty"


def test_a_budget_never_shows_a_password() -> None:
    pooled = with_lines(
        "[poolers.edge]", 'url = "postgresql://app:hush@edge/shop"', 'database = "main"', "pool_size = 1"
    )
    assert "hush" not in repr(read(pooled))


# ---------------------------------------------------------------------------------------------- lines


def keys_of(tree: dict[str, Any], within: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in tree.items():
        found.append((*within, key))
        if isinstance(value, dict):
            found += keys_of(value, (*within, key))
    return found


def test_the_line_of_a_key_is_found_however_it_is_written() -> None:
    text = dedent(
        '''\
        top = 1 # [no.table]
        """text" = "a # b = c"
        a.b = """
        [not.a.table]
        x = 1
        """
        c = [ # one
          1, [2, "]"],
          {d = 4}]
        e = {f = 1, "g h" = {i = '#'}, j.k = 3}
        [ x . "y.z" ] # header
        w = \'\'\'
        it''s = 3
        \'\'\'
        when = 1979-05-27 07:32:00
        [x]
        v = -1.5e3'''
    ).replace('"""text"', '"text"')
    lines = key_lines(text)
    expected = {
        ("top",): 1,
        ("text",): 2,
        ("a", "b"): 3,
        ("c",): 7,
        ("c", "d"): 9,
        ("e", "g h", "i"): 10,
        ("e", "j", "k"): 10,
        ("x", "y.z"): 11,
        ("x", "y.z", "w"): 12,
        ("x", "y.z", "when"): 15,
        ("x",): 16,
        ("x", "v"): 17,
    }
    assert {key: lines[key] for key in expected} == expected
    assert ("not", "a", "table") not in lines


names = st.text("ab-\".#=[]{}' é\\", min_size=0, max_size=4)
values = st.one_of(
    st.integers(-5, 5).map(str),
    st.text("ab#[]{}=,'\" ", max_size=6).map(lambda text: '"' + text.replace('"', '\\"') + '"'),
    st.text('ab#[]{}=,"\n ', max_size=6).map(lambda text: "'''\n" + text + "'''"),
    st.just("[1, # x\n 2,\n]"),
    st.just("1979-05-27 07:32:00"),
)


@given(st.lists(st.tuples(names, st.integers(0, 3), values), max_size=8))
def test_every_key_of_any_text_is_on_its_line(pairs: list[tuple[str, int, str]]) -> None:
    text, expected = "", {}
    for number, (name, blank, value) in enumerate(pairs):
        quoted = '"' + f"{name}{number}".replace("\\", "\\\\").replace('"', '\\"') + '"'
        text += "\n" * blank + f"[{quoted}.t]\n" + f'  {quoted}."x" = {value} # [c]\n'
        line = text.count("\n") - value.count("\n")
        expected[(f"{name}{number}", "t")] = line - 1
        expected[(f"{name}{number}", "t", f"{name}{number}", "x")] = line
    lines = key_lines(text)
    assert {key: lines[key] for key in expected} == expected


# ---------------------------------------------------------------------------------------------- right files


def test_the_example_is_right_in_each_environment() -> None:
    base, staging = load(EXAMPLE, environ={}), load(EXAMPLE, "staging", environ={})
    assert set(base.services) == {"web", "jobs", "api"}
    assert base.services["api"].database == "main"  # the one behind its pooler
    assert base.services["web"].side_pools["celery"].size == 2
    assert (base.databases["main"].max_connections, staging.databases["main"].max_connections) == (100, 50)
    for key in keys_of(tomllib.loads(EXAMPLE.read_text())):
        if key[0] != "environments":
            assert key in base.lines


def test_what_is_left_out_is_as_documented() -> None:
    budget = read(GOOD)
    database, service = budget.databases["main"], budget.services["web"]
    assert (database.headroom, database.reserved, database.fleet) == (3, None, False)
    assert (service.surge, service.processes, service.weight, service.min, service.max) == ("25%", 1, 1.0, 1, None)
    assert (service.alive, service.processes_at_worst, budget.members("main")) == (13, 13, 13)
