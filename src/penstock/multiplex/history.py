"""What is known of a statement by its text: how long it takes the server, judged by how long others have taken.

The mean tells how long others wait in a row behind such statements. It hides the text that is quick ninety-nine times
and slow once, of which that one keeps all behind it waiting: such a text is erratic. Not every slow one makes it so, as
now and then the machine is at fault.
"""

from __future__ import annotations

from collections import OrderedDict

GAIN = 1 / 128  # of the newest measurement; until there are as many, all count alike
RARE = 1 / 200  # of the statements of a text may be slow
RARE_GAIN = 1 / 256
UNKNOWN = 0.5  # of the target: what is expected of a text that was never met
MOST_TEXTS = 1000


class Record:
    """What is known of one text. Times are seconds.

    :ivar mean: that one takes the server.
    :ivar expected: that others should expect to wait for one.
    :ivar alone: whether it was found to stand alone without parameters (True), with them (False).
    :ivar erratic: quick mostly, and slow too often for anybody to wait behind it.
    """

    __slots__ = ("_seen", "_slow", "_target", "alone", "erratic", "expected", "mean")

    def __init__(self, target: float) -> None:
        self.expected = UNKNOWN * target
        self.alone: set[bool] = set()
        self.mean = 0.0
        self.erratic = False
        self._target = target
        self._slow = 0.0  # share of those that take longer than the target
        self._seen = 0

    def note(self, seconds: float, count: int = 1) -> None:
        """As many as *count* have taken *seconds* each."""
        self._seen += count
        self.mean += min(1.0, count * max(GAIN, 1 / self._seen)) * (seconds - self.mean)
        self._slow += min(1.0, count * max(RARE_GAIN, 1 / self._seen)) * ((seconds > self._target) - self._slow)
        self.erratic = self._slow > RARE
        self.expected = max(self.mean, 2 * self._target) if self.erratic else self.mean


class History:
    """Records of the texts met of late. *target*: seconds that nobody should wait behind others for longer."""

    def __init__(self, target: float) -> None:
        self._target = target
        self._records: OrderedDict[str, Record] = OrderedDict()

    def of(self, text: str) -> Record:
        """The record of *text*, a new one if it was not met before."""
        record = self._records.get(text)
        if record is None:
            record = self._records[text] = Record(self._target)
            if len(self._records) > MOST_TEXTS:
                self._records.popitem(last=False)  # one that is still in use is soon known again
        return record
