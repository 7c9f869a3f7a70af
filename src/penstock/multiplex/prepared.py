"""Which statements a connection has prepared for those who share it: after so many uses, the last used so many.

psycopg's own rules (`prepare_threshold`, `prepared_max`), kept apart from its own account of the same connection, which
belongs to whoever borrows it.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import NamedTuple

COLD = 10  # answers of a new session, from which nothing is learnt of the statements

Key = tuple[bytes, tuple[int, ...]]  # the statement, with $1 for its parameters, and their types


class Route(NamedTuple):
    """What stands between a connection and the server.

    :ivar known: somebody has looked.
    :ivar direct: nothing does.
    :ivar able: it keeps account of prepared statements, or nothing stands between.
    """

    known: bool = False
    direct: bool = False
    able: bool = False


class Prepared:
    """A connection's account. *threshold*: None to prepare nothing. It refers to no connection.

    :ivar route: what leads to the server, as far as it is known.
    :ivar limit: milliseconds that the session gives a statement.
    :ivar limiter: the name under which what limits one statement is prepared; None if it is not.
    :ivar answers: that it has given: a new session is slow with the first of them.
    :ivar roomy: libpq's buffer has grown, so a large result may come in a single read.
    :ivar rtt: seconds that the quickest answer took: what the network takes, and hardly more.
    """

    def __init__(self, threshold: int | None, most: int | None, route: Route) -> None:
        self.route = route
        self.limit = 0
        self.limiter: bytes | None = None
        self.answers = 0
        self.roomy = False
        self.rtt = 0.0
        self._threshold = threshold
        self._most = sys.maxsize if most is None else most
        self._names: OrderedDict[Key, bytes] = OrderedDict()
        self._pending: dict[Key, bytes] = {}
        self._uses: OrderedDict[Key, int] = OrderedDict()
        self._made = 0

    def name(self, key: Key) -> bytes | None:
        """Under which name it is prepared."""
        name = self._names.get(key)
        if name is not None:
            self._names.move_to_end(key)
        return name

    def is_due(self, key: Key) -> bool:
        """One more use of a statement that is not prepared: whether it should be, now."""
        if self._threshold is None or not self.route.able or not self._most or key in self._pending:
            return False
        uses = self._uses.pop(key, 0)
        if uses >= self._threshold:
            return True
        self._uses[key] = uses + 1
        if len(self._uses) > self._most:
            self._uses.popitem(last=False)
        return False

    def begin(self, key: Key) -> bytes:
        """A name to prepare it under, never given before. Nobody uses it until `succeeded`.

        A pooler that keeps account of names closes the connection of who uses one that it does not know.
        """
        self._made += 1
        name = self._pending[key] = b"_penstock_%d" % self._made
        return name

    def succeeded(self, key: Key) -> bytes | None:
        """It is prepared. Returns the name of one to be deallocated for it, if there are too many."""
        self._names[key] = self._pending.pop(key)
        return self._names.popitem(last=False)[1] if len(self._names) > self._most else None

    def failed(self, key: Key) -> None:
        """It could not be prepared."""
        self._pending.pop(key, None)

    def forget(self, key: Key, name: bytes) -> bool:
        """It is of no use any more under this name; false if that was known, and it may have a newer one."""
        known = self._names.get(key) == name
        if known:
            del self._names[key]
        return known
