"""`GET /metrics`: the pools of this process for Prometheus.

Under `PROMETHEUS_MULTIPROC_DIR`, all that the processes wrote there: `penstock.observe.prometheus.register()` has each
of them write its pools.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from .. import prometheus


def scrape() -> Callable[[Request], Response]:
    """What answers it."""
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from prometheus_client.multiprocess import MultiProcessCollector

        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        prometheus.register(registry)

    def answer(request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": kind, "Cache-Control": "no-store"})

    return answer
