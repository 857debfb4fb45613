"""Stock Hypercorn on Trio that answers every request with the same bytes, as its own process.

    python -m tests.bench.constant_hypercorn

What a gateway on this server could cost at best, if reading the request, the budget, the neuron and
the answer cost nothing. Prints `listening hypercorn http://127.0.0.1:PORT` once it accepts, and
runs until it is killed. A request for a stream gets one event and is then held open, so that the
memory of an open stream can be seen too.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import ASGIFramework

from tests.bench import traffic

_Message = Mapping[str, object]
_BODY = traffic.plain_body()
_HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(_BODY)),
    ],
}
_WHOLE = {"type": "http.response.body", "body": _BODY, "more_body": False}
_EVENTS_HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream")],
}


async def _constant(
    scope: _Message,
    receive: Callable[[], Awaitable[_Message]],
    send: Callable[[_Message], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += cast("bytes", message.get("body", b""))
        more = bool(message.get("more_body", False))
    if b'"stream":true' not in body:
        await send(_HEAD)
        await send(_WHOLE)
        return
    event = traffic.paced_event(0, 0).split(b"\r\n")[1]
    await send(_EVENTS_HEAD)
    await send({"type": "http.response.body", "body": event, "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


async def _main() -> None:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.keep_alive_max_requests = 1_000_000_000  # the one setting: cortexd has it too
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(partial(serve, cast("ASGIFramework", _constant), config))
        print(f"listening hypercorn {url}", flush=True)


if __name__ == "__main__":
    trio.run(_main)
