"""The invariants of DESIGN.md as checks of a core, to be made after each event."""

from collections import Counter

from penstock.core import Core, Priority, State, Waiter


class Broken(AssertionError):
    """An invariant does not hold."""


class Invariants:
    """Watches one core. Remembers its last size: after a resize a surplus may live on, but never grow."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.size = 0

    def check(self) -> None:
        """:raises Broken: saying which invariant, and what was found."""
        core = self.core
        waiters = list(core.waiters)  # once: most of the time of a million schedules is spent in here
        self._never_above_the_limit(core)
        self._every_slot_has_one_owner(core)
        if waiters:
            self._nobody_waits_beside_an_idle_connection(core, waiters)
            self._nobody_stands_aside_in_vain(core, waiters)
        for waiter in waiters:
            if waiter.settled:
                raise Broken(f"3: a settled waiter still waits: {waiter.slot or waiter.refusal}")

    def _never_above_the_limit(self, core: Core) -> None:
        size = len(core.slots)
        if size > core.max_size and size > self.size:
            raise Broken(f"1: grown from {self.size} to {size} above the limit of {core.max_size}")
        self.size = size

    def _nobody_waits_beside_an_idle_connection(self, core: Core, waiters: list[Waiter]) -> None:
        """That it may have. One rests beside everybody while the pool is paused, or while a sick database is tried by
        few; beside all but HIGH where no more than the reserve is left; beside those whose key has its share.
        """
        if not core.idle or core.paused or core.breaker.sick:
            return
        only_high = core.leased >= core.max_size - core.reserve
        for waiter in waiters:
            has_its_share = waiter.aside and core.has_its_share(waiter.key)
            if not has_its_share and (waiter.priority == Priority.HIGH or not only_high):
                raise Broken(f"3: {len(waiters)} wait beside {len(core.idle)} idle connections")

    def _nobody_stands_aside_in_vain(self, core: Core, waiters: list[Waiter]) -> None:
        """Those of a key who wait in turn, and those who have a connection, are as many as may, or nobody is aside."""
        aside = {waiter.key for waiter in waiters if waiter.aside}
        if not aside:
            return
        in_turn = Counter(waiter.key for waiter in waiters if not waiter.aside)
        for key in aside:
            share = core.share_of(key)
            if share is None or core._tenants[key] + in_turn[key] < share:
                raise Broken(f"3: of {key} some stand aside, {core._tenants[key]} have a connection, {share} may")

    def _every_slot_has_one_owner(self, core: Core) -> None:
        states = [slot.state for slot in core.slots.values()]
        if State.GONE in states:
            raise Broken("2: a slot that has gone is still counted")
        if len(set(core.idle)) != len(core.idle):
            raise Broken(f"2: idle twice: {core.idle}")
        for slot in core.idle:
            if slot.state is not State.IDLE or core.slots.get(slot.number) is not slot:
                raise Broken(f"2: {slot!r} among the idle ones")
        if (
            states.count(State.IDLE) != len(core.idle)
            or states.count(State.OPENING) != len(core.opening)
            or states.count(State.CLOSING) != core.closing
            or states.count(State.LEASED) != core.leased
        ):
            counted = f"{len(core.idle)}, {len(core.opening)}, {core.closing} and {core.leased}"
            raise Broken(f"2: slots are {states}; idle, opening, closing and leased were counted as {counted}")


def check_at_rest(core: Core) -> None:
    """Nothing is under way and nobody holds anything. :raises Broken: when something was lost on the way."""
    if core._tenants or core._waiting_owners:
        raise Broken(f"nothing lost: keys hold {dict(core._tenants)}, {dict(core._waiting_owners)} wait, as counted")
    if core.waiters:
        raise Broken(f"nothing lost: {len(core.waiters)} still wait")
    if len(core.idle) != len(core.slots):
        raise Broken(f"nothing lost: of {list(core.slots.values())} only {core.idle} are idle")
    if core.closed and core.slots:
        raise Broken(f"nothing lost: {core.slots} after close")
    if not core.closed and not core.min_size <= len(core.slots) <= core.max_size:
        raise Broken(f"nothing lost: {len(core.slots)} connections, not {core.min_size} to {core.max_size}")


def lost(core: Core) -> str | None:
    """What `check_at_rest` would raise, in words; None when all is well."""
    try:
        check_at_rest(core)
    except Broken as broken:
        return str(broken)
    return None
