"""What every driver's `connect` has in common under guard."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ...errors import PoolClosed

logger = logging.getLogger("penstock.guard")


def fallback(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], error: type[Exception]) -> Any:
    """What *ours* connects; what *theirs* does where ours says None, or stumbles: not if it is the driver's *error*.

    The program is on its way out, or was never meant to know of us: it gets a connection as it would have without.
    """
    try:
        held = ours()
    except PoolClosed:  # at exit
        held = None
    except error:
        raise
    except Exception:
        logger.exception("a connection of %s is not held", name)
        held = None
    return theirs() if held is None else held
