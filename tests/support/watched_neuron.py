"""A simulated neuron that notices when a model is unloaded which somebody still uses."""

from collections.abc import Sequence

from cortexd.demo.counters import Counters
from cortexd.demo.hardware import Device, SimulatedModel
from cortexd.demo.http import Request
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import Switches

LOADS = "/models/load"
UNLOADS = "/models/unload"


class WatchedNeuron(SimulatedNeuron):
    """`robbed`: what unloads took away from requests under way, as body and lines in use."""

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
        self.counters = self.machine.counters = _Watch(self)

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
            if any(count and id.encode() in request.body for id, count in busy.items()):
                self._neuron.robbed.append((request.body, busy))
        super().arrive(request)
