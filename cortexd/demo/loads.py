"""Loading models on a simulated neuron: the caller waits; one load per model at a time.

A load belongs to the neuron, not to who asked first: it goes on when that client hangs up, and
all who ask for the same model meanwhile get its outcome. Memory is booked when a load begins,
so two loads cannot both have it.
"""

from dataclasses import dataclass, field

import msgspec
import trio

from cortexd.demo.errors import NeuronError, inference_error, management_error
from cortexd.demo.hardware import DoesNotFit
from cortexd.demo.machine import Machine
from cortexd.demo.switches import Canned

_LOADED = Canned(200, b'{"status":"loaded"}')


class ModelSpec(msgspec.Struct, frozen=True):
    """The body of POST /models/load. `model_id` may carry a scheme: `huggingface:org/name`."""

    model_id: str
    harness: str = "candle"
    quant: str | None = None
    tensor_parallel: int | None = None
    devices: list[int] | None = None

    @property
    def bare_id(self) -> str:
        """The id without its scheme."""
        scheme, colon, rest = self.model_id.partition(":")
        return rest if colon and "/" not in scheme else self.model_id


@dataclass
class _Load:
    spec: ModelSpec
    done: trio.Event = field(default_factory=trio.Event)
    outcome: Canned = _LOADED


class Loader:
    """Runs loads in its own task; `load` waits for the outcome."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._under_way: dict[str, _Load] = {}
        self._send, self._receive = trio.open_memory_channel[_Load](0)

    async def run(self) -> None:
        """Carries loads out side by side until cancelled; loads under way are then forgotten."""
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    load = await self._receive.receive()
                    nursery.start_soon(self._carry_out, load, name=f"load {load.spec.bare_id}")
        finally:
            self._under_way.clear()

    async def load(self, spec: ModelSpec) -> Canned:
        """The reply to a load request, once the model is resident or the load has failed."""
        load = self._under_way.get(spec.bare_id)
        if load is None:
            load = self._under_way[spec.bare_id] = _Load(spec)
            await self._send.send(load)
        await load.done.wait()
        return load.outcome

    async def _carry_out(self, load: _Load) -> None:
        try:
            await self._make_resident(load.spec)
        except NeuronError as refused:
            load.outcome = refused.reply
        del self._under_way[load.spec.bare_id]
        load.done.set()

    async def _make_resident(self, spec: ModelSpec) -> None:
        machine, model_id = self._machine, spec.bare_id
        switches = machine.switches
        if switches.cuda_unavailable is not None:
            reason = switches.cuda_unavailable
            raise NeuronError(management_error(503, reason, code="cuda_unavailable"))
        if model_id in machine.rack.resident:
            raise NeuronError(management_error(400, f"model {model_id} already loaded"))
        model = machine.rack.known.get(model_id)
        if kind := switches.load_failures.get(model_id):
            raise NeuronError(_permanent(kind, model_id))
        if model is None:
            raise NeuronError(_permanent("repo_fetch_failed", model_id))
        if spec.quant is not None and model.quants and spec.quant not in model.quants:
            raise NeuronError(_permanent("quant_not_found", model_id))
        try:
            resident = machine.rack.put(
                model, devices=spec.devices, tensor_parallel=spec.tensor_parallel
            )
        except DoesNotFit as problem:
            raise NeuronError(management_error(400, str(problem))) from None
        resident.status = "loading"
        if switches.gated_loads:
            await machine.gates.loads.acquire()
        seconds = switches.load_seconds
        await trio.sleep(model.load_seconds if seconds is None else seconds)
        resident.status = "loaded"
        machine.opened(model_id)


def read_spec(body: bytes) -> ModelSpec:
    """The body of a load, or NeuronError."""
    try:
        return msgspec.json.decode(body, type=ModelSpec)
    except msgspec.ValidationError as problem:
        raise NeuronError(inference_error("invalid_request_body", str(problem))) from None
    except msgspec.DecodeError as problem:
        raise NeuronError(inference_error("malformed_json", str(problem))) from None


def _permanent(kind: str, model_id: str) -> Canned:
    return management_error(422, {"kind": kind, "model_id": model_id})
