"""Load on a gateway: clients that ask again and again, read to the end or leave half-way, until the
gateway is gone. Every request has an id of its own.

Counts what came back. A client that finds the gateway dead ends quietly: that is what it is for.
"""

import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence

import msgspec
import trio

from tests.support.daemon_process import chat

_HEAD_END = b"\r\n\r\n"


class Answer(msgspec.Struct, frozen=True):
    """What came back on one connection that the gateway was asked to close after its answer."""

    status: int | None
    code: str | None
    is_whole: bool

    @property
    def was_cut_off(self) -> bool:
        """Whether it began and did not come to its end."""
        return self.status is not None and not self.is_whole


def answer_of(received: bytes) -> Answer:
    """Read the bytes of one HTTP/1.1 answer; `status` None when not even its head came."""
    head, end_of_head, body = received.partition(_HEAD_END)
    if not end_of_head:
        return Answer(None, None, is_whole=False)
    status = int(head.split(maxsplit=2)[1])
    if b"\r\ntransfer-encoding: chunked" in head.lower():
        is_whole = body.endswith(b"0\r\n\r\n") and b"data: [DONE]" in body
        return Answer(status, None, is_whole)
    length = int(head.lower().partition(b"\r\ncontent-length: ")[2].split(b"\r\n")[0])
    is_whole = len(body) == length
    code = json.loads(body)["error"]["code"] if is_whole and status != 200 else None
    return Answer(status, code, is_whole)


class Traffic:
    """Clients of one gateway. `answers`: what those that stayed to the end were given."""

    def __init__(self, url: str, seed: int) -> None:
        """All choices are made by `seed`; only the times are the machine's."""
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._address = (host, int(port))
        self._seed = seed
        self._told = trio.Condition()
        self.answers: list[Answer] = []
        self.left_early = 0

    @property
    def codes(self) -> Counter[str]:
        """How often each kind of refusal came."""
        return Counter(answer.code for answer in self.answers if answer.code is not None)

    async def run(self, keys: Sequence[str], *, clients_per_key: int) -> None:
        """Ask until the gateway is gone."""
        async with trio.open_nursery() as nursery:
            for number in range(clients_per_key):
                for key in keys:
                    nursery.start_soon(self._client, key, f"{self._seed}.{key}.{number}")

    async def wait_until_refused(self, *codes: str) -> None:
        """Wait until each of these refusals has come."""
        async with self._told:
            while not set(codes) <= set(self.codes):
                await self._told.wait()

    async def wait_for_answers(self, count: int) -> None:
        """Wait until so many answers have come to their end."""
        async with self._told:
            while len(self.answers) < count:
                await self._told.wait()

    async def _client(self, key: str, name: str) -> None:
        choices = random.Random(name)
        for number in itertools.count():
            leaves_after = choices.choice([None, None, 0, choices.randrange(4000)])
            request = _request(key, f"{name}.{number}", choices)
            try:
                received, is_over = await self._ask(request, leaves_after)
            except OSError:
                return
            if not is_over:
                self.left_early += 1
                continue
            answer = answer_of(received)
            self.answers.append(answer)
            async with self._told:
                self._told.notify_all()
            if not answer.is_whole:
                return

    async def _ask(self, request: bytes, leaves_after: int | None) -> tuple[bytes, bool]:
        """One request on a connection of its own, and whether it was read to its end."""
        received = b""
        async with await trio.open_tcp_stream(*self._address) as stream:
            try:
                await stream.send_all(request)
                while leaves_after is None or len(received) < leaves_after:
                    data = await stream.receive_some()
                    if not data:
                        return received, True
                    received += data
            except trio.BrokenResourceError:
                return received, True
        return received, False


def _request(key: str, request_id: str, choices: random.Random) -> bytes:
    body = json.dumps(
        chat(
            "word " * choices.randrange(20),
            max_tokens=choices.randrange(1, 40),
            stream=choices.random() < 0.6,
        )
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: cortexd\r\nconnection: close\r\n"
        f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        f"x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
