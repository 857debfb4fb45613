"""An engine's control API, played back on real sockets: recorded bodies, and calls that change
them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from cortexd.config.schema import Neuron, NeuronKind
from cortexd.fleet.engines.controls import control_of
from cortexd.fleet.load_calls import LoadSpec
from cortexd.fleet.neuron import Control
from cortexd.fleet.pool import Pool
from cortexd.fleet.reports import ModelId, ModelLoad
from cortexd.fleet.view import Answered, NeuronView, before_the_first_poll, fold
from tests.fleet.scripted import Peer, scripted

Reply = tuple[int, object]
"""Status, and a body: bytes and text as they are, all else as JSON."""

SILENT: Reply = (0, "")
BREAKS_OFF: Reply = (-1, "")
NOT_FOUND: Reply = (404, {"detail": "Not Found"})


class Recorded:
    """Answers by method and path; all else is `otherwise`.

    `then`: what is answered from a call on, as in `{"POST /wake_up": {"GET /is_sleeping": ...}}`.
    """

    def __init__(
        self,
        replies: Mapping[str, Reply],
        then: Mapping[str, Mapping[str, Reply]] | None = None,
        *,
        otherwise: Reply = NOT_FOUND,
    ) -> None:
        self.replies = dict(replies)
        self.then = dict(then or {})
        self.otherwise = otherwise
        self.asked: list[str] = []
        self.sent: list[tuple[str, object]] = []

    async def script(self, peer: Peer) -> None:
        """Serve one connection."""
        while request := await peer.request():
            head, _, body = request.partition(b"\r\n\r\n")
            method, path = head.decode().split()[:2]
            call = f"{method} {path}"
            self.asked.append(call)
            if method == "POST":
                self.sent.append((path, json.loads(body) if body else None))
            reply = await self.reply(call)
            if reply == SILENT:
                await peer.hung_up()
                return
            if reply == BREAKS_OFF:
                return
            await peer.send(_on_the_wire(reply))

    async def reply(self, call: str) -> Reply:
        """What is answered to a call."""
        reply = self.replies.get(call, self.otherwise)
        self.replies.update(self.then.get(call, {}))
        return reply


def _on_the_wire(reply: Reply) -> bytes:
    status, body = reply
    if isinstance(body, str):
        data = body.encode()
    else:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d Said\r\ncontent-length: %d\r\n\r\n%b" % (status, len(data), data)


@asynccontextmanager
async def engine(
    kind: NeuronKind, recorded: Recorded, pool: Pool, *, timeout_seconds: float = 2
) -> AsyncIterator[tuple[Control, Neuron]]:
    """The control client of a played engine, and the neuron as configured."""
    async with scripted(recorded.script, within_seconds=10) as server:
        neuron = Neuron("beast", f"{server.url}/v1", kind)
        control = control_of(neuron, pool, timeout_seconds=timeout_seconds)
        try:
            yield control, neuron
        finally:
            await control.aclose()


async def looked(kind: NeuronKind, recorded: Recorded, pool: Pool) -> NeuronView:
    """What one poll makes of an engine."""
    async with engine(kind, recorded, pool) as (control, neuron):
        return view_of(neuron, await control.poll())


def view_of(neuron: Neuron, answered: Answered) -> NeuronView:
    """A poll as the fleet sees it; every model is asked where the engine itself is."""
    (unheard,) = before_the_first_poll([neuron]).neurons.values()
    view = fold(unheard, answered)
    base_url = neuron.endpoint.removesuffix("/v1")
    assert {model.base_url for model in view.models.values()} <= {base_url}
    return view


def states(view: NeuronView) -> dict[str, str]:
    """Status by model."""
    return {model.id: model.status.value for model in view.models.values()}


def load(view: NeuronView, model: str) -> ModelLoad:
    """How busy a model is."""
    return view.models[ModelId(model)].load


def context(view: NeuronView, model: str) -> int | None:
    """The context of a model."""
    return view.models[ModelId(model)].limit.context


def spec(model: str) -> LoadSpec:
    """A load of a model, as the catalogue would have it."""
    return LoadSpec(ModelId(model), harness="candle", quant="q4")
