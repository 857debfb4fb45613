"""A simulated neuron that notices when a model is unloaded which somebody still uses."""

import os
import socket
from collections.abc import Sequence

import msgspec

from cortexd.demo.counters import Counters
from cortexd.demo.hardware import Device, SimulatedModel
from cortexd.demo.http import Reply, Request
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import Switches

LOADS = "/models/load"
UNLOADS = "/models/unload"
CHATS = "/v1/chat/completions"


class WatchedNeuron(SimulatedNeuron):
    """`robbed`: what unloads took away from requests under way, as body and lines in use.

    Whoever had left before the unload was sent is not robbed, even if that has not been read yet.
    """

    def __init__(
        self,
        name: str,
        models: Sequence[SimulatedModel],
        devices: Sequence[Device] | None = None,
        *,
        switches: Switches | None = None,
    ) -> None:
        super().__init__(name, models, devices, switches=switches)
        self.robbed: list[tuple[bytes, dict[str, int]]] = []
        self.under_way: dict[int, tuple[Request, Reply]] = {}
        self.counters = self.machine.counters = _Watch(self)

    async def _answer(self, request: Request, reply: Reply) -> None:
        self.under_way[id(reply)] = request, reply
        try:
            await super()._answer(request, reply)
        finally:
            del self.under_way[id(reply)]

    def left(self, model: str) -> int:
        """Requests under way for a model whose clients have hung up."""
        replies = [reply for request, reply in self.under_way.values() if _asks(request, model)]
        return sum(map(_has_left, replies))

    @property
    def loads(self) -> int:
        """Loads that were asked for."""
        return self.counters.hits[LOADS]

    @property
    def unloads(self) -> int:
        """Unloads that were asked for."""
        return self.counters.hits[UNLOADS]


class _Watch(Counters):
    """Looks at the lines in the moment in which an unload comes."""

    def __init__(self, neuron: WatchedNeuron) -> None:
        super().__init__()
        self._neuron = neuron

    def arrive(self, request: Request) -> None:
        if request.path == UNLOADS:
            lines = self._neuron.machine.lines.items()
            busy = {id: line.in_flight + line.queue_depth for id, line in lines}
            model = msgspec.json.decode(request.body, type=_Unload).model_id
            if busy.get(model, 0) > self._neuron.left(model):
                self._neuron.robbed.append((request.body, busy))
        super().arrive(request)


class _Unload(msgspec.Struct):
    model_id: str


class _Asked(msgspec.Struct):
    model: str = ""


def _asks(request: Request, model: str) -> bool:
    if request.path != CHATS:
        return False
    return msgspec.json.decode(request.body, type=_Asked).model == model


def _has_left(reply: Reply) -> bool:
    """Whether the end of the connection has come, read or not."""
    if reply.descriptor < 0:
        return True
    with socket.socket(fileno=os.dup(reply.descriptor)) as connection:
        try:
            return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
