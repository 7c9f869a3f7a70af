"""Whether a server refused a connection because it has no more to give: its line, as it holds it itself."""

from __future__ import annotations

_SQLSTATE = "53300"  # too_many_connections
_ERRNOS = {1040, 1203, 1226}  # of MySQL: of the server, of the account, of what the account was granted

# A connection that fails at login has no SQLSTATE in libpq's drivers, only the server's sentence.
_SENTENCES = (
    "too many clients",
    "too many connections",
    "connection slots are reserved",
    "no more connections allowed",  # PgBouncer
)


def is_full(error: BaseException) -> bool:
    """Whether *error* says that there are too many connections already, so that it is worth trying again later."""
    if getattr(error, "sqlstate", None) == _SQLSTATE:
        return True
    if error.args and isinstance(error.args[0], int):
        return error.args[0] in _ERRNOS
    text = str(error)
    return any(sentence in text for sentence in _SENTENCES)
