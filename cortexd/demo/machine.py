"""The state one simulated neuron's parts share: its rack, switches, counters, gates and lines.

Owns: finding a resident model or refusing, measured speed, identity. It writes no byte to a
client.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from cortexd.demo.admission import Admission, AdmissionLimits
from cortexd.demo.counters import ANONYMOUS, Counters
from cortexd.demo.errors import NeuronError, inference_error
from cortexd.demo.hardware import Device, Rack, Resident, SimulatedModel
from cortexd.demo.http import Request
from cortexd.demo.switches import Switches


class Gates:
    """Where tokens, prompts and loads wait for a test's permission, if a switch says so."""

    def __init__(self) -> None:
        self.tokens = trio.Semaphore(0)
        self.prefills = trio.Semaphore(0)
        self.loads = trio.Semaphore(0)


@dataclass
class Speed:
    """Tokens per second as last measured on a model; 0.0 before its first reply."""

    prefill: float = 0.0
    decode: float = 0.0


@dataclass
class Machine:
    """One neuron's insides."""

    name: str
    rack: Rack
    switches: Switches
    counters: Counters
    limits: AdmissionLimits
    gates: Gates = field(default_factory=Gates)
    lines: dict[str, Admission] = field(default_factory=dict)
    """Model -> the line in front of it, new with each load."""
    speeds: dict[str, Speed] = field(default_factory=dict)
    started_seconds: float = 0.0
    replies: int = 0
    completed_loads: list[str] = field(default_factory=list)

    def boot(self, resident: Sequence[str]) -> None:
        """Starts over with exactly these models in memory."""
        self.rack.resident.clear()
        self.lines.clear()
        self.speeds.clear()
        self.completed_loads.clear()
        self.started_seconds = time.monotonic()
        for model_id in resident:
            self.rack.put(self.rack.known[model_id])
            self.opened(model_id)

    def opened(self, model_id: str) -> None:
        """A model has become resident: it gets a fresh line and counters."""
        self.lines[model_id] = Admission(self.limits)
        self.speeds[model_id] = Speed()
        self.completed_loads.append(model_id)

    def serving(
        self, model_id: str, *, embeddings: bool, capability: str | None = None
    ) -> Resident:
        """The resident model that answers a request, or NeuronError with the row that fits.

        `capability`: what a model must name for an endpoint that not every model serves.
        """
        if self.switches.draining:
            raise NeuronError(inference_error("shutting_down", "this neuron is draining"))
        resident = self.rack.resident.get(model_id)
        if resident is None or resident.status == "loading":
            message = f"model {model_id} is not loaded"
            raise NeuronError(inference_error("model_not_found", message, model_id=model_id))
        if resident.status != "loaded":
            raise NeuronError(inference_error("recovering", f"model {model_id} is recovering"))
        lacks = capability is not None and capability not in resident.model.capabilities
        if lacks or (resident.model.embedding_dimensions > 0) != embeddings:
            message = f"model {model_id} does not serve this endpoint"
            raise NeuronError(inference_error("wrong_modality", message))
        return resident

    async def read(self) -> None:
        """Takes as long as reading a prompt takes, where nothing is written meanwhile."""
        if self.switches.gated_prefill:
            await self.gates.prefills.acquire()
        await trio.sleep(self.switches.prefill_seconds)

    def next_reply_id(self, kind: str = "chatcmpl") -> str:
        """A new id for a reply, unlike any other of this neuron."""
        self.replies += 1
        return f"{kind}-{self.name}-{self.replies}"


def principal(request: Request) -> str | None:
    """Who gets a fair share of a line: account and key, both or nobody."""
    account, key = request.header(b"x-helexa-account-id"), request.header(b"x-helexa-key-id")
    return f"{account}/{key}" if account and key else None


def key_id(request: Request) -> str:
    """Whose tokens these are."""
    return request.header(b"x-helexa-key-id") or ANONYMOUS


def default_devices() -> tuple[Device, ...]:
    """One card, enough for a test."""
    return (Device(0, "Simulated RTX 3090", 24576),)


def default_models() -> tuple[SimulatedModel, ...]:
    """One small model, resident from the start."""
    return (SimulatedModel("sim/small"),)
