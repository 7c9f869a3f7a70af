"""What stands between a connection and the server: a pooler perhaps, and whether it knows prepared statements.

Each new connection is asked once. A pooler that hands the statements of one client to several server connections
gives its clients process numbers of its own. If it keeps account of prepared statements, it gives those names of its
own, too.

One that does not (PgBouncer before 1.21) takes the server connection back as soon as it has seen as many answers as
Syncs, even if the beginning of the next statement is on its way there already: the rest of that then goes elsewhere,
and meets what somebody else has begun. So nothing is sent behind another statement there, nor before it is known.
"""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING

from psycopg import capabilities

from ..drivers.session import milliseconds
from .limit import LIMIT, LIMITER, TEXT
from .prepared import Route

if TYPE_CHECKING:
    from .pipeline import Pipeline
    from .statement import Errand

_PROBE = b"SELECT pg_backend_pid(), current_setting('statement_timeout')"
_IS_NAMED = b"SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name = $1)"


def look(pipeline: Pipeline) -> None:
    """Ask; `pipeline.found` is told."""
    pipeline.pgconn.send_query_params(_PROBE, None)
    pipeline.errand(lambda probe: _looked(pipeline, probe))


def _looked(pipeline: Pipeline, probe: Errand) -> None:
    pid, limit = probe.value(0), probe.value(1)
    if limit is not None:
        pipeline.prepared.limit = milliseconds(limit.decode())
    if pid == b"%d" % pipeline.pgconn.backend_pid:
        _may_prepare(pipeline, direct=True)
    elif pid is not None and capabilities.has_send_close_prepared():
        _ask_for_names(pipeline)
    else:  # no server that is known here: nothing is prepared, nor cancelled
        pipeline.found(Route(known=True))


def _ask_for_names(pipeline: Pipeline) -> None:
    """Under a name that nobody else has: a pooler that keeps no account may show it to its other clients."""
    name = b"_penstock_" + token_hex(8).encode()
    pipeline.pgconn.send_prepare(name, _IS_NAMED, [TEXT])
    pipeline.pgconn.send_query_prepared(name, [name])
    pipeline.pgconn.send_close_prepared(name)
    pipeline.errand(lambda probe: _told_names(pipeline, probe), before=1)


def _told_names(pipeline: Pipeline, probe: Errand) -> None:
    if probe.value(0) == b"f":
        _may_prepare(pipeline, direct=False)
    else:
        pipeline.found(Route(known=True))


def _may_prepare(pipeline: Pipeline, direct: bool) -> None:
    pipeline.found(Route(known=True, direct=direct, able=True))
    if pipeline.conn.prepare_threshold is not None:
        pipeline.pgconn.send_prepare(LIMITER, LIMIT, [TEXT])
        pipeline.errand(lambda errand: _limiter_prepared(pipeline, errand))


def _limiter_prepared(pipeline: Pipeline, errand: Errand) -> None:
    pipeline.prepared.limiter = LIMITER if errand.failure is None else None
