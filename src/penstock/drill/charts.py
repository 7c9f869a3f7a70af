"""Four small charts as SVG, drawn from the drill's document: no script, no library, colours by CSS class."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 480, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 28, 34
UNIT, MARK = 11, 25  # a line of text each, above the plane
BUCKET_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Frame:
    """The plane that a chart is drawn on: seconds to the right, something counted upwards."""

    seconds: float
    most: float

    def x(self, at: float) -> float:
        """Return where the second `at` is."""
        inner = WIDTH - LEFT - RIGHT
        return round(LEFT + inner * min(1.0, max(0.0, at / self.seconds)), 1)

    def y(self, value: float) -> float:
        """Return how high `value` is."""
        inner = HEIGHT - TOP - BOTTOM
        return round(HEIGHT - BOTTOM - inner * min(1.0, value / self.most), 1)


def connections(arm: dict[str, Any], frame: Frame) -> str:
    """Draw an arm's connections over time against the line."""
    samples = arm["connections"]
    held = [(sample["at"], sample["held"]) for sample in samples]
    active = [(sample["at"], sample["active"]) for sample in samples]
    line, end = frame.y(arm["line"]), WIDTH - RIGHT
    return _svg(
        f"{arm['title']}: connections over time; at most {arm['connections_at_most']}, the line is {arm['line']}",
        [
            *_axes(frame, "connections"),
            f'<path class="held-area" d="{_steps(held, frame, closed=True)}"/>',
            f'<path class="active-area" d="{_steps(active, frame, closed=True)}"/>',
            f'<path class="held" d="{_steps(held, frame)}"/>',
            f'<line class="limit" x1="{LEFT}" x2="{end}" y1="{line}" y2="{line}"/>',
            # Above the plane, because the curve of an arm that crosses runs along the line.
            f'<text class="limit-text" x="{end}" y="{UNIT}" text-anchor="end">- - the line: {arm["line"]}</text>',
            *_marks(arm["marks"], frame),
        ],
    )


def processes(arm: dict[str, Any], frame: Frame) -> str:
    """Draw how many processes an arm's service had over time."""
    running = [(step["at"], step["running"]) for step in arm["scale_out"]["processes"]]
    if arm["connections"]:
        running.append((arm["connections"][-1]["at"], running[-1][1]))
    return _svg(
        f"{arm['title']}: processes over time",
        [
            *_axes(frame, "processes"),
            f'<path class="held-area" d="{_steps(running, frame, closed=True)}"/>',
            f'<path class="held" d="{_steps(running, frame)}"/>',
            *_marks(arm["marks"], frame),
        ],
    )


def saved(arm: dict[str, Any], frame: Frame) -> str:
    """Draw how many rows an arm had saved over time."""
    rows = [(step["at"], step["rows"]) for step in arm["batch"]["progress"]]
    return _svg(
        f"{arm['title']}: users saved over time",
        [
            *_axes(frame, "users saved"),
            f'<path class="held-area" d="{_steps(rows, frame, closed=True)}"/>',
            f'<path class="held" d="{_steps(rows, frame)}"/>',
            *_marks(arm["marks"], frame),
        ],
    )


def losses(arm: dict[str, Any], frame: Frame, kinds: Sequence[str]) -> str:
    """Draw an arm's lost requests in each quarter of a second, stacked by kind."""
    bars = list(_bars(arm["lost_at"], frame, kinds))
    middle = f'x="{frame.x(frame.seconds / 2)}" y="{HEIGHT / 2}" text-anchor="middle"'
    empty = f'<text class="none" {middle}>none lost</text>'
    return _svg(
        f"{arm['title']}: {arm['lost']} requests lost",
        [*_axes(frame, f"lost in {BUCKET_SECONDS:g} s"), *(bars or [empty]), *_marks(arm["marks"], frame)],
    )


def fates(
    arm: dict[str, Any],
    frame: Frame,
    rows: Sequence[tuple[float, Mapping[str, int]]],
    styles: Mapping[str, str],
    *,
    bucket: float,
    capacity: float,
) -> str:
    """Draw what became of the requests that arrived in each `bucket` of seconds, as a stack whose height is the load.

    `styles` has the class of each fate, from the bottom up.
    """
    offered = [(at, sum(counts.values()) / bucket) for at, counts in rows]
    line, end = frame.y(capacity), WIDTH - RIGHT
    return _svg(
        f"{arm['title']}: requests by when they arrived and what became of them; capacity {capacity:.0f} a second",
        [
            *_axes(frame, "requests/s"),
            *_stacks(rows, frame, styles, bucket),
            f'<path class="offered" d="{_steps([*offered, (rows[-1][0] + bucket, 0)], frame)}"/>',
            f'<line class="capacity" x1="{LEFT}" x2="{end}" y1="{line}" y2="{line}"/>',
            f'<text class="unit" x="{end}" y="{UNIT}" text-anchor="end">- - capacity: {capacity:.0f}/s</text>',
            *_marks(arm["marks"], frame),
        ],
    )


def _stacks(
    rows: Sequence[tuple[float, Mapping[str, int]]], frame: Frame, styles: Mapping[str, str], bucket: float
) -> Iterable[str]:
    for at, counts in rows:
        left, right, below = frame.x(at), frame.x(at + bucket), 0.0
        for fate, style in styles.items():
            if rate := counts.get(fate, 0) / bucket:
                top, bottom = frame.y(below + rate), frame.y(below)
                below += rate
                size = f'width="{round(right - left, 1)}" height="{round(bottom - top, 1)}"'
                yield f'<rect class="{style}" x="{left}" y="{top}" {size}/>'


def tallest(arms: Iterable[dict[str, Any]]) -> int:
    """Return the most requests that any arm lost in one bucket."""
    return max((max(_buckets(arm["lost_at"]).values(), default=0) for arm in arms), default=0)


def _buckets(lost: Sequence[dict[str, Any]]) -> Counter[int]:
    return Counter(int(loss["at"] / BUCKET_SECONDS) for loss in lost)


def _bars(lost: Sequence[dict[str, Any]], frame: Frame, kinds: Sequence[str]) -> Iterable[str]:
    counts = Counter((int(loss["at"] / BUCKET_SECONDS), loss["kind"]) for loss in lost)
    for bucket in sorted({bucket for bucket, _ in counts}):
        left, right = frame.x(bucket * BUCKET_SECONDS), frame.x((bucket + 1) * BUCKET_SECONDS)
        below = 0
        for number, kind in enumerate(kinds):
            if count := counts[bucket, kind]:
                top, bottom = frame.y(below + count), frame.y(below)
                below += count
                width, height = max(1.0, round(right - left - 1.5, 1)), round(bottom - top, 1)
                yield f'<rect class="kind-{number % 6}" x="{left}" y="{top}" width="{width}" height="{height}"/>'


def _svg(label: str, parts: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _axes(frame: Frame, unit: str) -> Iterable[str]:
    yield f'<text class="unit" x="2" y="{UNIT}">{escape(unit)}</text>'
    for value in _ticks(frame.most, 4):
        y = frame.y(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>'
    for value in _ticks(frame.seconds, 6):
        place = f'x="{frame.x(value)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle"'
        yield f'<text class="tick" {place}>{value:g} s</text>'


def _ticks(most: float, about: int) -> list[float]:
    """Return round numbers from 0 to at most `most`, about as many as asked for."""
    steps = [base * 10**power for power in range(-1, 6) for base in (1, 2, 5)]
    step = next((step for step in steps if most / step <= about), most)
    return [round(number * step, 6) for number in range(int(most / step + 1e-9) + 1)]


def _steps(points: Sequence[tuple[float, float]], frame: Frame, *, closed: bool = False) -> str:
    # Steps, not slopes: between two looks nothing is known, and a slope would invent it.
    if not points:
        return ""
    path = [f"M{frame.x(points[0][0])} {frame.y(points[0][1])}"]
    for at, value in points[1:]:
        path.append(f"H{frame.x(at)}V{frame.y(value)}")
    if closed:
        path.append(f"V{frame.y(0)}H{frame.x(points[0][0])}Z")
    return "".join(path)


def _marks(marks: Sequence[dict[str, Any]], frame: Frame) -> Iterable[str]:
    for mark in marks:
        x = frame.x(mark["at"])
        yield f'<line class="mark" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        yield f'<text class="mark-text" x="{x}" y="{MARK}" text-anchor="middle">{escape(mark["label"])}</text>'
