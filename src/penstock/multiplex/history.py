"""What is known of a statement by its text: how long it takes the server, judged by how long others have taken."""

from __future__ import annotations

from collections import OrderedDict

GAIN = 1 / 128  # of the newest measurement; until there are as many, all count alike
UNKNOWN = 0.5  # of the target: what is expected of a text that was never met
MOST_TEXTS = 1000
LONGEST_TEXT = 4096  # characters; longer ones are made by programs, seldom the same twice, and not worth their memory


class Record:
    """What is known of one text. Times are seconds.

    :ivar alone: whether it was found to stand alone without parameters (True), with them (False).
    :ivar expected: that one takes the server: the mean.
    :ivar stuck: how many are under way for much longer than they should: waiting for a lock, for one.
    """

    __slots__ = ("_seen", "_target", "alone", "expected", "stuck")

    def __init__(self, target: float) -> None:
        self.alone: set[bool] = set()
        self.expected = UNKNOWN * target
        self.stuck = 0
        self._target = target
        self._seen = 0

    @property
    def slow(self) -> bool:
        """Whether the next one should have a connection to itself."""
        return self.stuck > 0 or self.expected > self._target

    def note(self, seconds: float, count: int = 1) -> None:
        """As many as *count* have taken *seconds* each."""
        self._seen += count
        self.expected += min(1.0, count * max(GAIN, 1 / self._seen)) * (seconds - self.expected)


class History:
    """Records of the texts met of late. *target*: seconds that nobody should wait behind others for longer."""

    def __init__(self, target: float) -> None:
        self._target = target
        self._records: OrderedDict[str, Record] = OrderedDict()

    def of(self, text: str) -> Record:
        """The record of *text*, a new one if it was not met before."""
        record = self._records.get(text)
        if record is None:
            record = Record(self._target)
            if len(text) <= LONGEST_TEXT:
                self._records[text] = record
            if len(self._records) > MOST_TEXTS:
                self._records.popitem(last=False)  # one that is still in use is soon known again
        return record
