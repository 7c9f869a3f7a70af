"""The outages to replay. A file in this folder that defines SCENARIO is one."""

import pkgutil
from importlib import import_module

from penstock.drill.failure import CannotStart
from penstock.drill.scenario import Scenario


def discover() -> dict[str, Scenario]:
    """Return every scenario by its name."""
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {module.SCENARIO.name: module.SCENARIO for module in modules}


def choose(name: str) -> list[Scenario]:
    """Return the scenario `name`, or all of them for "all". Raises CannotStart for a name that is none."""
    known = discover()
    if name == "all":
        return list(known.values())
    if name not in known:
        raise CannotStart(f"there is no scenario {name!r}; choose one of: {', '.join(known)}, all")
    return [known[name]]
