"""The core against a reference model that is too simple to be wrong: after each event both must show the same pool."""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.core import SLOW, Reason, Settings, Slot
from support.model import Model
from test_schedules import SHARERS, SharingShell

SIZES = st.tuples(st.integers(0, 3), st.integers(1, 5)).map(lambda sizes: (min(sizes), max(sizes)))
DRAW = st.data()


class PoolMachine(RuleBasedStateMachine):
    """Each rule is one event, told to the core and to the model."""

    shell: SharingShell
    model: Model

    @initialize(sizes=SIZES)
    def open(self, sizes: tuple[int, int]) -> None:
        self.shell = SharingShell(Settings(min_size=sizes[0], max_size=sizes[1]))
        self.shell.event(self.shell.core.open)
        self.model = Model(*sizes)
        self.borrowers = 0

    @rule()
    def ask(self) -> None:
        self.borrowers += 1
        waiter = self.shell.acquire(self.borrowers)
        assert (waiter.refusal is None) == self.model.ask(self.borrowers)
        self.collect()

    @rule()
    def ask_to_share(self) -> None:
        self.borrowers += 1
        waiter = self.shell.ask_to_share(self.borrowers)
        assert (waiter.refusal is None) == self.model.ask(self.borrowers, shares=True)
        self.collect()

    @rule()
    def ask_slow(self) -> None:
        self.borrowers += 1
        waiter = self.shell.acquire(self.borrowers, key=SLOW)
        assert (waiter.refusal is None) == self.model.ask(self.borrowers, slow=True)
        self.collect()

    @rule()
    def take(self) -> None:
        """The way without the lock gives what the other would give at once, or nothing."""
        self.borrowers += 1
        if self.shell.take(self.borrowers) is not None:
            assert self.model.ask(self.borrowers)

    @precondition(lambda self: self.shell.open_to_others())
    @rule(draw=DRAW)
    def share(self, draw: st.DataObject) -> None:
        slot = draw.draw(st.sampled_from(self.shell.open_to_others()))
        assert self.shell.share(slot) == self.model.share(slot.number)

    @precondition(lambda self: self.shell.queue)
    @rule(draw=DRAW)
    def cancel(self, draw: st.DataObject) -> None:
        waiter = draw.draw(st.sampled_from(self.shell.queue))
        self.shell.cancel(waiter)
        self.model.cancel(waiter.owner)
        self.collect()

    @precondition(lambda self: self.shell.held)
    @rule(draw=DRAW, good=st.booleans())
    def give_back(self, draw: st.DataObject, good: bool) -> None:
        slot = draw.draw(st.sampled_from(list(self.shell.held)))
        if self.shell.shared.get(slot):
            self.shell.answered(slot, len(self.shell.shared[slot]))
        if good:
            self.shell.give(slot)
        elif slot in self.shell.shared:
            self.shell.end(slot, Reason.UNCLEAN)
        else:
            self.shell.discard(slot, Reason.UNCLEAN)
        self.model.back(slot.number, good)
        self.collect()

    @precondition(lambda self: self.shell.to_open)
    @rule(draw=DRAW)
    def opened(self, draw: st.DataObject) -> None:
        slot = draw.draw(st.sampled_from(self.shell.to_open))
        self.shell.opened(slot)
        self.model.opened(slot.number)
        self.collect()

    @precondition(lambda self: self.shell.to_close)
    @rule(draw=DRAW)
    def closed(self, draw: st.DataObject) -> None:
        slot = draw.draw(st.sampled_from(self.shell.to_close))
        self.shell.closed(slot)
        self.model.gone(slot.number)

    @rule(sizes=SIZES)
    def resize(self, sizes: tuple[int, int]) -> None:
        self.shell.event(self.shell.core.resize, *sizes)
        self.model.resize(*sizes)
        self.collect()

    @rule()
    def drain(self) -> None:
        self.shell.event(self.shell.core.drain)
        self.model.drain()

    @rule()
    def pause(self) -> None:
        self.shell.core.pause()
        self.model.pause(True)

    @rule()
    def resume(self) -> None:
        self.shell.event(self.shell.core.resume)
        self.model.pause(False)
        self.collect()

    @precondition(lambda self: self.borrowers > 20)
    @rule()
    def close(self) -> None:
        self.shell.close()
        self.model.close()

    def collect(self) -> None:
        for waiter in list(self.shell.served):
            self.shell.collect(waiter)
        self.model.collect()

    @invariant()
    def both_show_the_same_pool(self) -> None:
        shell, model = self.shell, self.model
        assert [waiter.owner for waiter in shell.core.waiters if not waiter.aside] == model.queue
        assert sorted(waiter.owner for waiter in shell.core.waiters if waiter.aside) == model.aside
        assert {slot.number for slot in shell.held} == model.lent.keys()
        assert all(owner in (SHARERS, model.lent[slot.number]) for slot, owner in shell.held.items())
        assert numbers(shell.core.idle) == model.idle
        assert sorted(numbers(shell.to_open)) == sorted(model.opening)
        assert sorted(numbers(shell.to_close)) == sorted(model.closing)

    def teardown(self) -> None:
        self.shell.come_to_rest()


def numbers(slots: list[Slot]) -> list[int]:
    return [slot.number for slot in slots]


TestPool: Any = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=300, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
