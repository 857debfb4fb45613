"""All instruments of one daemon: counters as things happen, gauges from facts at scrape time.

Names and labels are the product contract's; those that begin with `cortex_` are shared with the
system that cortexd descends from. Labels come only from configuration and from what neurons list,
so that no client can make new series.
"""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.metrics_core import Metric

from cortexd.finished import Finished
from cortexd.fleet.view import FleetView
from cortexd.ledger.entries import Standing
from cortexd.ledger.journal import Condition
from cortexd.metrics.budget_gauges import budget_gauges, ledger_gauges
from cortexd.metrics.fleet import FleetInstruments
from cortexd.metrics.fleet_gauges import fleet_gauges
from cortexd.metrics.ledger import LedgerInstruments
from cortexd.metrics.requests import RequestInstruments
from cortexd.metrics.tallies import Clock, Tallies

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All counters and histograms of one daemon, in a registry of their own."""

    def __init__(self, clock: Clock) -> None:
        """Start at zero; `clock` gives the time in seconds since 1970."""
        self.registry = CollectorRegistry(auto_describe=True)
        tallies = Tallies(clock)
        self._requests = RequestInstruments(tallies)
        self.fleet = FleetInstruments(self.registry)
        self.ledger = LedgerInstruments(self.registry, tallies)
        self.registry.register(tallies)
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
        ledgers = ledger_gauges(ledger, clock_skew_ms)
        scrape = _Scrape([*fleet_gauges(view), *budget_gauges(standings), *ledgers])
        return generate_latest(self.registry) + generate_latest(scrape)


class _Scrape:
    """Metric families made for one scrape, in the shape that the exposition wants."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families
