"""The ready-made world of `cortexd demo`: three neurons with different cards, five models, two keys
with a cap each, and the configuration that ties them together.

Replies are long enough, and the caps small enough, that about ten questions reach a cap. Three
models are loaded at the start. Of the other two one fits beside them, and one only where another
makes room; both take long enough to load, and the clocks are short enough, to watch it. A real
engine, if there is one, is one more neuron with one more model.
"""

from hashlib import sha256

import msgspec

from cortexd.config.schema import (
    Catalogue,
    CatalogueModel,
    Config,
    Cost,
    Entitlements,
    Eviction,
    Gateway,
    Key,
    Ledger,
    Limit,
    Neuron,
    Polling,
    RollingWindow,
    Waiting,
)
from cortexd.demo.admission import AdmissionLimits
from cortexd.demo.engine import CONTEXT_TOKENS as ENGINE_CONTEXT_TOKENS
from cortexd.demo.engine import RunningEngine
from cortexd.demo.hardware import Device, SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import Switches

BALANCE_KEY = "sk-demo-balance"
BALANCE_CAP_TOKENS = 2000
ROLLING_KEY = "sk-demo-rolling"
ROLLING_CAP_TOKENS = 1500
ROLLING_SECONDS = 60

LARGE = "sim/oak-32b"
SMALL = "sim/fern-8b"
TINY = "sim/moss-1b"
COLD = "sim/yew-3b"
"""Loaded nowhere at first; there is room for it."""
DISPLACING = "sim/elm-14b"
"""Loaded nowhere at first, and only where `SMALL` leaves for it."""
DISPLACED_ON = "scout"
ENGINE_NEURON = "real"
ALIASES = {"large": LARGE, "small": SMALL}

_OUTPUT_TOKENS_MAX = 320
_NATURAL_TOKENS = (90, 240)
_CONTEXT_TOKENS = 8192
_LOADED_MB_PER_SECOND = 800
_LINE = AdmissionLimits(max_in_flight=4, max_queue_depth=16)


class DemoWorld(msgspec.Struct, frozen=True):
    """What a demo daemon is started with. The simulated neurons are bound and wait to be served."""

    config: Config
    catalogue: Catalogue
    neurons: tuple[SimulatedNeuron, ...]
    engine: RunningEngine | None = None

    def close(self) -> None:
        """Gives the neurons' addresses back, if they were never served."""
        for neuron in self.neurons:
            neuron.close()


def demo_world(
    *,
    listen: str,
    metrics_listen: str,
    ledger_directory: str,
    admin_socket: str | None = None,
    engine: RunningEngine | None = None,
) -> DemoWorld:
    """Binds the neurons to free ports of 127.0.0.1 and writes the configuration around them."""
    neurons = _neurons()
    for neuron in neurons:
        neuron.bind()
    config = Config(
        gateway=Gateway(
            listen=listen,
            metrics_listen=metrics_listen,
            admin_socket=admin_socket,
            grace_seconds=5,
        ),
        eviction=Eviction(min_residency_seconds=5, max_swap_wait_seconds=10, drain_seconds=5),
        neurons=(*(Neuron(neuron.name, neuron.url) for neuron in neurons), *_real(engine)),
        entitlements=Entitlements(require_auth=True, keys=_keys()),
        ledger=Ledger(ledger_directory),
        polling=Polling(interval_seconds=2),
        waiting=Waiting(heartbeat_seconds=2),
    )
    return DemoWorld(config, _with_engine(_catalogue(), engine), neurons, engine)


def _real(engine: RunningEngine | None) -> tuple[Neuron, ...]:
    return () if engine is None else (Neuron(ENGINE_NEURON, engine.url, "llama-server"),)


def _with_engine(catalogue: Catalogue, engine: RunningEngine | None) -> Catalogue:
    """What it serves is bounded as the other models are, so that the demo's caps fit it, too."""
    if engine is None:
        return catalogue
    model = CatalogueModel(
        engine.model,
        harness="llama.cpp",  # which no simulated neuron has
        limit=Limit(context=ENGINE_CONTEXT_TOKENS, output=_OUTPUT_TOKENS_MAX),
        capabilities=("text",),
    )
    return msgspec.structs.replace(catalogue, models=(*catalogue.models, model))


def _neurons() -> tuple[SimulatedNeuron, ...]:
    beast = tuple(Device(index, "Simulated RTX 3090", 24576) for index in range(2))
    scout = (Device(0, "Simulated RTX 3060", 12288),)
    mini = (Device(0, "Simulated RTX 2070", 8192, "7.5"),)
    return (
        _neuron("beast", (LARGE,), beast, token_seconds=0.015),
        _neuron(DISPLACED_ON, (SMALL, TINY), scout, token_seconds=0.01),
        _neuron("mini", (SMALL,), mini, token_seconds=0.02),
    )


def _neuron(
    name: str,
    resident: tuple[str, ...],
    devices: tuple[Device, ...],
    *,
    token_seconds: float,
) -> SimulatedNeuron:
    """A neuron that can load every model of this world, and has these loaded."""
    switches = Switches(
        token_seconds=token_seconds,
        prefill_seconds=10 * token_seconds,
        natural_tokens=_NATURAL_TOKENS,
    )
    models = tuple(
        SimulatedModel(
            model.id,
            model.vram_mb or 0,
            resident=model.id in resident,
            load_seconds=(model.vram_mb or 0) / _LOADED_MB_PER_SECOND,
            context=_CONTEXT_TOKENS,
            output=_OUTPUT_TOKENS_MAX,
            tensor_parallel=model.min_devices,
            reasoning=model.id == LARGE,
        )
        for model in _catalogue().models
    )
    return SimulatedNeuron(name, models, devices, switches=switches, admission=_LINE)


def _keys() -> tuple[Key, ...]:
    return (
        Key(
            "demo-balance",
            key_id="demo-balance",
            key_sha256=sha256(BALANCE_KEY.encode()).hexdigest(),
            hard_cap=BALANCE_CAP_TOKENS,
        ),
        Key(
            "demo-rolling",
            key_id="demo-rolling",
            key_sha256=sha256(ROLLING_KEY.encode()).hexdigest(),
            hard_cap=ROLLING_CAP_TOKENS,
            window=RollingWindow(ROLLING_SECONDS),
        ),
    )


def _catalogue() -> Catalogue:
    return Catalogue(
        models=(
            _model(LARGE, 36000, Cost(0.4, 1.2), min_devices=2, pinned_on=("beast",)),
            _model(SMALL, 6500, Cost(0.1, 0.3)),
            _model(TINY, 1200, Cost(0, 0)),
            _model(COLD, 4000, Cost(0.05, 0.15)),
            _model(DISPLACING, 9000, Cost(0.2, 0.6)),
        ),
        aliases=dict(ALIASES),
    )


def _model(
    model_id: str,
    vram_mb: int,
    cost: Cost,
    *,
    min_devices: int = 1,
    pinned_on: tuple[str, ...] = (),
) -> CatalogueModel:
    return CatalogueModel(
        model_id,
        harness="candle",
        vram_mb=vram_mb,
        min_devices=min_devices,
        pinned_on=pinned_on,
        limit=Limit(context=_CONTEXT_TOKENS, output=_OUTPUT_TOKENS_MAX),
        cost=cost,
        capabilities=("text",),
    )
