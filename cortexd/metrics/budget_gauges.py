"""How budgets and the ledger stand: gauges made for one scrape."""

from collections.abc import Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from cortexd.ledger.cap_windows import Unit
from cortexd.ledger.entries import Scope, Standing, scope_words
from cortexd.ledger.journal import Condition


def budget_gauges(standings: Sequence[Standing]) -> list[Metric]:
    """The tightest token cap of each key and account, and every cap there is."""
    return [*_budget_gauges(standings), *_cap_gauges(standings)]


def ledger_gauges(ledger: Condition, clock_skew_ms: int) -> list[Metric]:
    """Whether the ledger takes reservations, and how its clock stands."""
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
