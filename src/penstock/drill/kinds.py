"""What went wrong, in the words that the verdict counts by: SQLSTATE first, exception class otherwise."""

REFUSED = "too many clients already"
ENDED = "connection ended by the server"
LOST = "connection lost"
POOL_EMPTY = "pool exhausted"
POOL_TIMEOUT = "pool timeout"
NO_ANSWER = "no answer"
SHED = "refused at once"
CANCELLED = "statement timeout"
WRONG = "wrong answer"

_BY_SQLSTATE = {
    "08003": LOST,
    "08006": LOST,
    "53300": REFUSED,
    "57014": CANCELLED,
    "57P01": ENDED,
    "57P02": ENDED,
    "57P03": "the server is starting or stopping",
}

# A connection that fails at login has no SQLSTATE in psycopg, only the server's sentence.
_BY_TEXT = {
    "too many clients": REFUSED,
    "remaining connection slots": REFUSED,
    "too many connections": REFUSED,
    "Connection refused": "connection refused",
    "timeout expired": "connect timeout",
    "server closed the connection": LOST,
    "connection is lost": LOST,
    "consuming input failed": LOST,
    "sending query failed": LOST,
    "the connection is closed": LOST,
}

_BY_CLASS = {
    "Overloaded": SHED,
    "PoolError": POOL_EMPTY,
    "PoolExhausted": POOL_TIMEOUT,
    "PoolTimeout": POOL_TIMEOUT,
    "TimeoutError": POOL_TIMEOUT,
    "WrongAnswer": WRONG,
}


def kind_of(error: BaseException) -> str:
    """Return the kind of `error`; SQLAlchemy's wrapping is looked through."""
    error = getattr(error, "orig", None) or error
    state = getattr(error, "sqlstate", None)
    if state in _BY_SQLSTATE:
        return _BY_SQLSTATE[state]
    if type(error).__name__ in _BY_CLASS:
        return _BY_CLASS[type(error).__name__]
    text = str(error)
    found = (kind for part, kind in _BY_TEXT.items() if part in text)
    return next(found, f"{type(error).__name__} {state}" if state else type(error).__name__)
