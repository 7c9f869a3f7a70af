"""What a pool is, without clock, pace or accounts: small enough to be seen to be right at one look.

Connections are numbers, in the order in which they are opened; borrowers in the order in which they come. A connect is
as quick as the one before it, so as many are opened as there are borrowers whom none under way will serve.

Some share: they have a connection together, as long as whoever is next shares too. Some are slow: they never have the
last connection, and who is next and may not have one stands aside until another slow one is done.
"""

from bisect import insort


class Model:
    def __init__(self, minimum: int, maximum: int) -> None:
        self.minimum, self.maximum = minimum, maximum
        self.queue: list[int] = []
        self.aside: list[int] = []
        self.idle: list[int] = []  # the one that came back last is at the end, and goes first
        self.lent: dict[int, int] = {}  # connection to borrower, the first of those who share it
        self.opening: list[int] = []
        self.closing: list[int] = []
        self.doomed: set[int] = set()  # lent, or being opened, when the pool was drained
        self.sharing: set[int] = set()  # borrowers who share
        self.shared: set[int] = set()  # connections
        self.slow: set[int] = set()
        self.called: set[int] = set()  # back, from standing aside
        self.paused = self.closed = False
        self.last = 0
        self.grow()

    @property
    def usable(self) -> int:
        return len(self.idle) + len(self.lent) + len(self.opening)

    @property
    def most_slow(self) -> int:
        return max(1, self.maximum - 1)

    @property
    def slow_are_enough(self) -> bool:
        return len(self.slow & {*self.lent.values()}) >= self.most_slow

    def ask(self, borrower: int, shares: bool = False, slow: bool = False) -> bool:
        """False: refused at once."""
        if shares:
            self.sharing.add(borrower)
        if slow:
            self.slow.add(borrower)
        if self.closed:
            return False
        self.queue.append(borrower)
        self.serve()
        if borrower in self.queue:
            self.grow()
        return True

    def collect(self) -> None:
        """Whoever was served knows it: what was lent to one who shares is open to others."""
        self.shared = {number for number, borrower in self.lent.items() if borrower in self.sharing}

    def cancel(self, borrower: int) -> None:
        (self.aside if borrower in self.aside else self.queue).remove(borrower)
        if borrower in self.slow and not self.slow_are_enough:
            self.call_back()
        self.serve()

    def share(self, number: int) -> bool:
        """Whether the next one shares this connection with whom it is lent to."""
        if self.paused or not self.good(number):
            return False
        while self.queue and self.queue[0] not in self.sharing and self.must_stand_aside():
            pass
        if not self.queue or self.queue[0] not in self.sharing:
            return False
        self.queue.pop(0)
        return True

    def back(self, number: int, good: bool) -> None:
        if self.lent.pop(number) in self.slow:
            self.call_back()
        self.place(number, good and self.good(number, back=1))

    def opened(self, number: int) -> None:
        self.opening.remove(number)
        self.place(number, self.good(number, back=1))
        self.grow()

    def good(self, number: int, back: int = 0) -> bool:
        """*back*: that it is nobody's at the moment, and not counted as usable."""
        return not self.closed and number not in self.doomed and self.usable + back <= self.maximum

    def place(self, number: int, good: bool) -> None:
        (self.idle if good else self.closing).append(number)
        self.serve()

    def gone(self, number: int) -> None:
        self.closing.remove(number)
        self.grow()

    def resize(self, minimum: int, maximum: int) -> None:
        before = self.most_slow
        self.minimum, self.maximum = minimum, maximum
        for _ in range(self.most_slow - before):
            self.call_back()
        self.serve()
        while self.usable > maximum and self.idle:
            self.closing.append(self.idle.pop(0))
        self.grow()

    def drain(self) -> None:
        self.doomed |= {*self.lent, *self.opening}
        self.closing += self.idle
        self.idle.clear()
        self.grow()

    def pause(self, paused: bool) -> None:
        self.paused = paused
        if not paused:
            self.serve()
            self.grow()

    def close(self) -> None:
        self.closed = True
        self.closing += self.idle
        self.idle.clear()
        self.queue.clear()
        self.aside.clear()

    def serve(self) -> None:
        while self.queue and self.idle and not self.paused:
            if not self.must_stand_aside():
                self.lent[self.idle.pop()] = self.queue.pop(0)

    def must_stand_aside(self) -> bool:
        """Whoever is next."""
        must = self.queue[0] in self.slow and self.slow_are_enough
        if must:
            insort(self.aside, self.queue.pop(0))
        return must

    def call_back(self) -> None:
        """The first of those who stand aside is next, after those called back before it."""
        if self.aside:
            borrower = self.aside.pop(0)
            self.called.add(borrower)
            self.queue.insert(sum(other in self.called for other in self.queue), borrower)

    def grow(self) -> None:
        while not self.closed and self.usable + len(self.closing) < self.maximum and self.wants_more():
            self.last += 1
            self.opening.append(self.last)

    def wants_more(self) -> bool:
        """All who share may find room on one, and need none where some share one already."""
        if not self.queue or self.paused:
            return self.usable < self.minimum
        whole = len([borrower for borrower in self.queue if borrower not in self.sharing])
        if not whole and self.shared & self.lent.keys():
            return False
        return whole + (whole < len(self.queue)) > len(self.opening)
