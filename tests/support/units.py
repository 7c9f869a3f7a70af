"""What pytest-xdist hands to a process in one piece."""

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling


class Units(LoadScopeScheduling):
    """One test, so that no process is left with a long module at the end; but whole is a module with a fixture of its
    own, which is dear to make: a drill that is played once and looked at by many tests, say."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if _shares_a_fixture(Path(self.config.rootpath, module)) else nodeid


@cache
def _shares_a_fixture(module: Path) -> bool:
    return 'scope="module"' in module.read_text(encoding="utf-8")
