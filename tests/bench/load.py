"""The load generator: one epoll loop, as its own process, that does one order after the other.

    python -m tests.bench.load

Prints `listening load -`, reads an `Order` as a line of JSON, writes its `Outcome` as another, and
ends with its input. Each connection sends its next request when the answer to the last one is
whole. Nothing is counted before every connection has had an answer (a paced stream: an event), and
the CPU time of the watched process is read by the same hand at both ends of the window.
"""

import contextlib
import re
import select
import socket
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from tests.bench import observed, traffic
from tests.bench.traffic import Order, Outcome

WARM_SECONDS_MAX = 15
_WHY_CHARACTERS_MAX = 100
_RECEIVE_BYTES = 262_144
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_STAMP = b'"content":"'
_STAMP_BYTES = len(_STAMP) + len("00000 00000000000000000000")
_FRAME = re.compile(rb"\r\n[0-9a-fA-F]{1,8}\r\n")
"""Between two HTTP chunks; no event has such a line in it."""

_FRAME_BYTES_MAX = 12
_CUT_BYTES = 24
"""What may have to be seen again: the beginning of a stamp, and a frame within it."""

_WORD = b'"content":" '
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_PATIENCE_SECONDS = 0.05


class Tally:
    """What is counted of one order; `begin_window` forgets what came before."""

    def __init__(self) -> None:
        self.failures = 0
        self.begin_window()

    def begin_window(self) -> None:
        """Count from here. Failures stay: there should be none at all."""
        self.answers = self.chunks = 0
        self.latencies_ns = array("q")
        self.gaps_ns = array("q")


def percentile_us(nanoseconds: Sequence[int], share: float) -> float:
    """What this share of them does not exceed; 0 without any."""
    ordered = sorted(nanoseconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000 if ordered else 0


class GaveUp(Exception):
    """Why there is nothing to tell of an order."""


class _Reader(Protocol):
    """Reads one answer; made anew for each."""

    @property
    def has_event(self) -> bool:
        """Whether an event of a stream without an end has come."""

    def feed(self, data: bytes, tally: Tally) -> bool:
        """Take what came; True when the answer is whole."""


class _Plain:
    has_event = False

    def __init__(self) -> None:
        self._received = b""
        self._size = 0

    def feed(self, data: bytes, tally: Tally) -> bool:
        self._received += data
        if not self._size:
            end = self._received.find(b"\r\n\r\n")
            length = _LENGTH.search(self._received, 0, end) if end > 0 else None
            if length is None:
                return False
            self._size = end + 4 + int(length[1])
        if len(self._received) < self._size:
            return False
        tally.failures += not self._received.startswith(b"HTTP/1.1 200")
        return True


class _Stream:
    """Keeps everything and looks at it once more at the end: every event must have come."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._counted = 0

    @property
    def has_event(self) -> bool:
        return self._counted > 0

    def feed(self, data: bytes, tally: Tally) -> bool:
        self._pieces.append(data)
        self._count(data.count(_WORD), tally)
        tail = data if len(data) >= len(_LAST_CHUNK) else b"".join(self._pieces[-8:])
        if not tail.endswith(_LAST_CHUNK):
            return False
        whole = b"".join(self._pieces)
        if whole.count(_WORD) != traffic.STREAM_TOKENS:
            whole = _without_chunks(whole)
        found = whole.count(_WORD)
        self._count(found - self._counted, tally)
        tally.failures += abs(traffic.STREAM_TOKENS - found) + (b"data: [DONE]" not in whole)
        return True

    def _count(self, more: int, tally: Tally) -> None:
        self._counted += more
        tally.chunks += more


def _without_chunks(answer: bytes) -> bytes:
    """The body alone: who frames it anew may have cut it anywhere."""
    pieces: list[bytes] = []
    at = answer.find(b"\r\n\r\n") + 4
    while size := int(answer[at : answer.index(b"\r\n", at)], 16):
        at = answer.index(b"\r\n", at) + 2
        pieces.append(answer[at : at + size])
        at += size + 2
    return b"".join(pieces)


class _Paced:
    """Never whole. Every event tells its number and when it was sent."""

    def __init__(self) -> None:
        self._rest = b""
        self._last = -1
        self._last_ns = 0

    @property
    def has_event(self) -> bool:
        return self._last_ns > 0

    def feed(self, data: bytes, tally: Tally) -> bool:
        now_ns = time.monotonic_ns()
        received = _FRAME.sub(b"", self._rest + data)
        end = 0
        while (found := received.find(_STAMP, end)) >= 0:
            end = found + _STAMP_BYTES
            stamp = received[found + len(_STAMP) : end]
            if len(received) <= end + _FRAME_BYTES_MAX:
                break  # half a frame may stand in the stamp
            if stamp.startswith(b'"'):  # the first event, which has no text
                end = found + len(_STAMP)
                continue
            self._take(int(stamp[:5]), now_ns, int(stamp[6:]), tally)
        self._rest = received[found if found >= 0 else max(end, len(received) - _CUT_BYTES) :]
        return False

    def _take(self, sequence: int, now_ns: int, sent_ns: int, tally: Tally) -> None:
        if self._last_ns:
            tally.failures += sequence != self._last + 1
            tally.gaps_ns.append(now_ns - self._last_ns)
        self._last, self._last_ns = sequence, now_ns
        tally.chunks += 1
        tally.latencies_ns.append(now_ns - sent_ns)


READERS: dict[traffic.Kind, Callable[[], _Reader]] = {
    "plain": _Plain,
    "stream": _Stream,
    "paced": _Paced,
}


class _Connection:
    def __init__(self, connected: socket.socket, reader: _Reader) -> None:
        self.socket = connected
        self.reader = reader
        self.began_ns = 0
        self.unsent = memoryview(b"")


class Crowd:
    """All connections of one order."""

    def __init__(self, order: Order) -> None:
        self.tally = Tally()
        self._order = order
        self._reader = READERS[order.kind]
        self._request = traffic.request_bytes(order.kind, order.body_bytes)
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._cold: set[int] = set()

    def run(self) -> Outcome:
        """Do the order. Raises GaveUp when the connections do not get warm or are closed."""
        for _ in range(self._order.connections):
            self._connect()
        give_up_at = time.monotonic() + WARM_SECONDS_MAX
        while self._cold:
            if time.monotonic() > give_up_at:
                raise GaveUp(f"{len(self._cold)} connections got no answer")
            self._turn()
        pid, tally = self._order.watched_pid, self.tally
        tally.begin_window()
        cpu_before = observed.cpu_seconds(pid) if pid else 0.0
        began = time.monotonic()
        while time.monotonic() < began + self._order.seconds:
            self._turn()
        seconds = time.monotonic() - began
        return Outcome(
            seconds=seconds,
            answers=tally.answers,
            chunks=tally.chunks,
            failures=tally.failures,
            p50_us=percentile_us(tally.latencies_ns, 0.5),
            p99_us=percentile_us(tally.latencies_ns, 0.99),
            cpu_seconds=observed.cpu_seconds(pid) - cpu_before if pid else 0.0,
            resident_kb=observed.resident_kb(pid) if pid else 0,
            gap_p50_us=percentile_us(tally.gaps_ns, 0.5),
            gap_p99_us=percentile_us(tally.gaps_ns, 0.99),
        )

    def _connect(self) -> None:
        connected = socket.create_connection(("127.0.0.1", self._order.port), WARM_SECONDS_MAX)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
        connection = _Connection(connected, self._reader())
        self._connections[connected.fileno()] = connection
        self._cold.add(connected.fileno())
        self._epoll.register(connected, select.EPOLLIN)
        self._ask(connection)

    def _ask(self, connection: _Connection) -> None:
        connection.began_ns = time.monotonic_ns()
        sent = connection.socket.send(self._request)
        if sent < len(self._request):
            connection.unsent = memoryview(self._request)[sent:]
            self._epoll.modify(connection.socket, select.EPOLLOUT)

    def _turn(self) -> None:
        for number, _ in self._epoll.poll(_PATIENCE_SECONDS):
            connection = self._connections[number]
            if connection.unsent:
                self._send_more(connection)
            else:
                self._receive(number, connection)

    def _send_more(self, connection: _Connection) -> None:
        connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
        if not connection.unsent:
            self._epoll.modify(connection.socket, select.EPOLLIN)

    def _receive(self, number: int, connection: _Connection) -> None:
        tally = self.tally
        data = connection.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise GaveUp("a connection was closed")
        if connection.reader.feed(data, tally):
            tally.latencies_ns.append(time.monotonic_ns() - connection.began_ns)
            tally.answers += 1
            connection.reader = self._reader()
            self._ask(connection)
            self._cold.discard(number)
        elif connection.reader.has_event:
            self._cold.discard(number)

    def close(self) -> None:
        """Hang up on everybody."""
        for connection in self._connections.values():
            connection.socket.close()
        self._epoll.close()


@contextlib.contextmanager
def crowd(order: Order) -> Iterator[Crowd]:
    """The connections of one order, closed when left."""
    opened = Crowd(order)
    try:
        yield opened
    finally:
        opened.close()


def _outcome(order: Order) -> Outcome:
    try:
        with crowd(order) as gathered:
            return gathered.run()
    except (GaveUp, OSError) as reason:
        why = str(reason) or type(reason).__name__
    except ValueError as reason:
        why = f"an answer could not be read ({reason})"[:_WHY_CHARACTERS_MAX]
    return Outcome(0, 0, 0, 0, 0, 0, 0, 0, gave_up=why)


def main() -> None:
    """Do one order after the other, until the input ends."""
    print("listening load -", flush=True)
    for line in sys.stdin:
        print(
            msgspec.json.encode(_outcome(msgspec.json.decode(line, type=Order))).decode(),
            flush=True,
        )


if __name__ == "__main__":
    main()
