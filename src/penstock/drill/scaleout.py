"""The play of `scale-out`: who comes and who goes, when, and what is looked at after each change."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from psycopg.conninfo import make_conninfo

from penstock.drill.measure import Mark, Sampler
from penstock.drill.proxy import ChaosProxy
from penstock.drill.replica import Posting
from penstock.drill.replicas import Replica, Replicas
from penstock.drill.scaleout_result import Change, ScaleOutResult
from penstock.drill.scenario import Scenario
from penstock.drill.server import Server
from penstock.drill.shape import ScaleOut

INTERVAL = 0.01  # between two looks at the server
TICK_SECONDS = 0.02
READY_SECONDS = 40.0  # for all that were started, until they are ready
LOOK_SECONDS = 0.6  # over which what is in use is averaged, once a change has settled
EARLY_SECONDS = 1.5  # of the first process alone
BRIEF_SECONDS = 6.0  # for an arm that does not know of the others: what it does it does at once
BRIEF = 10.0  # about what that takes in all
CUT = 1.1  # times what a change is given to settle: for longer than a member of a fleet believes what it claimed
HEALED_SECONDS = 1.0
CUT_EACH, KILL_EACH = 5, 3  # one in so many is cut off, one in so many killed

# Called with the growing result, and the seconds since the play began.
Watch = Callable[[ScaleOutResult, float], None]


class Play:
    """What the scenes are made of. Each takes as long as it takes; `watch` is called all the while."""

    def __init__(self, result: ScaleOutResult, replicas: Replicas, proxy: ChaosProxy, origin: float, watch: Watch):
        self.result = result
        self.replicas = replicas
        self.proxy = proxy
        self._origin = origin
        self._watch = watch

    @property
    def now(self) -> float:
        """Seconds since the play began."""
        return time.monotonic() - self._origin

    def mark(self, label: str) -> float:
        """Something happens now."""
        at = self.now
        self.result.marks.append(Mark(at, label))
        return at

    def go_on(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.until(lambda: False, seconds)

    def until(self, done: Callable[[], bool], at_most: float) -> None:
        """Let time pass until it is `done`."""
        end = self.now + at_most
        while not done() and (left := end - self.now) > 0:
            self.replicas.collect(min(left, TICK_SECONDS))
            running = len(self.replicas.running)
            if not self.result.processes or self.result.processes[-1][1] != running:
                self.result.processes.append((self.now, running))
            self._watch(self.result, self.now)

    def settle(self, label: str, seconds: float) -> None:
        """Leave all alone for `seconds`, and look at what is in use then."""
        self.go_on(seconds)
        begin = self.now
        self.go_on(LOOK_SECONDS)
        self.result.changes.append(Change(label, begin, self.now, len(self.replicas.ready)))

    def all_ready(self, some: Sequence[Replica]) -> None:
        """Wait until they are, or could not start."""
        self.until(lambda: all(one.ready or one.why for one in some), READY_SECONDS)
        self.result.not_ready += sum(one.ready is None for one in some)

    def any_ready(self, some: Sequence[Replica]) -> None:
        """Wait until one of them is, or could not start."""
        self.until(lambda: any(one.ready or one.why for one in some), READY_SECONDS)


def run(
    result: ScaleOutResult, scenario: Scenario, shape: ScaleOut, server: Server, proxy: ChaosProxy, watch: Watch
) -> None:
    """Play it with one arm; `result` grows meanwhile. Raises CannotStart."""
    with ExitStack() as stack:
        sampler = stack.enter_context(Sampler(server.admin_dsn, alone=server.embedded, interval=INTERVAL))
        sampler.wait_until_gone()
        origin = time.monotonic()
        posting = Posting(
            number=0,
            arm=result.arm,
            dsn=server.dsn,
            pool_size=result.pool_size,
            budget=shape.budget,
            members=shape.members,
            work=scenario.work,
            deadline=scenario.deadline,
            origin=origin,
        )
        replicas = stack.enter_context(Replicas(posting, _through(proxy, server), shape.clients * shape.budget))
        result.answers, result.samples = replicas.answers, sampler.samples
        result.apart, result.joined, result.failures = replicas.apart, replicas.joined, replicas.failed
        sampler.begin(origin)
        play = Play(result, replicas, proxy, origin, watch)
        play.all_ready(replicas.start(1))
        play.go_on(EARLY_SECONDS)
        coming = _scale_out(play, shape)
        if not result.arm.judged:
            play.go_on(BRIEF_SECONDS)
            result.not_ready = sum(one.ready is None for one in coming)
            return
        play.all_ready(coming)
        play.settle(f"1 to {shape.processes} processes", shape.settle)
        _kill(play, shape)
        _cut_off_and_deploy(play, shape)
        _scale_in(play, shape)


def _through(proxy: ChaosProxy, server: Server) -> str:
    return make_conninfo(server.dsn, host=proxy.host, hostaddr=proxy.host, port=proxy.port)


def _scale_out(play: Play, shape: ScaleOut) -> list[Replica]:
    play.mark(f"{shape.processes}")
    cut_off = shape.processes // CUT_EACH
    return play.replicas.start(shape.processes - 1 - cut_off) + play.replicas.start(cut_off, cut_off=True)


def _kill(play: Play, shape: ScaleOut) -> None:
    doomed = play.replicas.ready[1::KILL_EACH]
    play.result.killed = len(doomed)
    play.result.killed_at = play.mark("kill")
    play.replicas.kill(doomed)
    play.settle(f"{len(doomed)} killed", shape.settle)


def _cut_off_and_deploy(play: Play, shape: ScaleOut) -> None:
    """Every process is replaced; those that are cut off meanwhile come last.

    Cut off they keep what they have, and use nothing of it.
    """
    play.mark("cut off")
    begun = play.now
    play.proxy.silence()
    _replace(play, shape, [one for one in play.replicas.ready if not one.cut_off])
    play.go_on(begun + CUT * shape.settle - play.now)
    play.proxy.heal()
    play.mark("healed")
    play.go_on(HEALED_SECONDS)
    _replace(play, shape, [one for one in play.replicas.ready if one.cut_off])
    play.result.deploy = play.now - begun
    play.settle(f"{len(play.replicas.ready)} replaced", shape.settle)


def _replace(play: Play, shape: ScaleOut, old: list[Replica]) -> None:
    """As many as the surge allows are started, and for each that is ready an old one goes."""
    coming: list[Replica] = []
    left = len(old)
    while old:
        more = min(shape.surge - len(coming), left)
        coming += play.replicas.start(more)
        left -= more
        play.any_ready(coming)
        ready = [one for one in coming if one.ready]
        if not ready:
            play.result.not_ready += len(coming)
            return
        coming = [one for one in coming if one not in ready]
        play.replicas.stop(old[: len(ready)])
        del old[: len(ready)]


def _scale_in(play: Play, shape: ScaleOut) -> None:
    play.mark("1")
    play.replicas.stop(play.replicas.ready[1:])
    play.until(lambda: len(play.replicas.running) == 1, READY_SECONDS)
    play.settle("back to 1 process", shape.settle)
