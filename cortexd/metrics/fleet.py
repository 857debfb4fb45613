"""What the fleet's state machine does, counted. Implements the `FleetObserver` of the fleet."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cortexd.fleet.breaker import State
from cortexd.fleet.lines import Clock
from cortexd.fleet.orders import Failure, Why
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause
from cortexd.fleet.view import NeuronName

_LOAD_SECONDS = (1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 900, 1800)
_WAIT_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)

_MODEL_NODE = ("model", "node")


class FleetInstruments:
    """Loads, evictions, waits and breakers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the instruments."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels or _MODEL_NODE, registry=registry)

        self._cold_starts = counter("cortex_cold_starts_total", "Loads that were begun")
        self._evictions = counter("cortex_evictions_total", "Models unloaded to make room")
        self._unloads = counter(
            "cortex_unloads_total", "Models unloaded, for whatever reason", *_MODEL_NODE, "reason"
        )
        self._load_failures = counter("cortex_load_failures_total", "Loads that failed")
        self._unload_failures = counter("cortex_unload_failures_total", "Unloads that failed")
        self._unserved = counter(
            "cortex_unserved_total", "Requests that the fleet did not serve", "model", "reason"
        )
        self._load_seconds = Histogram(
            "cortex_load_seconds",
            "Time from the decision to load a model until it can serve",
            _MODEL_NODE,
            buckets=_LOAD_SECONDS,
            registry=registry,
        )
        self._wait_seconds = Histogram(
            "cortex_wait_seconds",
            "Time that requests waited for their turn (queue) and for their model (load)",
            ("clock",),
            buckets=_WAIT_SECONDS,
            registry=registry,
        )
        self._cycles = Gauge(
            "cortex_neuron_load_cycles",
            "Models that left the neuron since it started",
            ("node",),
            registry=registry,
        )
        self._breaker_open = Gauge(
            "cortex_neuron_breaker_open",
            "Whether requests are kept from the neuron because it broke too many",
            ("node",),
            registry=registry,
        )

    def load_began(
        self, model: ModelId, neuron: NeuronName, evict: tuple[ModelId, ...], expected_ms: int
    ) -> None:
        """Count a cold start."""
        self._cold_starts.labels(model, neuron).inc()

    def load_ended(self, model: ModelId, neuron: NeuronName, took_ms: int) -> None:
        """Remember how long a load took."""
        self._load_seconds.labels(model, neuron).observe(took_ms / 1000)

    def load_failed(
        self, model: ModelId, neuron: NeuronName, failure: Failure, retry_in_ms: int
    ) -> None:
        """Count a load that failed."""
        self._load_failures.labels(model, neuron).inc()

    def unloaded(self, model: ModelId, neuron: NeuronName, why: Why, cycles: int) -> None:
        """Count a model that left."""
        self._unloads.labels(model, neuron, why.value).inc()
        if why is Why.MAKES_ROOM:
            self._evictions.labels(model, neuron).inc()
        self._cycles.labels(neuron).set(cycles)

    def unload_failed(self, model: ModelId, neuron: NeuronName, why: Why, failure: Failure) -> None:
        """Count an unload that failed."""
        self._unload_failures.labels(model, neuron).inc()

    def restarted(self, neuron: NeuronName) -> None:
        """Begin to count cycles anew."""
        self._cycles.labels(neuron).set(0)

    def restart_advised(self, neuron: NeuronName, cycles: int) -> None:
        """The count says it."""

    def breaker_changed(self, neuron: NeuronName, state: State) -> None:
        """Remember whether it lets requests pass."""
        self._breaker_open.labels(neuron).set(state is not State.CLOSED)

    def waited(self, model: ModelId, clock: Clock, waited_ms: int) -> None:
        """Remember how long a request waited."""
        self._wait_seconds.labels(clock.value).observe(waited_ms / 1000)

    def unserved(self, model: ModelId, cause: Cause, why: str) -> None:
        """Count a request that was not served. A model that nobody knows makes no series."""
        name = "" if cause is Cause.UNKNOWN else model
        self._unserved.labels(name, cause.value).inc()
