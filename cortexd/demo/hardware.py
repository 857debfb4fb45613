"""The graphics cards of a simulated neuron and the models on them: who is where, what fits. Pure.

Memory is booked per device and returned on unload. A model takes one device, the one with most
room, or is split evenly over `tensor_parallel` devices, or over the devices a load names.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec


class Device(msgspec.Struct, frozen=True):
    """One graphics card."""

    index: int
    name: str
    vram_total_mb: int
    compute_capability: str = "8.6"


class SimulatedModel(msgspec.Struct, frozen=True):
    """A model whose weights this neuron has or can fetch. `quants` empty: any is fine."""

    id: str
    vram_mb: int = 1000
    resident: bool = True
    """Loaded when the neuron starts."""
    load_seconds: float = 0.0
    context: int = 32768
    output: int = 4096
    capabilities: tuple[str, ...] = ("text",)
    """Also what else it serves: `rerank`, `image`, `transcription`, `speech`."""
    embedding_dimensions: int = 0
    """Above zero: an embedding model, which does not chat."""
    quants: tuple[str, ...] = ()
    tensor_parallel: int = 1
    tool_call: bool = False
    reasoning: bool = False
    cost: dict[str, float] | None = None
    harness: str = "candle"


@dataclass
class Resident:
    """A model in memory.

    `status` and `servable` may be changed by tests ("recovering"; {"ok": False, ...}).
    """

    model: SimulatedModel
    devices: tuple[int, ...]
    status: str = "loaded"
    servable: dict[str, object] | None = None

    @property
    def vram_mb_per_device(self) -> int:
        """Its share on each of its devices, rounded up."""
        return -(-self.model.vram_mb // len(self.devices))


class DoesNotFit(Exception):
    """A model cannot be on the devices asked for: no room, or no such devices; the text says so."""


class Rack:
    """The devices and what is resident on them."""

    def __init__(self, devices: Sequence[Device], models: Iterable[SimulatedModel]) -> None:
        self.devices = tuple(devices)
        self.known = {model.id: model for model in models}
        self.resident: dict[str, Resident] = {}

    def free_mb(self, index: int) -> int:
        """Free memory of a device."""
        total = next(device.vram_total_mb for device in self.devices if device.index == index)
        return total - sum(
            resident.vram_mb_per_device
            for resident in self.resident.values()
            if index in resident.devices
        )

    def put(
        self,
        model: SimulatedModel,
        *,
        devices: Sequence[int] | None = None,
        tensor_parallel: int | None = None,
    ) -> Resident:
        """Makes a model resident, or raises DoesNotFit and changes nothing."""
        assert model.id not in self.resident, "a model is resident once"
        chosen = tuple(devices or self._roomiest(tensor_parallel or model.tensor_parallel))
        self._check(chosen)
        resident = Resident(model, chosen)
        for index in chosen:
            free_mb = self.free_mb(index)
            if free_mb < resident.vram_mb_per_device:
                raise DoesNotFit(
                    f"insufficient VRAM on device {index}: {model.id} needs "
                    f"{resident.vram_mb_per_device} MB, {free_mb} MB are free"
                )
        self.resident[model.id] = resident
        return resident

    def take_out(self, model_id: str) -> bool:
        """Frees a model's memory; False when it is not resident."""
        return self.resident.pop(model_id, None) is not None

    def _check(self, chosen: Sequence[int]) -> None:
        known = [device.index for device in self.devices]
        for position, index in enumerate(chosen):
            if index not in known:
                raise DoesNotFit(f"device {index} does not exist, this neuron has {known}")
            if index in chosen[:position]:
                raise DoesNotFit(f"device {index} is named twice")

    def _roomiest(self, count: int) -> list[int]:
        by_room = sorted(self.devices, key=lambda device: -self.free_mb(device.index))
        if len(by_room) < count:
            raise DoesNotFit(f"{count} devices wanted, this neuron has {len(by_room)}")
        return [device.index for device in by_room[:count]]
