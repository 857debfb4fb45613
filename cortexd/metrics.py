"""The instruments, on prometheus-client: counters as things happen, gauges from facts at scrape
time.

Names and labels are the product contract's; those that begin with `cortex_` are shared with the
system that cortexd descends from. Labels come only from configuration and from what neurons list,
so that no client can make new series.
"""

import math
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from cortexd.dialects.usage import EndingKind
from cortexd.finished import Finished
from cortexd.fleet.view import FleetView
from cortexd.ledger.cap_windows import Unit
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import Scope, Standing, scope_words
from cortexd.ledger.journal import Condition
from cortexd.ledger.retention import DiskUse

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SYNC_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SPEEDS = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)

_MODEL_NODE = ("model", "node")


class Metrics:
    """All counters and histograms of one daemon, in a registry of their own."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = CollectorRegistry(auto_describe=True)
        self._requests = RequestInstruments(self.registry)
        self.ledger = LedgerInstruments(self.registry)
        self._contained = Counter(
            "cortex_connections_contained_total",
            "Connections that ended in an exception which was kept from harming others",
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "cortex_requests_in_flight", "Requests that neurons work on", registry=self.registry
        )
        self._tasks = Gauge("cortex_tasks", "Tasks of the event loop", registry=self.registry)

    def request(self, finished: Finished) -> None:
        """Count one finished request."""
        self._requests.finished(finished)

    def working(self, *, in_flight: int, tasks: int) -> None:
        """So many requests are with neurons now, and so many tasks live in the event loop."""
        self._in_flight.set(in_flight)
        self._tasks.set(tasks)

    def connection_contained(self) -> None:
        """Count one connection that ended in an exception."""
        self._contained.inc()

    def exposition(
        self, view: FleetView, standings: Sequence[Standing], ledger: Condition, clock_skew_ms: int
    ) -> bytes:
        """The text of `GET /metrics`: what was counted, and the fleet, the budgets and the ledger
        as they stand.
        """
        budgets = [*_budget_gauges(standings), *_cap_gauges(standings)]
        scrape = _Scrape([*_fleet_gauges(view), *budgets, *_ledger_gauges(ledger, clock_skew_ms)])
        return generate_latest(self.registry) + generate_latest(scrape)


class RequestInstruments:
    """What is counted of requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the instruments."""

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, _MODEL_NODE, registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, text, _MODEL_NODE, buckets=buckets, registry=registry)

        self._requests = counter("cortex_requests_total", "Requests to inference endpoints")
        self._errors = counter("cortex_request_errors_total", "Requests answered with an error")
        self._duration = histogram(
            "cortex_request_duration_seconds",
            "Time from the request to the end of its answer",
            _SECONDS,
        )
        self._first_token = histogram(
            "cortex_time_to_first_token_seconds",
            "Time from the request to its first bytes",
            _SECONDS,
        )
        self._speed = histogram(
            "cortex_tokens_per_second", "Completion tokens per second after the first", _SPEEDS
        )
        self._prompt = counter("cortex_prompt_tokens_total", "Prompt tokens that neurons reported")
        self._completion = counter(
            "cortex_completion_tokens_total", "Completion tokens that neurons reported"
        )
        self._cached = counter(
            "cortex_cached_prompt_tokens_total", "Prompt tokens that neurons took from their cache"
        )
        self._spend = SpendInstruments(registry)
        self._overrun = counter(
            "cortex_overrun_tokens_total", "Tokens that neurons used beyond what was reserved"
        )
        self._unjournalled = Counter(
            "cortex_ledger_unjournalled_requests_total",
            "Requests without a cap that were served while the ledger took no reservations",
            registry=registry,
        )

    def finished(self, finished: Finished) -> None:
        """Count one finished request; only inference requests have a model."""
        if finished.refused is not None:
            self._spend.refused(finished)
        if finished.would_refuse is not None:
            self._spend.shadow_refused(finished)
        if finished.unjournalled:
            self._unjournalled.inc()
        if finished.model is None:
            return
        labels = (finished.model, finished.neuron or "")
        self._requests.labels(*labels).inc()
        left_early = finished.ending is EndingKind.CLIENT_GONE
        if (finished.status >= 400 and not left_early) or finished.failure is not None:
            self._errors.labels(*labels).inc()
        self._duration.labels(*labels).observe(finished.duration_seconds)
        if finished.charge is not None:
            self._spend.charged(finished, finished.charge)
            if finished.charge.overrun:
                self._overrun.labels(*labels).inc(finished.charge.overrun)
        if finished.first_token_seconds is not None:
            self._answered(finished, finished.first_token_seconds, labels)

    def _answered(self, finished: Finished, first: float, labels: tuple[str, str]) -> None:
        self._first_token.labels(*labels).observe(first)
        usage = finished.usage
        if usage is None:
            return
        self._prompt.labels(*labels).inc(usage.prompt_tokens)
        self._completion.labels(*labels).inc(usage.completion_tokens)
        self._cached.labels(*labels).inc(usage.cached_prompt_tokens)
        seconds = finished.duration_seconds - first
        if finished.stream and usage.completion_tokens > 1 and seconds > 0:
            self._speed.labels(*labels).observe((usage.completion_tokens - 1) / seconds)


class SpendInstruments:
    """What is counted per account and key."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the instruments."""

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(name, text, ("account", "key", *more), registry=registry)

        self._tokens = counter("cortex_spend_tokens_total", "Tokens charged")
        self._prompt = counter("cortex_spend_prompt_tokens_total", "Prompt tokens charged")
        self._completion = counter(
            "cortex_spend_completion_tokens_total", "Completion tokens charged"
        )
        self._refusals = counter(
            "cortex_budget_refusals_total", "Requests refused because of a cap", "reason"
        )
        self._shadow_refusals = counter(
            "cortex_budget_shadow_refusals_total", "Requests that a shadow cap would have refused"
        )

    def charged(self, finished: Finished, charge: Charge) -> None:
        """Count what one request cost."""
        labels = (finished.account_id or "", finished.key_id or "")
        self._tokens.labels(*labels).inc(charge.tokens)
        self._prompt.labels(*labels).inc(charge.prompt_tokens)
        self._completion.labels(*labels).inc(charge.completion_tokens)

    def refused(self, finished: Finished) -> None:
        """Count one refusal by a cap."""
        account, key = finished.account_id or "", finished.key_id or ""
        self._refusals.labels(account, key, finished.code or "").inc()

    def shadow_refused(self, finished: Finished) -> None:
        """Count one request that was served although a shadow cap has no room for it."""
        account, key = finished.account_id or "", finished.key_id or ""
        self._shadow_refusals.labels(account, key).inc()


class LedgerInstruments:
    """What the ledger tells about itself; it is the ledger's observer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the instruments."""

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, registry=registry)

        self._sync = Histogram(
            "cortex_ledger_fsync_seconds",
            "Time of one fdatasync of the journal",
            buckets=_SYNC_SECONDS,
            registry=registry,
        )
        self._batch = Histogram(
            "cortex_ledger_batch_size",
            "Calls that the ledger took in one batch",
            buckets=_BATCH,
            registry=registry,
        )
        self._entries = Counter(
            "cortex_ledger_entries_total", "Entries written to the journal", registry=registry
        )
        self._unresolved = gauge(
            "cortex_ledger_unresolved_tokens",
            "Tokens reserved by requests whose end was lost in a crash, until they are charged",
        )
        self._unresolved_charges = Counter(
            "cortex_ledger_unresolved_charges_total",
            "Reservations charged in full because their request's end was lost in a crash",
            registry=registry,
        )
        self._open = gauge("cortex_ledger_open_reservations", "Open reservations")
        self._disk = gauge("cortex_ledger_disk_bytes", "Size of all segments of the journal")
        self._segments = gauge("cortex_ledger_segments", "Segments of the journal")
        self._free = gauge(
            "cortex_ledger_disk_free_bytes",
            "Free space on the journal's disk when last measured; NaN: unknown",
        )

    def batch(self, commands: int, records: int) -> None:
        """One batch of `commands` calls became `records` journal entries."""
        self._batch.observe(commands)
        self._entries.inc(records)

    def synced(self, seconds: float) -> None:
        """One fdatasync took `seconds`."""
        self._sync.observe(seconds)

    def disk(self, use: DiskUse) -> None:
        """What the journal takes on its disk now."""
        self._disk.set(use.size_bytes)
        self._segments.set(use.segments)
        self._free.set(math.nan if use.free_bytes is None else use.free_bytes)

    def open_reservations(self, n: int) -> None:
        """So many reservations are open now."""
        self._open.set(n)

    def unresolved(self, tokens: int) -> None:
        """So many tokens are reserved now by requests whose end was lost in a crash."""
        self._unresolved.set(tokens)

    def settled(self, scopes: tuple[Scope, ...], charge: Charge) -> None:
        """A reservation was closed. Requests count their own charge; a lost one is counted here."""
        if charge.why == "crash":
            self._unresolved_charges.inc()


class _Scrape:
    """Metric families made for one scrape, in the shape that the exposition wants."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


_MODEL_GAUGES = {
    "cortex_model_in_flight": ("in_flight", "Requests that the neuron is working on"),
    "cortex_model_queue_depth": ("queue_depth", "Requests that wait at the neuron"),
    "cortex_model_max_in_flight": ("max_in_flight", "Most requests at work (0: unknown)"),
    "cortex_model_max_queue_depth": ("max_queue_depth", "Most requests waiting (0: unknown)"),
    "cortex_model_tok_s_prefill": ("tok_s_prefill", "Prompt tokens per second"),
    "cortex_model_tok_s_decode": ("tok_s_decode", "Completion tokens per second"),
}
_DEVICE_GAUGES = {
    "cortex_device_vram_used_mb": ("vram_used_mb", "Memory in use"),
    "cortex_device_vram_free_mb": ("vram_free_mb", "Memory free"),
    "cortex_device_utilization_pct": ("utilization_pct", "Utilization"),
    "cortex_device_temp_c": ("temp_c", "Temperature"),
}
_REJECTIONS = (
    "queue_full",
    "timeout",
    "per_principal",
    "anon_yield",
    "kv_timeout",
    "kv_unservable",
)


def _fleet_gauges(view: FleetView) -> list[Metric]:
    """What neurons last said of themselves, as they said it."""
    up = GaugeMetricFamily("cortex_neuron_up", "Whether the neuron is healthy", labels=("node",))
    for neuron in view.neurons.values():
        up.add_metric((neuron.name,), neuron.healthy)
    return [up, *_model_gauges(view), _rejections(view), *_device_gauges(view)]


def _model_gauges(view: FleetView) -> list[Metric]:
    families: list[Metric] = []
    for name, (field, text) in _MODEL_GAUGES.items():
        family = GaugeMetricFamily(name, text, labels=("node", "model"))
        for neuron in view.neurons.values():
            for model in neuron.models.values():
                family.add_metric((neuron.name, model.id), getattr(model.load, field))
        families.append(family)
    return families


def _rejections(view: FleetView) -> Metric:
    family = CounterMetricFamily(
        "cortex_model_rejections_total",
        "Requests that the neuron turned away since it loaded the model",
        labels=("node", "model", "reason"),
    )
    for neuron in view.neurons.values():
        for model in neuron.models.values():
            for reason in _REJECTIONS:
                count = getattr(model.load, f"rejected_{reason}")
                family.add_metric((neuron.name, model.id, reason), count)
    return family


def _device_gauges(view: FleetView) -> list[Metric]:
    families: list[Metric] = []
    for name, (field, text) in _DEVICE_GAUGES.items():
        family = GaugeMetricFamily(name, text, labels=("node", "device"))
        for neuron in view.neurons.values():
            for device in neuron.devices:
                value = getattr(device, field)
                if value is not None:
                    family.add_metric((neuron.name, str(device.index)), value)
        families.append(family)
    return families


def _ledger_gauges(ledger: Condition, clock_skew_ms: int) -> list[Metric]:
    facts = (
        ("available", "Whether the ledger takes reservations", ledger == "ok"),
        ("clock_skew_seconds", "How far the wall clock is ahead of its own", clock_skew_ms / 1000),
    )
    return [GaugeMetricFamily(f"cortex_ledger_{name}", text, value) for name, text, value in facts]


_UNITS: dict[Unit, str] = {"tok": "tokens", "req": "requests", "con": "in_flight"}


def _budget_gauges(standings: Sequence[Standing]) -> list[Metric]:
    """The token cap with the least left of each key and account; shadows refuse nothing."""
    tightest: dict[Scope, Standing] = {}
    for standing in standings:
        found = tightest.get(standing.scope, standing)
        if standing.unit != "tok" or standing.shadow:
            continue
        if standing.available <= found.available:
            tightest[standing.scope] = standing
    cap, spent, reserved = (
        GaugeMetricFamily(f"cortex_budget_{name}_tokens", text, labels=("scope", "name"))
        for name, text in (
            ("hard_cap", "The token cap with the least left"),
            ("spent", "Spent under that cap"),
            ("reserved", "Reserved under that cap by open requests"),
        )
    )
    for standing in tightest.values():
        words = scope_words(standing.scope)
        cap.add_metric(words, standing.hard_cap)
        spent.add_metric(words, standing.spent)
        reserved.add_metric(words, standing.reserved)
    return [cap, spent, reserved]


def _cap_gauges(standings: Sequence[Standing]) -> list[Metric]:
    """Every cap of whatever unit and window, as the journal names them."""
    labels = ("scope", "name", "unit", "window", "shadow")
    limit, spent, reserved = (
        GaugeMetricFamily(f"cortex_budget_cap_{name}", text, labels=labels)
        for name, text in (
            ("limit", "A cap, in its unit"),
            ("spent", "Spent under the cap"),
            ("reserved", "Reserved under the cap by open requests"),
        )
    )
    for standing in standings:
        unit, window = _UNITS[standing.unit], standing.window.words
        values = (*scope_words(standing.scope), unit, window, str(standing.shadow).lower())
        limit.add_metric(values, standing.hard_cap)
        spent.add_metric(values, standing.spent)
        reserved.add_metric(values, standing.reserved)
    return [limit, spent, reserved]
