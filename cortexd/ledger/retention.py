"""The closed segments: how much room they take, and which of them are old enough to go.

Nobody's balance is in them: the newest segment begins with a snapshot of everything, and only it is
read at start. What goes with an old segment is the history of its requests.

Owns the list of closed segments and the choice. Refuses to know accounts, and what to do when the
disk fails while a removal is made durable: OSError goes to the caller.
"""

# Theory of operation
# ===================
#
# A segment was closed when the next one began, and that one's header says when, in ledger time:
# neither steps of the wall clock nor the time stamps of a file system have a say. Only the header
# of the segment after the oldest one is ever needed, so that a start reads one or two of them,
# however many segments there are. Their number and sizes are counted at start and kept up to date.
#
# The oldest goes first, and each removal is durable before the next one is made. What a power loss
# leaves is always an unbroken row up to the newest, and a gap in it means that somebody else was
# there. The newest segment and its predecessor always stay: the latter is what the digest in the
# newest one's header is of, and so what shows that the row is the one that was written.
#
# Where the disk has too little room for new reservations, history goes before anybody is refused:
# the same files in the same way, whatever the retention says. If all of it together would not make
# enough room, it stays: it would be lost for nothing.

from collections import deque
from collections.abc import Callable

import msgspec

from cortexd.ledger.disk import Disk
from cortexd.ledger.records import Misread, header_of
from cortexd.ledger.segment import Segment, segment_name, segment_numbers

_HEADER_BYTES_MAX = 4096


class Retention(msgspec.Struct, frozen=True):
    """How long history is kept: until it is `age_ms` old, or all segments exceed `size_bytes`.

    0: no such limit.
    """

    age_ms: int = 90 * 24 * 3_600_000
    size_bytes: int = 2 << 30


class DiskUse(msgspec.Struct, frozen=True):
    """What the journal takes on its disk. `free_bytes`: what is left there, None: unknown."""

    segments: int
    size_bytes: int
    free_bytes: int | None


class Removed(msgspec.Struct, frozen=True):
    """What was removed: numbers of the segments, the oldest first, and their size together.

    `obstacle`: why the next one, which should have gone too, is still there; None if it is not.
    """

    numbers: tuple[int, ...]
    size_bytes: int
    obstacle: OSError | None


class _Closed(msgspec.Struct, frozen=True):
    number: int
    size_bytes: int


class ClosedSegments:
    """The closed segments in a directory. All methods block."""

    def __init__(self, disk: Disk, retention: Retention) -> None:
        """Count the segments that are there: before a new one is begun, all are closed."""
        self._disk = disk
        self._retention = retention
        self._closed: deque[_Closed] = deque()
        self._oldest_closed_ms: int | None = None  # None: not looked up yet
        self._is_stuck = False  # the oldest could not be removed
        self.size_bytes = 0
        for number in segment_numbers(disk.names()):
            self.add(number, disk.size_bytes(segment_name(number)))

    def __len__(self) -> int:
        return len(self._closed)

    def add(self, number: int, size_bytes: int) -> None:
        """Segment `number` was closed, the newest of all."""
        self._closed.append(_Closed(number, size_bytes))
        self.size_bytes += size_bytes

    def remove_old(self, now_ms: int, newest: Segment, *, at_most: int) -> Removed:
        """Remove segments that need not be kept at `now_ms`, durably; no more than `at_most`.

        `newest`: the one that is being written. Raises OSError only where the directory cannot be
        synced.
        """
        return self._remove_while(lambda _: self._is_too_much(now_ms, newest), at_most)

    def remove_for_room(self, missing_bytes: int, *, at_most: int) -> Removed:
        """Remove segments until so many bytes are freed, durably; no more than `at_most` of them.

        None of them if `history_bytes` is less than that. Raises OSError as `remove_old` does.
        """
        if self.history_bytes < missing_bytes:
            return Removed((), 0, None)
        return self._remove_while(lambda freed_bytes: freed_bytes < missing_bytes, at_most)

    @property
    def history_bytes(self) -> int:
        """How much `remove_for_room` could free: nothing where a removal was just refused."""
        if self._is_stuck or not self._closed:
            return 0
        return self.size_bytes - self._closed[-1].size_bytes

    def _remove_while(self, is_wanted: Callable[[int], bool], at_most: int) -> Removed:
        """Remove the oldest while `is_wanted(bytes freed so far)`; never the last closed one."""
        numbers: list[int] = []
        freed_bytes = 0
        while len(numbers) < at_most and len(self._closed) > 1 and is_wanted(freed_bytes):
            oldest = self._closed[0]
            try:
                self._disk.remove(segment_name(oldest.number))
            except FileNotFoundError:
                pass  # an operator has moved it away, as the manual allows
            except OSError as error:
                self._is_stuck = True
                return Removed(tuple(numbers), freed_bytes, error)
            self._is_stuck = False
            self._disk.sync_directory()
            self._closed.popleft()
            self._oldest_closed_ms = None
            self.size_bytes -= oldest.size_bytes
            numbers.append(oldest.number)
            freed_bytes += oldest.size_bytes
        return Removed(tuple(numbers), freed_bytes, None)

    def _is_too_much(self, now_ms: int, newest: Segment) -> bool:
        keep = self._retention
        if keep.size_bytes and self.size_bytes + newest.size_bytes > keep.size_bytes:
            return True
        return bool(keep.age_ms) and now_ms - self._closed_ms(newest) > keep.age_ms

    def _closed_ms(self, newest: Segment) -> int:
        """Ledger time at which the oldest segment was closed.

        Where the next segment's header cannot be read, it is the time of the first that can.
        """
        if self._oldest_closed_ms is None:
            later = [closed.number for closed in self._closed][1:]
            begun = (self._begun_ms(number) for number in later)
            self._oldest_closed_ms = next((ms for ms in begun if ms is not None), None)
        return newest.header.lt if self._oldest_closed_ms is None else self._oldest_closed_ms

    def _begun_ms(self, number: int) -> int | None:
        try:
            start = self._disk.read(segment_name(number), _HEADER_BYTES_MAX)
            header = header_of(start.partition(b"\n")[0])
        except (OSError, Misread):
            return None
        return None if header is None else header.lt
