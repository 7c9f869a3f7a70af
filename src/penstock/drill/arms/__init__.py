"""The ways to come by a connection that a drill compares. One file each; ARMS is the order of the verdict."""

from collections.abc import Sequence
from importlib.util import find_spec

from penstock.drill.arms.arm import Arm, AsyncArm
from penstock.drill.arms.asyncpg_pool import AsyncpgPool
from penstock.drill.arms.errand import Errand
from penstock.drill.arms.leaking import Leaking
from penstock.drill.arms.naive_app import NaiveApp, NaiveAppHeld
from penstock.drill.arms.naive_loop import NaiveLoop
from penstock.drill.arms.never_returned import NeverReturned
from penstock.drill.arms.penstock_batch import PenstockBatch
from penstock.drill.arms.penstock_pool import PenstockPool
from penstock.drill.arms.per_request import PerRequest
from penstock.drill.arms.psycopg_pool import PsycopgPool
from penstock.drill.arms.sqlalchemy_engine import SQLAlchemyEngine
from penstock.drill.failure import CannotStart
from penstock.drill.scenario import Scenario
from penstock.drill.shape import Batch
from penstock.drill.work import Request

ARMS: tuple[type[Arm], ...] = (
    PerRequest,
    Leaking,
    NeverReturned,
    SQLAlchemyEngine,
    PsycopgPool,
    AsyncpgPool,
    NaiveApp,
    PenstockPool,
    NaiveAppHeld,
    NaiveLoop,
    PenstockBatch,
)

__all__ = ["ARMS", "Arm", "AsyncArm", "Request", "able", "choose"]


def choose(names: Sequence[str], default: Sequence[str] = ()) -> list[type[Arm]]:
    """Return the arms called `names`, or those of `default` for none, in the verdict's order.

    Raises CannotStart for a name that is none, and for one whose package is not installed.
    """
    known = [arm.name for arm in ARMS]
    for name in names:
        if name not in known:
            raise CannotStart(f"there is no arm {name!r}; choose from: {', '.join(known)}")
    chosen = [arm for arm in ARMS if arm.name in (names or default)]
    for arm in chosen:
        if find_spec(arm.package) is None:
            raise CannotStart(
                f"the arm {arm.name!r} needs the package {arm.package}, which is not installed: "
                "pip install 'penstock[drill]', or choose other arms with --arm"
            )
    return chosen


def able(chosen: Sequence[type[Arm]], scenario: Scenario, *, alone: bool) -> list[type[Arm]]:
    """Return those of `chosen` that can play `scenario`: jobs play in a batch, and nothing else does.

    Raises CannotStart when it is `alone` and some cannot.
    """
    batch = isinstance(scenario.shape, Batch)
    found = [arm for arm in chosen if issubclass(arm, Errand) is batch]
    if alone and len(found) < len(chosen):
        names = ", ".join(arm.name for arm in ARMS if issubclass(arm, Errand) is batch)
        raise CannotStart(f"the arms of {scenario.name} are {names}")
    return found
