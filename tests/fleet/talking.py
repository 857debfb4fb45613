"""A scripted neuron that speaks the protocol, and the setting that leads to it."""

from __future__ import annotations

from collections import Counter

from cortexd.config.schema import Neuron
from tests.fleet.scripted import Peer, ok

NOT_FOUND = b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\n{}"


class Talk:
    """What the scripted neuron answers by path (b"": silence), and how often it was asked."""

    def __init__(self) -> None:
        self.replies = {
            "/models": ok(b'[{"id":"org/a"}]'),
            "/health": ok(b'{"uptime_secs":100,"models":[{"id":"org/a","in_flight":3}]}'),
            "/discovery": ok(b'{"hostname":"h","max_prompt_tokens":5}'),
            "/models/org%2Fa/endpoint": ok(b'{"url":"http://localhost:8001/"}'),
        }
        self.hits: Counter[str] = Counter()
        self.asked: list[bytes] = []

    async def script(self, peer: Peer) -> None:
        while request := await peer.request():
            path = request.split()[1].decode()
            self.hits[path] += 1
            self.asked.append(request)
            reply = self.replies.get(path, NOT_FOUND)
            if not reply:
                await peer.hung_up()
                return
            await peer.send(reply)


def beast(url: str, **more: object) -> Neuron:
    return Neuron("beast", url, **more)  # type: ignore[arg-type]  # checked by the struct's users
