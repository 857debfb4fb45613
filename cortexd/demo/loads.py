"""Loading models on a simulated neuron: the caller waits; one load per model at a time.

A load belongs to the neuron, not to who asked first: it goes on when that client hangs up, and
all who ask for the same model meanwhile get its outcome. Memory is booked when a load begins,
so two loads cannot both have it. A load that is under way when the neuron restarts is lost, and
who waits for it loses the connection.
"""

from dataclasses import dataclass, field

import msgspec
import trio

from cortexd.demo.errors import NeuronError, inference_error, management_error
from cortexd.demo.hardware import DoesNotFit, Resident
from cortexd.demo.machine import Machine
from cortexd.demo.switches import BreakKind, Broken, Canned

_LOADED = Canned(200, b'{"status":"loaded"}')
_LOST = Broken(BreakKind.RESET)


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
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    done: trio.Event = field(default_factory=trio.Event)
    outcome: Canned | Broken = _LOADED


class _Fails(Exception):
    """A load ends without the model."""

    def __init__(self, outcome: Canned | Broken) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Loader:
    """Runs loads in its own task; `load` waits for the outcome, `begin` does not."""

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

    async def load(self, spec: ModelSpec) -> Canned | Broken:
        """The reply to a load request, once the model is resident or the load has failed."""
        load = await self._begun(spec)
        await load.done.wait()
        return load.outcome

    async def begin(self, spec: ModelSpec) -> None:
        """Has a load begin, or joins the one under way, and leaves it to itself."""
        await self._begun(spec)

    def forget(self) -> None:
        """The neuron restarts: loads under way are lost. Their memory is the restart's to free."""
        for load in self._under_way.values():
            load.outcome = _LOST
            load.scope.cancel(reason="the neuron restarts")
            load.done.set()
        self._under_way.clear()

    async def _begun(self, spec: ModelSpec) -> _Load:
        load = self._under_way.get(spec.bare_id)
        if load is None:
            load = self._under_way[spec.bare_id] = _Load(spec)
            await self._send.send(load)
        return load

    async def _carry_out(self, load: _Load) -> None:
        if load.scope.cancel_called:  # it was lost before it was begun
            return
        with load.scope:
            try:
                resident = self._booked(load.spec)
                await self._take_time(resident)
                self._finish(resident)
            except _Fails as failed:
                load.outcome = failed.outcome
        if self._under_way.get(load.spec.bare_id) is load:
            del self._under_way[load.spec.bare_id]
            load.done.set()

    def _booked(self, spec: ModelSpec) -> Resident:
        """The model with memory of its own, being loaded; or why there is none."""
        machine, model_id = self._machine, spec.bare_id
        switches = machine.switches
        if switches.cuda_unavailable is not None:
            reason = switches.cuda_unavailable
            raise _Fails(management_error(503, reason, code="cuda_unavailable"))
        if model_id in machine.rack.resident:
            raise _Fails(management_error(400, f"model {model_id} already loaded"))
        if not switches.late_load_failures:
            self._fail_if_told(model_id)
        model = machine.rack.known.get(model_id)
        if model is None:
            raise _Fails(_permanent("repo_fetch_failed", model_id))
        if spec.quant is not None and model.quants and spec.quant not in model.quants:
            raise _Fails(_permanent("quant_not_found", model_id))
        try:
            resident = machine.rack.put(
                model, devices=spec.devices, tensor_parallel=spec.tensor_parallel
            )
        except DoesNotFit as problem:
            raise _Fails(management_error(400, str(problem))) from None
        resident.status = "loading"
        return resident

    async def _take_time(self, resident: Resident) -> None:
        switches = self._machine.switches
        if switches.gated_loads:
            await self._machine.gates.loads.acquire()
        seconds = switches.load_seconds
        await trio.sleep(resident.model.load_seconds if seconds is None else seconds)

    def _finish(self, resident: Resident) -> None:
        machine, model_id = self._machine, resident.model.id
        if machine.rack.resident.get(model_id) is not resident:  # it restarted at this very moment
            raise _Fails(_LOST)
        try:
            self._fail_if_told(model_id)
        except _Fails:
            machine.rack.take_out(model_id)
            raise
        resident.status = "loaded"
        machine.opened(model_id)

    def _fail_if_told(self, model_id: str) -> None:
        match self._machine.switches.load_failures.get(model_id):
            case None:
                return
            case str(kind):
                raise _Fails(_permanent(kind, model_id))
            case outcome:
                raise _Fails(outcome)


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
