"""The ready-made world of `cortexd demo`: three neurons with different cards, four names for three
models, two keys with a cap each, and the configuration that ties them together.

Replies are long enough, and the caps small enough, that about ten questions reach a cap.
"""

from hashlib import sha256

import msgspec

from cortexd.config.schema import (
    Catalogue,
    CatalogueModel,
    Config,
    Cost,
    Entitlements,
    Gateway,
    Key,
    Ledger,
    Limit,
    Neuron,
    Polling,
    RollingWindow,
)
from cortexd.demo.admission import AdmissionLimits
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
ALIASES = {"large": LARGE, "small": SMALL}

_OUTPUT_TOKENS_MAX = 320
_NATURAL_TOKENS = (90, 240)
_CONTEXT_TOKENS = 8192
_LINE = AdmissionLimits(max_in_flight=4, max_queue_depth=16)


class DemoWorld(msgspec.Struct, frozen=True):
    """What a demo daemon is started with. The neurons are bound, and wait to be served."""

    config: Config
    catalogue: Catalogue
    neurons: tuple[SimulatedNeuron, ...]

    def close(self) -> None:
        """Gives the neurons' addresses back, if they were never served."""
        for neuron in self.neurons:
            neuron.close()


def demo_world(*, listen: str, metrics_listen: str, ledger_directory: str) -> DemoWorld:
    """Binds the neurons to free ports of 127.0.0.1 and writes the configuration around them."""
    neurons = _neurons()
    for neuron in neurons:
        neuron.bind()
    config = Config(
        gateway=Gateway(listen=listen, metrics_listen=metrics_listen, grace_seconds=5),
        neurons=tuple(Neuron(neuron.name, neuron.url) for neuron in neurons),
        entitlements=Entitlements(require_auth=True, keys=_keys()),
        ledger=Ledger(ledger_directory),
        polling=Polling(interval_seconds=2),
    )
    return DemoWorld(config, _catalogue(), neurons)


def _neurons() -> tuple[SimulatedNeuron, ...]:
    large = _model(LARGE, vram_mb=36000, tensor_parallel=2, reasoning=True)
    small = _model(SMALL, vram_mb=6500)
    tiny = _model(TINY, vram_mb=1200)
    beast = tuple(Device(index, "Simulated RTX 3090", 24576) for index in range(2))
    scout = (Device(0, "Simulated RTX 3060", 12288),)
    mini = (Device(0, "Simulated RTX 2070", 8192, "7.5"),)
    return (
        _neuron("beast", (large,), beast, token_seconds=0.015),
        _neuron("scout", (small, tiny), scout, token_seconds=0.01),
        _neuron("mini", (small,), mini, token_seconds=0.02),
    )


def _neuron(
    name: str,
    models: tuple[SimulatedModel, ...],
    devices: tuple[Device, ...],
    *,
    token_seconds: float,
) -> SimulatedNeuron:
    switches = Switches(
        token_seconds=token_seconds,
        prefill_seconds=10 * token_seconds,
        natural_tokens=_NATURAL_TOKENS,
    )
    return SimulatedNeuron(name, models, devices, switches=switches, admission=_LINE)


def _model(
    model_id: str, *, vram_mb: int, tensor_parallel: int = 1, reasoning: bool = False
) -> SimulatedModel:
    return SimulatedModel(
        model_id,
        vram_mb,
        load_seconds=vram_mb / 6000,
        context=_CONTEXT_TOKENS,
        output=_OUTPUT_TOKENS_MAX,
        tensor_parallel=tensor_parallel,
        reasoning=reasoning,
    )


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
    limit = Limit(context=_CONTEXT_TOKENS, output=_OUTPUT_TOKENS_MAX)
    return Catalogue(
        models=(
            CatalogueModel(
                LARGE,
                harness="candle",
                vram_mb=36000,
                min_devices=2,
                pinned_on=("beast",),
                limit=limit,
                cost=Cost(input=0.4, output=1.2),
                capabilities=("text",),
            ),
            CatalogueModel(
                SMALL,
                harness="candle",
                vram_mb=6500,
                limit=limit,
                cost=Cost(input=0.1, output=0.3),
                capabilities=("text",),
            ),
            CatalogueModel(
                TINY,
                harness="candle",
                vram_mb=1200,
                limit=limit,
                cost=Cost(input=0, output=0),
                capabilities=("text",),
            ),
        ),
        aliases=dict(ALIASES),
    )
