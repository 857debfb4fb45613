"""A neuron that costs next to nothing: canned answers from one epoll loop, as its own process.

    python -m tests.bench.constant_neuron

Prints `listening neuron http://127.0.0.1:PORT` once it accepts, and runs until it is killed. It
speaks as much of the neuron protocol as a gateway asks for before it sends requests, and answers
chat requests plain, streamed at once, or streamed one event every `traffic.PACED_SECONDS`. The
simulated neuron of `cortexd demo` behaves far better, and would be what is measured.
"""

import itertools
import json
import re
import select
import socket
import time
from collections import deque

from tests.bench import traffic
from tests.bench.traffic import MODEL

_RECEIVE_BYTES = 65_536
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
        self.sequence = 0
        self.open = True


class ConstantNeuron:
    """The loop. `run` never returns."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._peers: dict[int, _Peer] = {}
        self._due: deque[tuple[float, _Peer]] = deque()
        self._control = _control_answers(self.port)
        self._plain = _answer(traffic.plain_body())
        self._streams = itertools.cycle([_EVENTS_HEAD + body for body in traffic.stream_bodies()])

    def run(self) -> None:
        """Answer whoever comes, until killed."""
        while True:
            for number, _ in self._epoll.poll(self._patience()):
                if number == self._listener.fileno():
                    self._accept()
                elif self._peers[number].unsent:
                    self._send(self._peers[number], b"")
                else:
                    self._receive(self._peers[number])
            self._send_what_is_due()

    def _patience(self) -> float:
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else -1

    def _accept(self) -> None:
        connected, _ = self._listener.accept()
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
            self._send(peer, self._control.get(request.split(b" ", 2)[1], _NOT_FOUND))
        elif b'"stream":true' not in request:
            self._send(peer, self._plain)
        elif traffic.PACED_MARK not in request:
            self._send(peer, next(self._streams))
        else:
            self._send(peer, _EVENTS_HEAD + traffic.role_event())
            self._due.append((time.monotonic() + traffic.PACED_SECONDS, peer))

    def _send_what_is_due(self) -> None:
        """All intervals are equal, so the queue is in order."""
        while self._due and self._due[0][0] <= time.monotonic():
            due, peer = self._due.popleft()
            if peer.open:
                self._send(peer, traffic.paced_event(peer.sequence, time.monotonic_ns()))
                peer.sequence += 1
                self._due.append((due + traffic.PACED_SECONDS, peer))

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
        peer.open = False
        del self._peers[peer.socket.fileno()]
        peer.socket.close()


def _control_answers(port: int) -> dict[bytes, bytes]:
    model = {
        "id": MODEL,
        "harness": "constant",
        "status": "loaded",
        "devices": [0],
        "limit": {"context": 131_072, "output": 8192},
    }
    health = {"uptime_secs": 1, "models": [{"id": MODEL, "in_flight": 0, "queue_depth": 0}]}
    told: dict[str, object] = {
        "/models": [model],
        "/health": health,
        "/discovery": {"hostname": "constant", "max_prompt_tokens": 131_072},
        f"/models/{MODEL.replace('/', '%2F')}/endpoint": {"url": f"http://127.0.0.1:{port}"},
    }
    return {path.encode(): _answer(json.dumps(body).encode()) for path, body in told.items()}


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def main() -> None:
    """Run until killed."""
    neuron = ConstantNeuron()
    print(f"listening neuron http://127.0.0.1:{neuron.port}", flush=True)
    neuron.run()


if __name__ == "__main__":
    main()
