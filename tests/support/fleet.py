"""A server, a network and the processes of a fleet, in virtual time: real pools, whose connections a model keeps.

Whatever takes time in truth takes time here, drawn anew each time: a dial until the server has the connection, and
again until the client knows; a saying on its way, the moment between saying and looking, the answer on its way back; a
goodbye until the server has let go. In each of these gaps anything may strike.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from random import Random
from typing import Any
from unittest.mock import patch

import penstock.fleet.member
from penstock import AsyncPool, Fleet, PoolError
from penstock.drivers.base import Status
from penstock.fleet import tag
from penstock.fleet.member import Member

from .fake import FakeConnection, FakeDriver, FakeError, virtual_pool
from .invariants import Broken
from .virtual import START, VirtualLoop

FORGOTTEN = 16.0  # seconds of silence after which the server gives a client up, as its keepalives are set
PATIENCE = 2.0  # seconds that a user waits for an answer
MACHINE: ContextVar[str] = ContextVar("MACHINE")  # whose tasks these are
SERVED = 0.0005  # seconds until a user asks again
REFUSED = 0.02  # and when there was no connection for it: to ask sooner changes nothing, and costs most of a run
LINGER = 1.0  # seconds for which a client waits to see the server let go


class Backend:
    """A connection as the server has it. *plain*: what it was named at login, and is again after a reset."""

    def __init__(self, wire: Any, process: "Process", name: str) -> None:
        self.wire = wire
        self.process = process
        self.name = self.plain = name


class Server:
    """Counts its connections: each that is added is the moment at which the line may be crossed.

    :ivar peak: the most that there ever were.
    """

    def __init__(self, loop: VirtualLoop, budget: int) -> None:
        self.loop = loop
        self.budget = budget
        self.backends: dict[int, Backend] = {}
        self.strangers = 0
        self.down = False
        self.peak = 0
        self.on_change: Callable[[], None] = lambda: None

    def add(self, number: int, backend: Backend) -> None:
        self.backends[number] = backend
        self.peak = max(self.peak, len(self.backends) + self.strangers)
        self.on_change()

    def rows(self, mine: int) -> list[tuple[str, int, bool, int]]:
        names: dict[str, list[int]] = {}
        for number, backend in self.backends.items():
            names.setdefault(backend.name, []).append(number)
        rows = [(name, len(numbers), mine in numbers, mine) for name, numbers in names.items()]
        return rows + ([("psql", self.strangers, False, mine)] if self.strangers else [])

    def end(self, number: int) -> None:
        """The server ends a connection; its client is told as soon as it can be."""
        backend = self.backends.pop(number, None)
        if backend is not None:
            self.loop.create_task(backend.process.tell_of_end(backend.wire))

    def of(self, process: "Process") -> list[int]:
        return [number for number, backend in self.backends.items() if backend.process is process]


class Driver(FakeDriver):
    """A process's, over its machine's network."""

    def __init__(self, process: "Process") -> None:
        super().__init__(True, process.loop.time)
        self.process = process
        self.server = process.server

    async def connect(
        self, conninfo: str, kwargs: Mapping[str, Any], *, timeout: float, settings: Mapping[str, str]
    ) -> FakeConnection:
        process, server = self.process, self.server
        process.dials += 1
        await process.travel()
        if server.down:
            raise FakeError("connection refused")
        number = process.world.number()
        conn = FakeConnection(self, number)
        conn.name = kwargs["application_name"]  # type: ignore[attr-defined]
        server.add(number, Backend(conn.wire, process, kwargs["application_name"]))
        try:
            await process.travel()
        except BaseException:
            self._hang_up(number)
            raise
        if conn.wire.ended:
            raise FakeError("server closed the connection")
        return conn

    async def ask(self, conn: Any, query: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        process, name = self.process, params[0]
        conn.status = Status.ACTIVE
        await self._go(conn)
        self.server.backends[conn.number].name = name
        self.server.on_change()
        await asyncio.sleep(process.random.choice((0.0, 0.0, 0.001)))  # between saying and looking
        rows = self.server.rows(conn.number)
        await self._go(conn)
        self.server.on_change()
        conn.name = name
        conn.status = Status.IDLE
        return rows

    async def _go(self, conn: Any) -> None:
        travel = asyncio.ensure_future(self.process.travel())
        try:
            while not travel.done():
                await asyncio.wait([travel], timeout=0.05)
                if conn.wire.ended:
                    break
        finally:
            travel.cancel()
        if conn.wire.ended or conn.number not in self.server.backends:
            conn.end()
            conn.use()

    def told(self, conn: Any, setting: str) -> str | None:
        return conn.name  # type: ignore[no-any-return]

    def probe(self, conn: FakeConnection) -> Callable[[int], object]:
        wire = conn.wire
        return lambda _: [(1, 1)] if wire.ended else []

    def backend(self, conn: Any) -> int:
        return int(conn.number)

    async def statement(self, conn: Any) -> None:
        """A round trip; its user gives up after a while, and the connection with it."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._go(conn)
        except TimeoutError:
            self.abort(conn)
            conn.use()

    async def _round_trip(self, conn: FakeConnection) -> None:
        await self._go(conn)

    async def close(self, conn: FakeConnection) -> int | None:
        gone = self._hang_up(conn.number)
        if not conn.wire.ended:
            await asyncio.wait([gone], timeout=LINGER)
        conn.end()
        conn.status = Status.BROKEN
        return None

    def abort(self, conn: FakeConnection) -> None:
        self._hang_up(conn.number)
        conn.end()

    def abandon(self, conn: FakeConnection) -> int | None:
        self.abort(conn)
        return None

    def _hang_up(self, number: int) -> asyncio.Task[None]:
        async def goodbye() -> None:
            await self.process.travel()
            self.server.backends.pop(number, None)

        return self.process.loop.create_task(goodbye())


class Process:
    """One process of a fleet: its pool, and as many tasks that borrow from it."""

    def __init__(self, world: "World", machine: str, fleet: Fleet, **options: Any) -> None:
        self.world = world
        self.loop, self.server, self.random = world.loop, world.server, world.random
        self.machine = machine
        self.open_way = asyncio.Event()  # clear: nothing comes through, or the process does not run
        self.open_way.set()
        self.never = asyncio.Event()
        self.cut_at: float | None = None
        self.dead = False
        self.dials = 0
        self.workers: list[asyncio.Task[None]] = []
        self.waits: dict[asyncio.Task[Any], float] = {}
        self.driver = Driver(self)
        options = {"min_size": 1, "leak_after": None, "timeout": 600.0, **options}
        self.pool: AsyncPool[Any] = virtual_pool(world.loop, self.driver, fleet=fleet, **options)

    @property
    def member(self) -> Member:
        membership = self.pool._membership
        assert isinstance(membership, Member)
        return membership

    @property
    def in_touch(self) -> bool:
        return self.open_way.is_set() and not self.dead

    async def travel(self) -> None:
        """A message's way: its time, and however long the network or the process stands still."""
        await asyncio.sleep(self.random.choice((0.001, 0.002, 0.01)))
        while not self.in_touch:
            if self.dead:
                await self.never.wait()
            await self.open_way.wait()

    async def tell_of_end(self, wire: Any) -> None:
        await self.travel()
        wire.ended = True

    async def start(self, workers: int, seconds: float) -> None:
        await self.pool.open()
        self.work(workers, seconds)

    def work(self, workers: int, seconds: float) -> None:
        context = copy_context()
        context.run(MACHINE.set, self.machine)  # what a task spawns in the pool is this machine's too
        self.workers += [self.loop.create_task(self._work(seconds), context=context) for _ in range(workers)]

    async def _work(self, seconds: float) -> None:
        me = asyncio.current_task()
        assert me is not None
        while True:
            self.waits[me] = self.loop.time()
            pause = REFUSED
            with suppress(PoolError, FakeError):
                async with self.pool.connection() as conn:
                    del self.waits[me]
                    pause = SERVED
                    await asyncio.sleep(seconds * (0.5 + self.random.random()))
                    await self.driver.statement(conn)
            await asyncio.sleep(pause)

    def rest(self) -> None:
        for worker in self.workers:
            worker.cancel()
        self.workers.clear()
        self.waits.clear()

    def kill(self) -> None:
        """As SIGKILL does: the kernel says goodbye for it."""
        self.dead = True
        self.rest()
        self.member.end()
        for task in self.pool._connecting:
            task.cancel()
        for number in self.server.of(self):
            self.loop.call_later(self.random.choice((0.0, 0.002)), self.server.backends.pop, number, None)

    def cut(self, asleep: bool = False) -> None:
        """Cut off: from here on nothing goes in or out. *asleep*: it does not run, while its kernel does."""
        self.cut_at = at = self.loop.time()
        self.open_way.clear()
        if not asleep:
            self.loop.call_later(FORGOTTEN, lambda: self._forgotten(at))

    def heal(self) -> None:
        self.cut_at = None
        self.open_way.set()

    def _forgotten(self, cut_at: float) -> None:
        if self.cut_at == cut_at:
            for number in self.server.of(self):
                self.server.end(number)

    def reset_names(self) -> None:
        """Its user says RESET ALL on each of its connections."""
        for number in self.server.of(self):
            backend = self.server.backends[number]
            backend.name = backend.plain
        for slot in self.pool._core.slots.values():
            conn: Any = slot.conn if slot.conn is not None else slot.ref and slot.ref()
            if conn is not None and conn.status is Status.IDLE:
                found = tag.read(self.world.fleet.name, conn.name)
                assert found is not None
                conn.name = tag.write(self.world.fleet.name, found[0], self.world.fleet.service)


class World:
    """All of it. Each machine has one gate."""

    def __init__(self, loop: VirtualLoop, random: Random, fleet: Fleet, strict: bool = True) -> None:
        self.loop = loop
        self.random = random
        self.fleet = fleet
        self.server = Server(loop, fleet.budget)
        self.server.on_change = self.check
        self.processes: list[Process] = []
        self.strict = strict
        self.broken: Broken | None = None
        self._numbers = 0

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if not process.dead]

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    async def join(self, workers: int, seconds: float = 0.05, machine: str = "one", **options: Any) -> Process:
        process = Process(self, machine, self.fleet, **options)
        self.processes.append(process)
        token = MACHINE.set(machine)
        await process.start(workers, seconds)
        MACHINE.reset(token)
        return process

    @property
    def in_use(self) -> int:
        return sum(process.pool._core.leased for process in self.alive)

    def check(self) -> None:
        """Note the first time that the line is crossed. To raise here would only end a task of some pool."""
        counts = Counter(backend.process for backend in self.server.backends.values())
        claims = [max(counts[process], self._may_have(process)) for process in self.processes]
        if self.strict and self.broken is None and sum(claims) + self.server.strangers > self.fleet.budget:
            now = self.loop.time() - START
            self.broken = Broken(f"9: {claims} of {self.fleet.budget} after {now:.3f} s: {self.server.rows(0)}")

    def _may_have(self, process: Process) -> int:
        """What it would open without asking anybody."""
        return process.member.share if not process.dead and process.member._may_open() else 0


@contextmanager
def simulated(loop: VirtualLoop, random: Random) -> Iterator[None]:
    """The fleet's clock is the loop's, chance can be repeated, and a machine's gate is no file."""
    held: set[str] = set()

    @contextmanager
    def gate(_: str) -> Iterator[bool]:
        machine = MACHINE.get()
        if machine in held:
            yield False
            return
        held.add(machine)
        try:
            yield True
        finally:
            held.discard(machine)

    with (
        patch.object(penstock.fleet.member, "_clock", loop.time),
        patch.object(penstock.fleet.member, "_chance", random.random),
        patch.object(penstock.fleet.member, "gate", gate),
        patch.object(tag, "new_member", lambda: f"{random.randrange(16**8):08x}"),
    ):
        yield
