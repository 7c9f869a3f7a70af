"""The events of a pool, for who listens to one (`penstock.Pool.listen`)."""

from .core import Reason, Refusal
from .pool.events import (
    Acquired,
    CameBack,
    Closed,
    ConnectFailed,
    Event,
    GaveUp,
    HeldLong,
    LeakSuspected,
    Opened,
    OutlivedRequest,
    Refused,
    Returned,
    TakenBack,
    Waited,
)

__all__ = [
    "Acquired",
    "CameBack",
    "Closed",
    "ConnectFailed",
    "Event",
    "GaveUp",
    "HeldLong",
    "LeakSuspected",
    "Opened",
    "OutlivedRequest",
    "Reason",
    "Refusal",
    "Refused",
    "Returned",
    "TakenBack",
    "Waited",
]
