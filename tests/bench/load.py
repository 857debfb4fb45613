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
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from tests.bench import observed, traffic
from tests.bench.traffic import Order, Outcome

WARM_SECONDS_MAX = 30
_RECEIVE_BYTES = 262_144
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_STAMP = re.compile(rb'"content":"(\d{5}) (\d{20})"')
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

    def percentile_us(self, share: float) -> float:
        """The latency that this share of the answers does not exceed; 0 without any."""
        ordered = sorted(self.latencies_ns)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000 if ordered else 0


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
    """Keeps everything and looks at it once, at the end: every event must have come."""

    has_event = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes, tally: Tally) -> bool:
        self._pieces.append(data)
        tail = data if len(data) >= len(_LAST_CHUNK) else b"".join(self._pieces[-8:])
        if not tail.endswith(_LAST_CHUNK):
            return False
        whole = b"".join(self._pieces)
        found = whole.count(b'"content":" ')
        tally.chunks += found
        tally.failures += abs(traffic.STREAM_TOKENS - found) + (b"data: [DONE]" not in whole)
        return True


class _Paced:
    """Never whole. Every event tells its number and when it was sent."""

    def __init__(self) -> None:
        self._rest = b""
        self._next = 0

    @property
    def has_event(self) -> bool:
        return self._next > 0

    def feed(self, data: bytes, tally: Tally) -> bool:
        now_ns = time.monotonic_ns()
        received = self._rest + data
        end = 0
        for found in _STAMP.finditer(received):
            end = found.end()
            sequence = int(found[1])
            tally.failures += sequence != self._next
            self._next = sequence + 1
            tally.chunks += 1
            tally.latencies_ns.append(now_ns - int(found[2]))
        self._rest = received[end:][-1024:]
        return False


_READERS: dict[traffic.Kind, Callable[[], _Reader]] = {
    "plain": _Plain,
    "stream": _Stream,
    "paced": _Paced,
}


class _Connection:
    def __init__(self, connected: socket.socket, reader: _Reader) -> None:
        self.socket = connected
        self.reader = reader
        self.began_ns = 0


class Crowd:
    """All connections of one order."""

    def __init__(self, order: Order) -> None:
        self.tally = Tally()
        self._order = order
        self._reader = _READERS[order.kind]
        self._request = traffic.request_bytes(order.kind)
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._cold: set[int] = set()

    def run(self) -> Outcome:
        """Do the order. Raises RuntimeError when the connections do not get warm."""
        for _ in range(self._order.connections):
            self._connect()
        give_up_at = time.monotonic() + WARM_SECONDS_MAX
        while self._cold:
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"{len(self._cold)} connections got no answer")
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
            p50_us=tally.percentile_us(0.5),
            p99_us=tally.percentile_us(0.99),
            cpu_seconds=observed.cpu_seconds(pid) - cpu_before if pid else 0.0,
            resident_kb=observed.resident_kb(pid) if pid else 0,
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
        connection.socket.sendall(self._request)

    def _turn(self) -> None:
        for number, _ in self._epoll.poll(_PATIENCE_SECONDS):
            self._receive(number, self._connections[number])

    def _receive(self, number: int, connection: _Connection) -> None:
        tally = self.tally
        data = connection.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise RuntimeError("a connection was closed")
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


def main() -> None:
    """Do one order after the other, until the input ends."""
    print("listening load -", flush=True)
    for line in sys.stdin:
        with crowd(msgspec.json.decode(line, type=Order)) as gathered:
            outcome = gathered.run()
        print(msgspec.json.encode(outcome).decode(), flush=True)


if __name__ == "__main__":
    main()
