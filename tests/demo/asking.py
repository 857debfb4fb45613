"""How these tests talk to a simulated neuron from the outside: httpx, and raw bytes."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio

from cortexd.demo.neuron import SimulatedNeuron

MODEL = "sim/small"
PATIENCE_SECONDS = 5


def question(text: str = "What is a token?", **fields: object) -> dict[str, object]:
    """A chat body."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


async def ask(neuron: SimulatedNeuron, body: object, **headers: str) -> httpx.Response:
    """One chat request on a connection of its own."""
    return await call(neuron, "POST", "/v1/chat/completions", body, **headers)


async def call(
    neuron: SimulatedNeuron, method: str, path: str, body: object = None, **headers: str
) -> httpx.Response:
    """Any request; header names are written with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with trio.fail_after(PATIENCE_SECONDS):
        async with httpx.AsyncClient(
            base_url=neuron.url, timeout=PATIENCE_SECONDS, verify=False, trust_env=False
        ) as client:
            return await client.request(
                method, path, json=body if method == "POST" else None, headers=named
            )


async def stream(neuron: SimulatedNeuron, body: dict[str, object], **headers: str) -> list[Any]:
    """The events of a streamed reply: decoded chunks, and "[DONE]"."""
    response = await ask(neuron, body | {"stream": True}, **headers)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    return events(response.text)


def events(text: str) -> list[Any]:
    """Data of server-sent events, decoded where it is JSON; comments are left out."""
    blocks = text.replace("\r\n", "\n").split("\n\n")
    data = [block.removeprefix("data: ") for block in blocks if block.startswith("data: ")]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


def deltas(chunks: list[Any]) -> list[str]:
    """The pieces of text in a list of events."""
    found = [
        chunk["choices"][0]["delta"] for chunk in chunks if chunk != "[DONE]" and has_choice(chunk)
    ]
    return [delta["content"] for delta in found if delta.get("content")]


def has_choice(chunk: Any) -> bool:
    """Whether an event is a chunk with a choice."""
    return bool(chunk.get("choices"))


class RawClient:
    """A connection on which a test writes what it wants, and reads what comes."""

    def __init__(self, connection: trio.SocketStream) -> None:
        self.connection = connection
        self.received = b""

    async def post(self, body: dict[str, object], path: str = "/v1/chat/completions") -> None:
        """Sends a request and does not wait."""
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        await self.connection.send_all(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)

    async def read_until(self, mark: bytes) -> bytes:
        """Reads until `mark` has arrived."""
        while mark not in self.received:
            data = await self.connection.receive_some()
            assert data, f"the connection ended before {mark!r}"
            self.received += data
        return self.received

    async def read_to_end(self) -> bytes:
        """Reads until EOF; a reset raises trio.BrokenResourceError."""
        async for data in self.connection:
            self.received += data
        return self.received

    async def hang_up(self) -> None:
        """Closes."""
        await self.connection.aclose()


@asynccontextmanager
async def raw_client(neuron: SimulatedNeuron) -> AsyncIterator[RawClient]:
    """A raw connection to a neuron, under a deadline."""
    with trio.fail_after(PATIENCE_SECONDS):
        connection = await trio.open_tcp_stream("127.0.0.1", neuron.port)
        async with connection:
            yield RawClient(connection)
