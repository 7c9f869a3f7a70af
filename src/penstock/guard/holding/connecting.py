"""What every driver's `connect` has in common under guard."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ...errors import PoolClosed

logger = logging.getLogger("penstock.guard")

_stumbled: set[str] = set()  # drivers of which that has been said


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
        if name not in _stumbled:
            _stumbled.add(name)
            logger.exception("connections of %s are not held, at least not all", name)
        held = None
    return theirs() if held is None else held
