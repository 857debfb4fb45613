"""Clients of every kind at once: they ask for all that costs, smuggle, and leave at every stage.

What each asks for and when it leaves is drawn by a seed. Knows the gateway's address and nothing of
what is behind it; counts what came of the requests.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
import trio

from tests.engines.smuggled import SMUGGLED
from tests.support.raw_client import RawClient, raw_client

STAGES = ("with half a head", "with half a body", "once asked", "at the head", "in mid-stream")
"""When clients leave; the first two before anything can have been asked."""

VECTORS = "vectors"
PIECES_MAX = 12
LIMITS = (1, 8, 20, 40, 60, 120)
ANSWERED, LEFT, REFUSED, BROKEN = "answered", "left", "refused", "broken off"


class Ask(msgspec.Struct, frozen=True):
    """One request, as bytes; `stage`: when its client leaves, None if it stays. `pieces`: how many
    events it reads first.
    """

    path: str
    body: bytes
    stage: str | None
    pieces: int


def drawn(dice: random.Random, models: Sequence[str]) -> Iterator[Ask]:
    """Requests without end."""
    while True:
        path = dice.choice(list(_BODIES) * 3 + ["/v1/embeddings"])
        streamed = path != "/v1/embeddings" and dice.random() < 0.6
        body = json.dumps(_body(dice, path, dice.choice(list(models)), streamed=streamed))
        if dice.random() < 0.25:
            body = f"{body[:-1]}, {dice.choice(SMUGGLED)[0]}}}"
        stages = STAGES if streamed else STAGES[:3]
        stage = dice.choice(stages) if dice.random() < 0.4 else None
        yield Ask(path, body.encode(), stage, dice.randint(1, PIECES_MAX))


def _body(dice: random.Random, path: str, model: str, *, streamed: bool) -> dict[str, object]:
    words = " ".join(dice.choices(("hi", "a careful gateway", "tokens", "ünïcödé", "zq9"), k=3))
    if path == "/v1/embeddings":
        return {"model": VECTORS, "input": [words, "hi"]}
    limit_name = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    body = {"model": model, **_BODIES[path](words), limit_name: dice.choice(LIMITS)}
    if streamed:
        body["stream"] = True
        if path in _WITH_N and dice.random() < 0.5:
            body["stream_options"] = {"include_usage": True}
    if path in _WITH_N and dice.random() < 0.2:
        body["n"] = dice.randint(2, 3)
    return body


def _messages(words: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": words}]}


def _prompt(words: str) -> dict[str, object]:
    return {"prompt": words}


def _input(words: str) -> dict[str, object]:
    return {"input": words}


_BODIES = {
    "/v1/chat/completions": _messages,
    "/v1/completions": _prompt,
    "/v1/messages": _messages,
    "/v1/responses": _input,
}
_WITH_N = ("/v1/chat/completions", "/v1/completions")


class Storm:
    """The requests of one key. `outcomes`: how many of them came to what."""

    def __init__(self, gateway: str, key: str, *, sees_them_out: bool = False) -> None:
        """Nothing is asked yet. `sees_them_out`: clients that leave say so, and wait until the
        gateway has hung up, too.
        """
        self._gateway = gateway
        self._key = key
        self._sees_them_out = sees_them_out
        self._told = trio.Condition()
        self.outcomes: Counter[str] = Counter()

    async def run(self, asks: Sequence[Ask], *, at_once: int) -> None:
        """Ask them all, so many at a time, each on a connection of its own."""
        waiting = iter(asks)

        async def work() -> None:
            for ask in waiting:
                self.outcomes[await self._one(ask)] += 1
                async with self._told:
                    self._told.notify_all()

        async with trio.open_nursery() as clients:
            for number in range(at_once):
                clients.start_soon(work, name=f"client {number}")

    async def wait_for(self, ended: int) -> None:
        """Until so many requests have ended."""
        async with self._told:
            while self.outcomes.total() < ended:
                await self._told.wait()

    async def _one(self, ask: Ask) -> str:
        async with raw_client(self._gateway) as client:
            if await self._leaves(client, ask):
                if self._sees_them_out:
                    await client.stream.send_eof()
                    await client.read_to_the_end()
                return LEFT
            while data := await client.stream.receive_some():
                client.received += data
        return outcome_of(client.received)

    async def _leaves(self, client: RawClient, ask: Ask) -> bool:
        """Send it, and whether its client leaves before it has all of its answer."""
        head = (
            f"POST {ask.path} HTTP/1.1\r\nhost: cortexd\r\nauthorization: Bearer {self._key}\r\n"
            "connection: close\r\ncontent-type: application/json\r\n"
            f"content-length: {len(ask.body)}\r\n\r\n"
        ).encode()
        match ask.stage:
            case "with half a head":
                await client.stream.send_all(head[: len(head) // 2])
                return True
            case "with half a body":
                await client.stream.send_all(head + ask.body[: len(ask.body) // 2])
                return True
        await client.stream.send_all(head + ask.body)
        match ask.stage:
            case "once asked":
                return True
            case "at the head":
                return await has_come(client, b"\r\n\r\n") and not is_refused(client.received)
            case "in mid-stream":
                return await has_come(client, b"data: ", ask.pieces)
        return False


async def has_come(client: RawClient, wanted: bytes, count: int = 1) -> bool:
    """Read until `wanted` has come so often; False if the answer ends before."""
    while client.received.count(wanted) < count:
        data = await client.stream.receive_some()
        if not data:
            return False
        client.received += data
    return True


def is_refused(received: bytes) -> bool:
    """Whether this is an answer that says that a cap is reached."""
    return received.startswith(b"HTTP/1.1 429 ")


def outcome_of(received: bytes) -> str:
    """What an answer that was read to its end came to."""
    if not received:
        return BROKEN
    if is_refused(received):
        return REFUSED
    status = received.split(maxsplit=2)[1].decode()
    if status != "200":
        return f"status {status}"
    return BROKEN if b'data: {"error"' in received or b"event: error" in received else ANSWERED
