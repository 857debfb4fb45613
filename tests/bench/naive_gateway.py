"""The gateway that one would write in an afternoon: stock Hypercorn, and httpx towards the neuron.

    python -m tests.bench.naive_gateway NEURON_URL

Passes every request on and every answer back, streamed; it knows no key, no budget and no model.
Prints `listening naive http://127.0.0.1:PORT` once it accepts, and runs until it is killed.
"""

import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import cast

import httpx
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import ASGIFramework

_Message = Mapping[str, object]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_PASSED_ON = ("content-type", "content-length")
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None)


async def _passed_on(
    client: httpx.AsyncClient, scope: _Message, receive: _Receive, send: _Send
) -> None:
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    body = await _whole(receive)
    headers = {"content-type": "application/json"}
    path = cast("str", scope["path"])
    async with client.stream("POST", path, content=body, headers=headers) as answer:
        passed = [
            (name.encode(), answer.headers[name].encode())
            for name in _PASSED_ON
            if name in answer.headers
        ]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": passed})
        async for piece in answer.aiter_raw():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _whole(receive: _Receive) -> bytes:
    body = b""
    more = True
    while more:
        message = await receive()
        body += cast("bytes", message.get("body", b""))
        more = bool(message.get("more_body", False))
    return body


async def _main(neuron_url: str) -> None:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.keep_alive_max_requests = 1_000_000_000
    async with (
        httpx.AsyncClient(base_url=neuron_url, limits=_LIMITS, timeout=None) as client,
        trio.open_nursery() as nursery,
    ):
        app = cast("ASGIFramework", partial(_passed_on, client))
        (url,) = await nursery.start(partial(serve, app, config))
        print(f"listening naive {url}", flush=True)


if __name__ == "__main__":
    trio.run(_main, sys.argv[1])
