"""What the audit says: one place in the code, what is wrong there, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    LEAK = "leak"
    CONNECT_IN_LOOP = "connect-in-loop"
    CONNECT_PER_REQUEST = "connect-per-request"
    ENGINE_IN_FUNCTION = "engine-in-function"
    NO_TIMEOUT = "no-timeout"
    HOLD_ACROSS_IO = "hold-across-io"
    NESTED_CHECKOUT = "nested-checkout"
    BLOCKING_IN_ASYNC = "blocking-in-async"
    POOL_UNBOUNDED = "pool-unbounded"
    POOL_BEFORE_FORK = "pool-before-fork"
    TRANSACTION_LEFT_OPEN = "transaction-left-open"
    SESSION_STATE = "session-state"


class Severity(StrEnum):
    """A hint is a matter of taste, or of circumstances that the code does not tell."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    HINT = "hint"


class Confidence(StrEnum):
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Rule:
    """*code* stays what it is for ever. *title* is what is wrong, in a line."""

    code: str
    kind: Kind
    severity: Severity
    title: str


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """*line* and *end_line* count from 1, *column* from 1 as editors do; *end_column* is the one after the last.

    :ivar remedy: how it is mended, for `fixes`; empty if it cannot be.
    """

    path: str
    line: int
    column: int
    code: str
    message: str
    end_line: int
    kind: Kind
    severity: Severity
    confidence: Confidence
    fixable: bool = False
    end_column: int = 0
    remedy: str = ""
