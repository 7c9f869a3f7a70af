"""What a pool is, without clock, pace or accounts: small enough to be seen to be right at one look.

Connections are numbers, in the order in which they are opened; borrowers are whatever they are called. Every connect is
as quick as the one before it, so as many are opened as there are borrowers whom none under way will serve.
"""


class Model:
    def __init__(self, minimum: int, maximum: int) -> None:
        self.minimum, self.maximum = minimum, maximum
        self.queue: list[int] = []
        self.idle: list[int] = []  # the one that came back last is at the end, and goes first
        self.lent: dict[int, int] = {}  # connection to borrower
        self.opening: list[int] = []
        self.closing: list[int] = []
        self.doomed: set[int] = set()  # lent, or being opened, when the pool was drained
        self.paused = self.closed = False
        self.last = 0
        self.grow()

    @property
    def usable(self) -> int:
        return len(self.idle) + len(self.lent) + len(self.opening)

    def ask(self, borrower: int) -> bool:
        """False: refused at once."""
        if self.closed:
            return False
        self.queue.append(borrower)
        self.serve()
        if borrower in self.queue:
            self.grow()
        return True

    def cancel(self, borrower: int) -> None:
        self.queue.remove(borrower)

    def back(self, number: int, good: bool) -> None:
        del self.lent[number]
        self.place(number, good and number not in self.doomed)

    def opened(self, number: int) -> None:
        self.opening.remove(number)
        self.place(number, number not in self.doomed)
        self.grow()

    def place(self, number: int, good: bool) -> None:
        if good and not self.closed and self.usable < self.maximum:
            self.idle.append(number)
        else:
            self.closing.append(number)
        self.serve()

    def gone(self, number: int) -> None:
        self.closing.remove(number)
        self.grow()

    def resize(self, minimum: int, maximum: int) -> None:
        self.minimum, self.maximum = minimum, maximum
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

    def serve(self) -> None:
        while self.queue and self.idle and not self.paused:
            self.lent[self.idle.pop()] = self.queue.pop(0)

    def grow(self) -> None:
        while not self.closed and self.usable + len(self.closing) < self.maximum and self.wants_more():
            self.last += 1
            self.opening.append(self.last)

    def wants_more(self) -> bool:
        if self.queue and not self.paused:
            return len(self.queue) > len(self.opening)
        return self.usable < self.minimum
