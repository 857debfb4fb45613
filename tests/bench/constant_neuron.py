"""A neuron that costs next to nothing: canned answers from one epoll loop, as its own process.

    python -m tests.bench.constant_neuron [NEURONS [MODELS]]

Prints `listening neuron http://127.0.0.1:PORT` once it accepts, and runs until it is killed. As
several neurons it is at 127.0.0.1, 127.0.0.2 and so on, at the same port; each has the same models.
It speaks as much of the neuron protocol as a gateway asks for before it sends requests, and answers
chat requests plain, streamed at once, or streamed one event every `traffic.PACED_SECONDS`. The
simulated neuron of `cortexd demo` behaves far better, and would be what is measured.
"""

import itertools
import json
import re
import select
import socket
import sys
import time

from tests.bench import traffic
from tests.bench.traffic import MODEL

_RECEIVE_BYTES = 262_144
_BARS = 20
_CONTEXT = 4_194_304
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_EVENTS_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


class _Peer:
    """One connection: what of a request has come, what of an answer has not gone out."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.received = b""
        self.unsent = b""


class _Beat:
    """When which paced stream gets its next event: an interval has so many bars.

    All streams of one bar are sent the same bytes, which saves most of what an event would cost.
    """

    def __init__(self) -> None:
        self.streams = 0
        self.due = 0.0
        self._bars: list[list[_Peer]] = [[] for _ in range(_BARS)]
        self._bar = 0
        self._sequence = 0

    def join(self, peer: _Peer) -> None:
        """In the bar in which the fewest are."""
        if not self.streams:
            self.due = time.monotonic() + traffic.PACED_SECONDS / _BARS
        min(self._bars, key=len).append(peer)
        self.streams += 1

    def leave(self, peer: _Peer) -> None:
        """Whether it was there or not."""
        for bar in self._bars:
            if peer in bar:
                bar.remove(peer)
                self.streams -= 1

    def next_bar(self, now_ns: int) -> tuple[bytes, list[_Peer]]:
        """The event that is due, and who gets it; they may leave meanwhile.

        What was not sent for more than an interval, as the core was busy, is left out for good.
        """
        peers = list(self._bars[self._bar])
        event = traffic.paced_event(self._sequence, now_ns)
        self._bar = (self._bar + 1) % _BARS
        self._sequence += self._bar == 0
        next_due = self.due + traffic.PACED_SECONDS / _BARS
        self.due = max(next_due, now_ns / 1e9 - traffic.PACED_SECONDS)
        return event, peers


class ConstantNeuron:
    """The loop. `run` never returns."""

    def __init__(self, neurons: int, models: int) -> None:
        self.port = 0
        self._epoll = select.epoll()
        self._listeners: dict[int, socket.socket] = {}
        for number in range(neurons):
            listener = socket.create_server((address(number), self.port), backlog=4096)
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            self._epoll.register(listener, select.EPOLLIN)
            self._listeners[listener.fileno()] = listener
        self._peers: dict[int, _Peer] = {}
        self._beat = _Beat()
        self._control = _control_answers(models)
        self._plain = _answer(traffic.plain_body())
        self._streams = itertools.cycle([_EVENTS_HEAD + body for body in traffic.stream_bodies()])

    def run(self) -> None:
        """Answer whoever comes, until killed."""
        while True:
            for number, _ in self._epoll.poll(self._patience()):
                if number in self._listeners:
                    self._accept(self._listeners[number])
                elif self._peers[number].unsent:
                    self._send(self._peers[number], b"")
                else:
                    self._receive(self._peers[number])
            self._send_what_is_due()

    def _patience(self) -> float:
        return max(0.0, self._beat.due - time.monotonic()) if self._beat.streams else -1

    def _accept(self, listener: socket.socket) -> None:
        connected, _ = listener.accept()
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peers[connected.fileno()] = _Peer(connected)
        self._epoll.register(connected, select.EPOLLIN)

    def _receive(self, peer: _Peer) -> None:
        try:
            data = peer.socket.recv(_RECEIVE_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            self._close(peer)
            return
        peer.received += data
        end = peer.received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(peer.received, 0, end)
        if len(peer.received) < end + 4 + (int(length[1]) if length else 0):
            return
        request, peer.received = peer.received, b""
        self._reply(peer, request)

    def _reply(self, peer: _Peer, request: bytes) -> None:
        if not request.startswith(b"POST "):
            path = request.split(b" ", 2)[1]
            if path.endswith(b"/endpoint"):
                host, port = peer.socket.getsockname()
                self._send(peer, _told({"url": f"http://{host}:{port}"}))
            else:
                self._send(peer, self._control.get(path, _NOT_FOUND))
            return
        match traffic.kind_of(request):
            case "plain":
                self._send(peer, self._plain)
            case "stream":
                self._send(peer, next(self._streams))
            case "paced":
                self._send(peer, _EVENTS_HEAD + traffic.role_event())
                self._beat.join(peer)

    def _send_what_is_due(self) -> None:
        """At most one bar of each beat, so that requests are read however late we are."""
        for _ in range(_BARS):
            if not self._beat.streams or self._beat.due > time.monotonic():
                return
            event, peers = self._beat.next_bar(time.monotonic_ns())
            for peer in peers:
                if peer.unsent:
                    self._send(peer, event)
                else:
                    self._send_at_once(peer, event)

    def _send_at_once(self, peer: _Peer, event: bytes) -> None:
        """The short way, as there are tens of thousands of these each second."""
        try:
            sent = peer.socket.send(event)
        except (BlockingIOError, ConnectionError):
            sent = 0
        if sent < len(event):
            self._send(peer, event[sent:])

    def _send(self, peer: _Peer, data: bytes) -> None:
        had_to_wait = bool(peer.unsent)
        data = peer.unsent + data
        try:
            sent = peer.socket.send(data)
        except BlockingIOError:
            sent = 0
        except ConnectionError:
            self._close(peer)
            return
        peer.unsent = data[sent:]
        if bool(peer.unsent) != had_to_wait:
            wanted = select.EPOLLOUT if peer.unsent else select.EPOLLIN
            self._epoll.modify(peer.socket, wanted)

    def _close(self, peer: _Peer) -> None:
        self._beat.leave(peer)
        del self._peers[peer.socket.fileno()]
        peer.socket.close()


def address(number: int) -> str:
    """Where the neuron of this number is, of several; all of it is loopback."""
    return f"127.0.0.{number + 1}"


def model_name(number: int) -> str:
    """The first is the one that is asked for."""
    return MODEL if number == 0 else f"{MODEL}-{number}"


def _control_answers(models: int) -> dict[bytes, bytes]:
    names = [model_name(number) for number in range(models)]
    limit = {"context": _CONTEXT, "output": 8192}
    listed = [
        {"id": name, "harness": "constant", "status": "loaded", "devices": [0], "limit": limit}
        for name in names
    ]
    idle = [{"id": name, "in_flight": 0, "queue_depth": 0} for name in names]
    told: dict[str, object] = {
        "/models": listed,
        "/health": {"uptime_secs": 1, "models": idle},
        "/discovery": {"hostname": "constant", "max_prompt_tokens": _CONTEXT},
        "/v1/models": {"object": "list", "data": [{"id": name} for name in names]},
    }
    return {path.encode(): _told(body) for path, body in told.items()}


def _told(value: object) -> bytes:
    return _answer(json.dumps(value).encode())


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def main() -> None:
    """Run until killed."""
    neurons, models = (*map(int, sys.argv[1:]), 1, 1)[:2]
    neuron = ConstantNeuron(neurons, models)
    print(f"listening neuron http://127.0.0.1:{neuron.port}", flush=True)
    neuron.run()


if __name__ == "__main__":
    main()
