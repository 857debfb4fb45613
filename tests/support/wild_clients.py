"""Clients at their worst: they leave before the head, in the middle of a body or a stream, stop
reading, reset the connection, or behave; until the gateway is gone or they are told to stop.

What each does is decided by the seed; only the times are the machine's. Every request has an id of
its own.
"""

import contextlib
import itertools
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import msgspec
import trio

from tests.support.daemon_process import chat
from tests.support.traffic import Answer, answer_of

LONG_TOKENS = 400
_RESET = struct.pack("ii", 1, 0)
_HABITS = (
    *("stays",) * 9,
    *("leaves_in_the_request",) * 1,
    *("leaves_at_once",) * 2,
    *("leaves_in_the_answer",) * 5,
    *("stops_reading",) * 1,
)


class Request(msgspec.Struct, frozen=True):
    """What one client is about to do. `reads_bytes`: of the answer, before it leaves or rests."""

    request_id: str
    key: str
    data: bytes
    habit: str
    reads_bytes: int
    rests_seconds: float
    resets: bool


class WildClients:
    """Clients of one gateway.

    `answers`: by request id, of those who stayed to the end. `habits`: how often each was tried.
    """

    def __init__(self, url: str, seed: str, *, long_share: float = 0.1) -> None:
        """`long_share`: how many of the requests may have more than a short answer."""
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._address = (host, int(port))
        self._seed = seed
        self._long_share = long_share
        self.answers: dict[str, Answer] = {}
        self.habits: Counter[str] = Counter()
        self.asked = 0
        self.is_gone = False

    async def run(
        self, keys: Sequence[str], *, clients: int, requests_max: int | None = None
    ) -> None:
        """Ask until the gateway is gone, or `requests_max` have been asked by each client."""
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                name = f"{self._seed}.{number}"
                nursery.start_soon(self._client, keys, name, requests_max)

    async def _client(self, keys: Sequence[str], name: str, requests_max: int | None) -> None:
        choices = random.Random(name)
        numbers = itertools.count() if requests_max is None else range(requests_max)
        for number in numbers:
            request = self._choose(choices.choice(keys), f"t.{name}.{number}", choices)
            self.asked += 1
            self.habits[request.habit] += 1
            try:
                received = await self._ask(request)
            except OSError:
                self.is_gone = True
                return
            if received is not None:
                self.answers[request.request_id] = answer_of(received)

    def _choose(self, key: str, request_id: str, choices: random.Random) -> Request:
        is_long = choices.random() < self._long_share
        body = chat(
            "word " * choices.randrange(20),
            max_tokens=choices.randrange(1, LONG_TOKENS if is_long else 50),
            stream=choices.random() < 0.6,
        )
        return Request(
            request_id,
            key,
            request_bytes(key, request_id, body),
            habit=choices.choice(_HABITS),
            reads_bytes=choices.randrange(1, 40_000 if is_long else 6000),
            rests_seconds=choices.uniform(0, 0.8),
            resets=choices.random() < 0.5,
        )

    async def _ask(self, request: Request) -> bytes | None:
        """All that came, if the client stayed to the end; None if it left.

        Raises OSError when nobody accepts.
        """
        async with self._connected(small=request.habit == "stops_reading") as stream:
            try:
                return await _behave(stream, request)
            except trio.BrokenResourceError:
                return None
            finally:
                if request.resets:
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    @contextlib.asynccontextmanager
    async def _connected(self, *, small: bool) -> AsyncIterator[trio.SocketStream]:
        """A connection; a `small` one takes little before its other end has to wait."""
        connection = trio.socket.socket()
        with connection:
            if small:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            await connection.connect(self._address)
            yield trio.SocketStream(connection)


async def _behave(stream: trio.SocketStream, request: Request) -> bytes | None:
    match request.habit:
        case "leaves_in_the_request":
            await stream.send_all(request.data[: len(request.data) * 2 // 3])
            return None
        case "leaves_at_once":
            await stream.send_all(request.data)
            return None
    await stream.send_all(request.data)
    received = b""
    while data := await stream.receive_some():
        received += data
        if request.habit != "stays" and len(received) >= request.reads_bytes:
            if request.habit == "stops_reading":
                with trio.move_on_after(request.rests_seconds):
                    await trio.sleep_forever()
            return None
    return received


def request_bytes(key: str, request_id: str, body: dict[str, object]) -> bytes:
    """A chat request on a connection that is to be closed after its answer."""
    data = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: cortexd\r\nconnection: close\r\n"
        f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        f"x-request-id: {request_id}\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data
