"""The drill as one machine-readable document. Keys are stable within a schema version."""

import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from penstock.drill.batch_result import BatchResult
from penstock.drill.conduct import Outcome
from penstock.drill.measure import Sample
from penstock.drill.overload import ENOUGH, OverloadResult
from penstock.drill.result import Result
from penstock.drill.scaleout_result import ENOUGH as ENOUGH_IN_USE
from penstock.drill.scaleout_result import ScaleOutResult
from penstock.drill.scenario import Scenario
from penstock.drill.server import Server
from penstock.drill.shape import Batch, ClosedLoop, ScaleOut
from penstock.drill.verdict import sentence

SCHEMA = "penstock.drill/1"
BUCKET_SECONDS = 0.25  # of an open loop's requests over time, at the least
BUCKETS = 100  # at the most
LOOK_SECONDS = (
    0.05  # of a scale-out's and a batch's many looks at the server, the one with the most connections in each so many
)


def document(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return everything that was measured, and where. Times in seconds unless the key says ms.

    `line` is that of the first scenario's server; each scenario says its own.
    """
    server = outcomes[0].server
    return {
        "schema": SCHEMA,
        "passed": not any(outcome.failed for outcome in outcomes),
        "environment": environment(server),
        "line": _line(server),
        "scenarios": [_scenario(outcome) for outcome in outcomes],
    }


def _line(server: Server) -> dict[str, int]:
    return {"max_connections": server.max_connections, "reserved": server.reserved, "usable": server.line}


def environment(server: Server) -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "server": server.version,
        "embedded": server.embedded,
        "cores": os.cpu_count(),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("penstock", "psycopg", "sqlalchemy", "psycopg_pool", "asyncpg")},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _scenario(outcome: Outcome) -> dict[str, Any]:
    scenario = outcome.scenario
    return {
        "name": scenario.name,
        "title": scenario.title,
        "story": scenario.story,
        "line": _line(outcome.server),
        "capacity": outcome.capacity and outcome.capacity._asdict(),
        "settings": {
            **_shape(scenario),
            "instances": scenario.instances,
            "seconds": scenario.seconds,
            "deadline": scenario.deadline,
            "patience": scenario.patience,
            "elsewhere": scenario.work.elsewhere,
            "failing_share": scenario.work.failing,
            "slow_share": scenario.work.slow,
            "slow_seconds": scenario.work.slow_seconds,
        },
        "arms": [_arm(result) for result in outcome.results],
    }


def _shape(scenario: Scenario) -> dict[str, Any]:
    return {"batch": None} | _shape_of(scenario)


def _shape_of(scenario: Scenario) -> dict[str, Any]:
    shape = scenario.shape
    if isinstance(shape, Batch):
        return {"clients": None, "think": None, "open_loop": None, "scale_out": None, "batch": asdict(shape)}
    if isinstance(shape, ScaleOut):
        scale_out = {name: getattr(shape, name) for name in ("processes", "members", "surge", "budget", "settle")}
        clients = shape.clients * shape.budget
        return {"clients": clients, "think": 0.0, "open_loop": None, "scale_out": scale_out}
    if isinstance(shape, ClosedLoop):
        return {"clients": shape.clients, "think": shape.think, "open_loop": None, "scale_out": None}
    begin, end = shape.spike(scenario.seconds)
    open_loop = {"normal": shape.normal, "overload": shape.overload, "begin": begin, "end": end}
    open_loop |= {"workers": shape.workers, "bucket": _bucket(scenario.seconds)}
    return {"clients": None, "think": None, "open_loop": open_loop, "scale_out": None}


def _arm(result: Result) -> dict[str, Any]:
    return {
        "name": result.arm.name,
        "title": result.arm.title,
        "judged": result.arm.judged,
        "good": result.good,
        "failed": result.failed,
        "verdict": sentence(result),
        "requests": result.requests,
        "ok": result.ok,
        "lost": result.lost,
        "errors": result.errors,
        "retried": result.retried,
        "refused": result.refused,
        "useful": result.useful,
        "useful_share": round(result.useful_share, 4),
        "connections_at_most": result.peak,
        "line": result.line,
        "crossed": result.crossed,
        "pool_size": result.pool_size,
        "p50_ms": _rounded(result.p50_ms),
        "p99_ms": _rounded(result.p99_ms),
        "recovery": _rounded(result.recovery),
        "overload": _overload(result) if isinstance(result, OverloadResult) else None,
        "scale_out": _scale_out(result) if isinstance(result, ScaleOutResult) else None,
        "batch": _batch(result) if isinstance(result, BatchResult) else None,
        "marks": [{"at": round(mark.at, 3), "label": mark.label} for mark in result.marks],
        "connections": [
            {"at": round(s.at, 3), "held": s.held, "active": s.active, "idle_in_transaction": s.idle_in_transaction}
            for s in _samples(result)
        ],
        "lost_at": [{"at": round(answer.end, 3), "kind": answer.error} for answer in result.losses],
    }


def _overload(result: OverloadResult) -> dict[str, Any]:
    bucket = _bucket(result.seconds)
    return {
        "offered": _rounded(result.offered),
        "really_offered": result.really_offered,
        "lag_p99_ms": _rounded(result.lag_p99_ms),
        "useful_in_spike": round(result.useful_in_spike, 4),
        "enough": result.useful_in_spike >= ENOUGH,
        "late": result.late,
        "shed": result.shed,
        "refusal_p50_ms": _rounded(result.refusal_ms(0.5)),
        "refusal_p99_ms": _rounded(result.refusal_ms(0.99)),
        "refusal_worst_ms": _rounded(result.refusal_ms(1.0)),
        "arrivals": [
            {"at": round(number * bucket, 3), "fates": dict(fates)}
            for number, fates in enumerate(result.over_time(bucket))
        ],
    }


def _scale_out(result: ScaleOutResult) -> dict[str, Any]:
    return {
        "above": result.above,
        "looks": len(result.samples),
        "look_p99_ms": _rounded(1000 * result.gap(0.99)),
        "look_worst_ms": _rounded(1000 * result.gap(1.0)),
        "changes": [
            {
                "label": change.label,
                "at": round(change.begin, 3),
                "members": change.members,
                "held": round(result.held_in(change), 1),
                "in_use": round(result.used_in(change), 1),
                "share": round(result.share_in(change), 4),
                "enough": result.share_in(change) >= ENOUGH_IN_USE,
            }
            for change in result.changes
        ],
        "killed": result.killed,
        "reused_after": _rounded(result.reused_after),
        "reused_good": result.reused_good,
        "ready_after_p50": _rounded(result.ready_after(0.5)),
        "ready_after_worst": _rounded(result.ready_after(1.0)),
        "not_ready": result.not_ready,
        "deploy": _rounded(result.deploy),
        "apart": {"requests": len(result.apart), "lost": sum(answer.error is not None for answer in result.apart)},
        "processes": [{"at": round(at, 3), "running": number} for at, number in result.processes],
    }


def _batch(result: BatchResult) -> dict[str, Any]:
    return {
        "items": result.items,
        "rows": result.rows,
        "distinct": result.distinct,
        "twice": result.twice,
        "gone": result.gone,
        "failed": result.failed_items,
        "complete": result.complete,
        "per_second": _rounded(result.per_second),
        "seconds_for_all": _rounded(result.seconds_for_all),
        "stood_still": _rounded(result.stood_still),
        "errors_told": result.errors_told,
        "progress": [{"at": round(at, 3), "rows": rows} for at, rows in result.progress],
    }


def _samples(result: Result) -> list[Sample]:
    """Those to be drawn: of many the highest, so that nothing above the line is left out."""
    if not isinstance(result, (ScaleOutResult, BatchResult)):
        return result.samples
    highest: dict[int, Sample] = {}
    for sample in result.samples:
        bucket = int(sample.at / LOOK_SECONDS)
        if bucket not in highest or sample.held > highest[bucket].held:
            highest[bucket] = sample
    return list(highest.values())


def _bucket(seconds: float) -> float:
    return max(BUCKET_SECONDS, seconds / BUCKETS)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
