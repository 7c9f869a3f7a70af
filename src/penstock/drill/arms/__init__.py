"""The ways to come by a connection that a drill compares. One file each; ARMS is the order of the verdict."""

from collections.abc import Sequence

from penstock.drill.arms.arm import Arm, Request
from penstock.drill.arms.leaking import Leaking
from penstock.drill.arms.never_returned import NeverReturned
from penstock.drill.arms.penstock_pool import PenstockPool
from penstock.drill.arms.per_request import PerRequest
from penstock.drill.arms.sqlalchemy_engine import SQLAlchemyEngine
from penstock.drill.failure import CannotStart

ARMS: tuple[type[Arm], ...] = (PerRequest, Leaking, NeverReturned, SQLAlchemyEngine, PenstockPool)

__all__ = ["ARMS", "Arm", "Request", "choose"]


def choose(names: Sequence[str]) -> list[type[Arm]]:
    """Return the arms called `names` in the verdict's order, or all of them for none. Raises CannotStart."""
    known = [arm.name for arm in ARMS]
    for name in names:
        if name not in known:
            raise CannotStart(f"there is no arm {name!r}; choose from: {', '.join(known)}")
    return [arm for arm in ARMS if not names or arm.name in names]
