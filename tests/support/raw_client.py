"""A client on a bare socket, for leaving at a chosen moment."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping

import trio


class RawClient:
    """One connection to the gateway and everything that has come back on it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.received = b""

    async def post(
        self,
        body: Mapping[str, object],
        *,
        key: str = "sk-cap",
        path: str = "/v1/chat/completions",
        last: bool = False,
    ) -> None:
        """Send one request; `last`: the gateway is to close the connection after its answer."""
        data = json.dumps(body).encode()
        close = "connection: close\r\n" if last else ""
        head = (
            f"POST {path} HTTP/1.1\r\nhost: cortexd\r\nauthorization: Bearer {key}\r\n{close}"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        await self.stream.send_all(head.encode() + data)

    async def read_until(self, wanted: bytes, count: int = 1) -> None:
        """Read until `wanted` has come `count` times."""
        with trio.fail_after(20):
            while self.received.count(wanted) < count:
                data = await self.stream.receive_some()
                assert data, f"the gateway hung up after {self.received!r}"
                self.received += data

    async def read_to_the_end(self) -> None:
        """Read until the gateway closes the connection."""
        with trio.fail_after(20):
            while data := await self.stream.receive_some():
                self.received += data


@contextlib.asynccontextmanager
async def raw_client(url: str) -> AsyncIterator[RawClient]:
    """A connection to `http://host:port`, closed when left."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        yield RawClient(stream)
