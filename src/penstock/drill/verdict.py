"""One plain sentence for each arm, for somebody who was woken by it."""

from penstock.drill.batch_result import BatchResult
from penstock.drill.kinds import CANCELLED, ENDED, LOST, NO_ANSWER, POOL_EMPTY, POOL_TIMEOUT, REFUSED, WRONG
from penstock.drill.overload import ENOUGH, OverloadResult
from penstock.drill.result import Result
from penstock.drill.scaleout_result import ENOUGH as ENOUGH_IN_USE
from penstock.drill.scaleout_result import ScaleOutResult

_WHY = {
    REFUSED: "because PostgreSQL had no connection left to give",
    ENDED: "because the server ended the connection and the second try met another dead one",
    LOST: "because the connection was gone",
    POOL_EMPTY: "because nobody gave a connection back to the pool",
    POOL_TIMEOUT: "because no connection came free in time",
    CANCELLED: "because their statement took too long",
    WRONG: "because they got another request's answer",
    NO_ANSWER: "because they never got an answer at all",
}


def sentence(result: Result) -> str:
    """Return what became of the arm: the line first, then the requests."""
    if isinstance(result, BatchResult):
        return f"{_line(result)} {_saved(result)}{_not_once(result)}{_pace(result)}"
    if not result.requests:
        return "No request was made, so nothing is proven."
    if isinstance(result, OverloadResult):
        return f"{_line(result)} {_in_spike(result)}{_refusals(result)}{_others(result)}{_after_spike(result)}"
    if isinstance(result, ScaleOutResult):
        return f"{_looks(result)}{_shares(result)}{_reused(result)}{_not_ready(result)} {_requests(result)}"
    return f"{_line(result)} {_requests(result)}{_recovery(result)}"


def _line(result: Result) -> str:
    if not result.crossed:
        return f"Held the line: {result.peak} connections at most, and the line is {result.line}."
    refused = f"PostgreSQL refused it {_count(result.refused, 'time')}" if result.refused else "nobody was refused yet"
    return f"Crossed the line: {result.peak} connections where {result.line} are to be had, and {refused}."


def _requests(result: Result) -> str:
    if not result.lost:
        slow = f", {result.late:,} of them late" if result.late else ""
        return f"Every one of {_count(result.requests, 'request')} was answered{slow}."
    return f"{percent(result.lost / result.requests)} of the requests were lost, {_mostly(result)}."


def _mostly(result: Result) -> str:
    kind, number = next(iter(result.errors.items()))
    mostly = "mostly " if number < result.lost else ""
    return f"{mostly}{_WHY.get(kind, f'by {kind}')}"


def _recovery(result: Result) -> str:
    if result.healed_at is None:
        return ""
    if result.recovery is None:
        return " It did not recover: no request begun after the fault was answered."
    return f" The first good answer came {result.recovery:.2f} s after the fault had ended."


def _saved(result: BatchResult) -> str:
    kills = sum(not of_itself for _, of_itself in result.ends) - (not result.complete)
    killed = f", though it was killed {_count(kills, 'time')}" if kills else ""
    if result.complete and not result.twice and not result.gone:
        failed = (
            f", and has {_count(result.failed_items, 'other')} in its list of failures" if result.failed_items else ""
        )
        return f"It saved each of {_count(result.distinct, 'user')} once{killed}{failed}."
    if result.errors_told:
        return f"It ended with {result.errors_told[-1]}; {result.distinct:,} of {result.items:,} users are saved."
    return f"It saved {result.distinct:,} of {result.items:,} users{killed}."


def _not_once(result: BatchResult) -> str:
    twice = f" It saved {_count(result.twice, 'row')} too many, as it began anew." if result.twice else ""
    gone = f" It passed {_count(result.gone, 'user')} by, whom nobody will find again." if result.gone else ""
    still = ""
    if result.stood_still:
        still = f" For the last {result.stood_still:.1f} s it stood still, and would have for ever."
    return twice + gone + still


def _pace(result: BatchResult) -> str:
    if result.seconds_for_all is None:
        return ""
    if result.complete:
        return f" That took {duration(result.seconds_for_all)}, {result.per_second:,.0f} a second."
    reckoned = f"all {result.items:,} would take it {duration(result.seconds_for_all)}"
    return f" At {result.per_second:,.0f} a second, measured on these, {reckoned}: that is reckoned, not measured."


def _looks(result: ScaleOutResult) -> str:
    looks = _count(len(result.samples), "look")
    at_most = f"the line of {result.line}: {result.peak} connections at most"
    if not result.crossed:
        return f"Held {at_most} in {looks}."
    return f"Crossed {at_most}, above it at {result.above:,} of {looks}."


def _shares(result: ScaleOutResult) -> str:
    if not result.changes:
        return ""
    least = min(result.changes, key=result.share_in)
    share = result.share_in(least)
    only = "" if share >= ENOUGH_IN_USE else "only "
    return f" After each change {only}{percent(share)} of the budget or more was in use again (least: {least.label})."


def _reused(result: ScaleOutResult) -> str:
    if not result.killed:
        return ""
    had = f" What {_count(result.killed, 'killed process', 'killed processes')} had"
    after = result.reused_after
    return f"{had} was not used again." if after is None else f"{had} was in use again {after:.1f} s later."


def _not_ready(result: ScaleOutResult) -> str:
    if not result.not_ready:
        return ""
    return f" {_count(result.not_ready, 'process', 'processes')} got no connection in time."


def _in_spike(result: OverloadResult) -> str:
    times = f"{result.offered / result.spike.capacity:.1f} times what the database can do"
    if not result.really_offered:
        return f"The spike was to be more than {times}, but this machine could not make more, so nothing is proven."
    only = "" if result.useful_in_spike >= ENOUGH else "only "
    return f"Offered {times}, it gave useful answers at {only}{percent(result.useful_in_spike)} of the capacity."


def _refusals(result: OverloadResult) -> str:
    if not result.shed:
        return ""
    half, most = result.refusal_ms(0.5), result.refusal_ms(0.99)
    return (
        f" It refused {_count(result.shed, 'request')} that it could not have answered in time: half of them were told "
        f"within {milliseconds(half)}, 99 % within {milliseconds(most)}."
    )


def _others(result: OverloadResult) -> str:
    late = f" {_count(result.late, 'answer')} came too late to be of use." if result.late else ""
    lost = f" {percent(result.lost / result.requests)} of the requests were lost, " if result.lost else ""
    return f"{late}{lost}{_mostly(result)}." if lost else late


def _after_spike(result: OverloadResult) -> str:
    if result.recovery is not None:
        return f" It was back to normal {result.recovery:.2f} s after the spike."
    since = result.seconds - result.spike.end
    return f" It did not recover within the drill, {since:g} s of normal load after the spike included."


def _count(number: int, noun: str, many: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def percent(share: float) -> str:
    """Return `share` as a percentage, never 100 % or 0 % by rounding alone: somebody may rely on it."""
    return f"{min(99.9, max(0.1, 100 * share)):.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"


def duration(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def milliseconds(value: float | None) -> str:
    """Return `value`, in ms, with its unit."""
    return "-" if value is None else f"{value:,.1f} ms" if value < 10 else f"{value:,.0f} ms"
