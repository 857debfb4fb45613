"""The fleet as it is known right now: an immutable picture, and how a report changes it.

Owns what counts as healthy, loaded and servable. Refuses to know how neurons are asked, how a
request picks one, and any secret: a view may be shown as it is.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NewType

import msgspec

from cortexd.config.schema import Cost, Limit, NeuronKind
from cortexd.fleet.reports import (
    DEVICES_MAX,
    Activation,
    Device,
    DeviceHealth,
    Discovery,
    Health,
    ModelId,
    ModelLoad,
    ModelReport,
    Servable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cortexd.config.schema import Neuron

NeuronName = NewType("NeuronName", str)

UNTOLD_POLLS_MAX = 12
"""After so many polls in a row nobody waits any more for what a neuron does not tell: a minute at
the default interval, and less while doubts have it polled more often.
"""

NEURON_UNHEALTHY = Servable(ok=False, reason="neuron_unhealthy")
"""What is said of the models of a neuron that no longer answers."""


class Status(enum.Enum):
    """What a model is doing on a neuron. A word that is none of these means loaded."""

    LOADED = "loaded"
    RECOVERING = "recovering"
    LOADING = "loading"
    RELOADING = "reloading"
    UNLOADED = "unloaded"

    @property
    def resident(self) -> bool:
        """Whether the neuron holds the model, so that it has an address there."""
        return self in (Status.LOADED, Status.RECOVERING)


_STATUSES = {status.value: status for status in Status}


def status_of(said: str) -> Status:
    """Read a status as a neuron says it."""
    return _STATUSES.get(said, Status.LOADED)


class ModelView(msgspec.Struct, frozen=True):
    """A model on a neuron.

    `servable` None: nothing speaks against it. `base_url` (no trailing slash) is what `/v1/...` is
    appended to; None: not known, so it cannot be asked. Limits are None where the neuron is silent.
    `asleep`: loaded, and slow with its next answer. `unaddressed`: polls in a row that showed it
    loaded and did not tell its address.
    """

    id: ModelId
    status: Status
    load: ModelLoad
    base_url: str | None = None
    servable: Servable | None = None
    limit: Limit = Limit()
    cost: Cost | None = None
    capabilities: tuple[str, ...] = ()
    tool_call: bool = False
    reasoning: bool = False
    harness: str | None = None
    devices: tuple[int, ...] = ()
    vram_used_mb: int | None = None
    asleep: bool = False
    unaddressed: int = 0

    @property
    def can_serve(self) -> bool:
        """Whether a request can be sent to it, as far as the model itself goes."""
        return self.status is Status.LOADED and self.is_servable and self.base_url is not None

    @property
    def is_servable(self) -> bool:
        """Whether the neuron says that it can answer, once loaded."""
        return self.servable is None or self.servable.ok

    @property
    def awaits_address(self) -> bool:
        """Whether it is there, and its neuron will say where it is reached in a moment."""
        return self.is_servable and 0 < self.unaddressed <= UNTOLD_POLLS_MAX


class DeviceView(msgspec.Struct, frozen=True):
    """A graphics card of a neuron; None: not known."""

    index: int
    name: str = ""
    compute_capability: str = ""
    vram_total_mb: int | None = None
    vram_used_mb: int | None = None
    vram_free_mb: int | None = None
    utilization_pct: float | None = None
    temp_c: float | None = None


class NeuronView(msgspec.Struct, frozen=True):
    """What is known of one neuron. `misses`: failed polls in a row, the last one's `reason`.

    `healthy` is false until the first answer. `is_stale`: something left it since the last one.
    `memory_is_old`: something left it since it last told of its memory. `withheld`: calls that did
    not answer the last poll, so what they told before stands. `discovery`, `activation` and
    `uptime_seconds` are None while unknown, and always for a kind that cannot tell; so is
    `started_after_ms`: the neuron has been up since some time after that. `undiscovered`: why the
    discovery is not known, in so many `undiscovered_polls` in a row. `anthropic`: as configured.
    """

    name: NeuronName
    kind: NeuronKind
    endpoint: str
    healthy: bool = False
    misses: int = 0
    reason: str | None = None
    models: dict[ModelId, ModelView] = {}
    devices: tuple[DeviceView, ...] = ()
    discovery: Discovery | None = None
    activation: Activation | None = None
    uptime_seconds: float | None = None
    started_after_ms: int | None = None
    is_stale: bool = False
    memory_is_old: bool = False
    withheld: tuple[str, ...] = ()
    undiscovered: str | None = None
    undiscovered_polls: int = 0
    anthropic: bool = False


class FleetView(msgspec.Struct, frozen=True):
    """All neurons, in the order in which they are configured."""

    neurons: dict[NeuronName, NeuronView]


class Answered(msgspec.Struct, frozen=True):
    """A poll that succeeded. `endpoints`: base URLs by model; `health` None: not told for long.

    `loads`: how busy models are, where something else than `health` tells. `withheld`: calls that
    did not answer this time; what they told a while ago stands in for it, and `memory_withheld` is
    whether that goes for memory. `undiscovered`: why it tells no discovery, where it should.
    `started_after_ms`: when the neuron began at the earliest,
    by the time of the fleet.
    """

    models: tuple[ModelReport, ...]
    endpoints: dict[ModelId, str] = {}
    health: Health | None = None
    discovery: Discovery | None = None
    loads: tuple[ModelLoad, ...] = ()
    withheld: tuple[str, ...] = ()
    memory_withheld: bool = False
    undiscovered: str | None = None
    started_after_ms: int | None = None


class Missed(msgspec.Struct, frozen=True):
    """A poll that failed, and why in a few words."""

    reason: str


Report = Answered | Missed


def before_the_first_poll(neurons: Iterable[Neuron]) -> FleetView:
    """The picture at the start: every configured neuron, none of them heard of yet."""
    views = (
        NeuronView(NeuronName(each.name), each.kind, each.endpoint, anthropic=each.anthropic)
        for each in neurons
    )
    return FleetView({view.name: view for view in views})


def fold(neuron: NeuronView, report: Report, *, misses_to_unhealthy: int = 3) -> NeuronView:
    """What is known of a neuron after one more report.

    One answer makes it healthy. `misses_to_unhealthy` misses in a row make it unhealthy: its models
    stay listed, as not servable, until it answers again.
    """
    if isinstance(report, Answered):
        return _after_an_answer(neuron, report)
    misses = neuron.misses + 1
    if misses < misses_to_unhealthy or not neuron.healthy:
        return msgspec.structs.replace(neuron, misses=misses, reason=report.reason)
    models = {
        id: msgspec.structs.replace(model, servable=NEURON_UNHEALTHY, base_url=None)
        for id, model in neuron.models.items()
    }
    return msgspec.structs.replace(
        neuron, healthy=False, misses=misses, reason=report.reason, models=models
    )


def _after_an_answer(neuron: NeuronView, report: Answered) -> NeuronView:
    health = report.health
    loads = {load.id: load for load in (*report.loads, *(health.models if health else ()))}
    discovery = report.discovery or neuron.discovery
    return NeuronView(
        name=neuron.name,
        kind=neuron.kind,
        endpoint=neuron.endpoint,
        healthy=True,
        models={
            model.id: _model(
                model,
                loads.get(model.id),
                report.endpoints.get(model.id),
                neuron.models.get(model.id),
            )
            for model in report.models
        },
        devices=_devices(discovery.devices if discovery else (), health.devices if health else ()),
        discovery=discovery,
        activation=health.activation if health else None,
        uptime_seconds=health.uptime_secs if health else None,
        started_after_ms=report.started_after_ms,
        memory_is_old=(neuron.is_stale or neuron.memory_is_old) and report.memory_withheld,
        withheld=report.withheld,
        undiscovered=report.undiscovered,
        undiscovered_polls=neuron.undiscovered_polls + 1 if report.undiscovered else 0,
        anthropic=neuron.anthropic,
    )


def _model(
    said: ModelReport, load: ModelLoad | None, base_url: str | None, before: ModelView | None
) -> ModelView:
    status = status_of(said.status)
    unaddressed = 0
    if status is Status.LOADED and base_url is None:
        unaddressed = 1 + (before.unaddressed if before else 0)
    return ModelView(
        id=said.id,
        status=status,
        load=load or ModelLoad(said.id),
        base_url=base_url,
        servable=said.servable,
        limit=said.limit,
        cost=said.cost,
        capabilities=said.capabilities,
        tool_call=said.tool_call,
        reasoning=said.reasoning,
        harness=said.harness,
        devices=said.devices,
        vram_used_mb=said.vram_used_mb,
        asleep=said.asleep,
        unaddressed=unaddressed,
    )


def _devices(built: Iterable[Device], now: Iterable[DeviceHealth]) -> tuple[DeviceView, ...]:
    """Cards by index, from what was built in and what is going on; no more than are looked at."""
    views = {
        each.index: DeviceView(
            each.index, each.name, each.compute_capability, each.vram_total_mb or None
        )
        for each in built
    }
    for each in now:
        views[each.index] = msgspec.structs.replace(
            views.get(each.index, DeviceView(each.index)),
            vram_used_mb=each.vram_used_mb,
            vram_free_mb=each.vram_free_mb,
            utilization_pct=each.utilization_pct,
            temp_c=each.temp_c,
        )
    return tuple(views[index] for index in sorted(views)[:DEVICES_MAX])
