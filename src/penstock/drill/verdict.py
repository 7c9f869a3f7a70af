"""One plain sentence for each arm, for somebody who was woken by it."""

from penstock.drill.kinds import ENDED, LOST, NO_ANSWER, POOL_EMPTY, POOL_TIMEOUT, REFUSED
from penstock.drill.result import Result

_WHY = {
    REFUSED: "because PostgreSQL had no connection left to give",
    ENDED: "because the server ended the connection and the second try met another dead one",
    LOST: "because the connection was gone",
    POOL_EMPTY: "because nobody gave a connection back to the pool",
    POOL_TIMEOUT: "because no connection came free in time",
    NO_ANSWER: "because they never got an answer at all",
}


def sentence(result: Result) -> str:
    """Return what became of the arm: the line first, then the requests."""
    if not result.requests:
        return "No request was made, so nothing is proven."
    return f"{_line(result)} {_requests(result)}{_recovery(result)}"


def _line(result: Result) -> str:
    if not result.crossed:
        return f"Held the line: {result.peak} connections at most, and the line is {result.line}."
    refused = f"PostgreSQL refused it {_count(result.refused, 'time')}" if result.refused else "nobody was refused yet"
    return f"Crossed the line: {result.peak} connections where {result.line} are to be had, and {refused}."


def _requests(result: Result) -> str:
    if not result.lost:
        late = result.ok - result.useful
        slow = f", {late:,} of them late" if late else ""
        return f"Every one of {_count(result.requests, 'request')} was answered{slow}."
    kind, number = next(iter(result.errors.items()))
    mostly = "mostly " if number < result.lost else ""
    share = percent(result.lost / result.requests)
    return f"{share} of the requests were lost, {mostly}{_WHY.get(kind, f'by {kind}')}."


def _recovery(result: Result) -> str:
    if result.healed_at is None:
        return ""
    if result.recovery is None:
        return " It did not recover: no request begun after the fault was answered."
    return f" The first good answer came {result.recovery:.2f} s after the fault had ended."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """Return `share` as a percentage, never 100 % or 0 % by rounding alone: somebody may rely on it."""
    return f"{min(99.9, max(0.1, 100 * share)):.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"
