"""The instruments: what is counted of a request, and what is shown of caps and of the ledger."""

import math

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cortexd.finished import Finished
from cortexd.fleet.serving import Cause, Unserved
from cortexd.fleet.view import FleetView
from cortexd.ledger.cap_windows import BALANCE, HELD, calendar, rolling
from cortexd.ledger.entries import Refused, Standing, account_scope, key_scope
from cortexd.ledger.journal import Condition
from cortexd.ledger.retention import DiskUse
from cortexd.metrics.instruments import Metrics

CI, ACME = key_scope("ci"), account_scope("acme")
NOTHING = FleetView({})
SERVED = Finished("req_1", "POST", "/v1/chat/completions", 200, 1, "acme", "ci")

Samples = dict[tuple[str, tuple[str, ...]], float]


def samples(
    *standings: Standing,
    metrics: Metrics | None = None,
    ledger: Condition = "ok",
    clock_skew_ms: int = 0,
) -> Samples:
    """Every sample of an exposition, by name and the values of its labels in alphabetical order."""
    exposition = (metrics or Metrics()).exposition
    text = exposition(NOTHING, standings, ledger, clock_skew_ms=clock_skew_ms).decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            assert (sample.name, labels) not in found, "a series that is there twice"
            found[sample.name, labels] = sample.value
    return found


def test_the_token_cap_with_the_least_left_stands_for_its_key_or_account() -> None:
    found = samples(
        Standing(ACME, 50, BALANCE, 1, 2, None),
        Standing(CI, 100, BALANCE, 10, 0, None),
        Standing(CI, 100, rolling(60_000), 70, 20, None),
        Standing(CI, 90, calendar("day", "UTC"), 0, 20, None),
        Standing(CI, 1, HELD, 0, 1, None, "con"),
    )
    for name, of_key, of_account in (
        ("hard_cap", 100, 50),
        ("spent", 70, 1),
        ("reserved", 20, 2),
    ):
        assert found[f"cortex_budget_{name}_tokens", ("ci", "key")] == of_key
        assert found[f"cortex_budget_{name}_tokens", ("acme", "account")] == of_account


def test_a_shadow_stands_for_nobody_as_it_refuses_nothing() -> None:
    shadow = Standing(CI, 10, BALANCE, 10, 0, None, shadow=True)
    found = samples(shadow, Standing(CI, 100, rolling(60_000), 70, 20, None))
    for name, value in (("hard_cap", 100), ("spent", 70), ("reserved", 20)):
        assert found[f"cortex_budget_{name}_tokens", ("ci", "key")] == value
    assert not [labels for name, labels in samples(shadow) if name.endswith("_cap_tokens")]


@pytest.mark.parametrize(("shadow", "label"), [(True, "true"), (False, "false")])
def test_a_shadow_is_marked_among_the_caps(shadow: bool, label: str) -> None:
    found = samples(Standing(CI, 10, BALANCE, 4, 3, None, shadow=shadow))
    labels = ("ci", "key", label, "tokens", "balance")
    shown = [found[f"cortex_budget_cap_{name}", labels] for name in ("limit", "spent", "reserved")]
    assert shown == [10, 4, 3]


@pytest.mark.parametrize("skew_ms", [0, 2_500, -86_400_000])
def test_how_far_the_wall_clock_is_ahead_of_the_ledgers_is_told(skew_ms: int) -> None:
    found = samples(clock_skew_ms=skew_ms)
    assert found["cortex_ledger_clock_skew_seconds", ()] == skew_ms / 1000


def test_every_cap_is_shown_in_its_unit_and_window() -> None:
    found = samples(
        Standing(CI, 100, rolling(60_000), 70, 20, None),
        Standing(CI, 9, calendar("day", "Europe/Berlin"), 4, 0, None, "req"),
        Standing(CI, 3, HELD, 0, 2, None, "con"),
    )
    shown = {
        labels[3:]: tuple(
            found[f"cortex_budget_cap_{name}", labels] for name in ("limit", "spent", "reserved")
        )
        for name, labels in found
        if name == "cortex_budget_cap_limit"
    }
    assert shown == {
        ("tokens", "rolling:60000"): (100, 70, 20),
        ("requests", "calendar:day:Europe/Berlin"): (9, 4, 0),
        ("in_flight", "held"): (3, 0, 2),
    }


def test_a_scope_without_a_token_cap_has_no_token_gauges() -> None:
    found = samples(Standing(CI, 3, HELD, 0, 2, None, "con"))
    assert not [name for name, _ in found if name == "cortex_budget_spent_tokens"]


@pytest.mark.parametrize(("ledger", "shown"), [("ok", 1), ("low_on_room", 0), ("failed", 0)])
def test_the_ledger_is_available_or_not(ledger: Condition, shown: int) -> None:
    assert samples(ledger=ledger)["cortex_ledger_available", ()] == shown


def test_what_the_journal_takes_on_its_disk_is_told() -> None:
    metrics = Metrics()
    metrics.ledger.disk(DiskUse(segments=3, size_bytes=4_000, free_bytes=50_000))
    found = samples(metrics=metrics)
    assert found["cortex_ledger_segments", ()] == 3
    assert found["cortex_ledger_disk_bytes", ()] == 4_000
    assert found["cortex_ledger_disk_free_bytes", ()] == 50_000
    metrics.ledger.disk(DiskUse(segments=3, size_bytes=4_000, free_bytes=None))
    assert math.isnan(samples(metrics=metrics)["cortex_ledger_disk_free_bytes", ()])


def test_what_shadows_would_refuse_and_what_went_unjournalled_is_counted() -> None:
    metrics = Metrics()
    unjournalled = "cortex_ledger_unjournalled_requests_total"
    shadow = "cortex_budget_shadow_refusals_total"
    assert samples(metrics=metrics)[unjournalled, ()] == 0
    refused = Refused(Standing(CI, 1, BALANCE, 1, 0, None), 5, None, exact=False)
    metrics.request(msgspec.structs.replace(SERVED, would_refuse=refused))
    metrics.request(msgspec.structs.replace(SERVED, unjournalled=True))
    metrics.request(SERVED)
    found = samples(metrics=metrics)
    assert (found[unjournalled, ()], found[shadow, ("acme", "ci")]) == (1, 1)
    assert ("cortex_budget_refusals_total", ("acme", "ci", "")) not in found


@pytest.mark.parametrize(
    ("finished", "clock"),
    [
        ({"clock": "first_byte"}, "first_token"),
        ({"clock": "between_bytes"}, "between_tokens"),
        ({"unserved": Unserved(Cause.QUEUE_CLOCK)}, "queue"),
        ({"unserved": Unserved(Cause.LOAD_CLOCK)}, "load"),
        ({"unserved": Unserved(Cause.LOADING)}, "load"),
    ],
)
def test_each_clock_that_runs_out_is_counted_as_itself(
    finished: dict[str, object], clock: str
) -> None:
    metrics = Metrics()
    metrics.request(msgspec.structs.replace(SERVED, **finished))
    metrics.request(msgspec.structs.replace(SERVED, unserved=Unserved(Cause.NO_ROOM)))
    found = samples(metrics=metrics)
    expired = {labels: value for (name, labels), value in found.items() if "expired_total" in name}
    assert expired == {(clock,): 1}


def test_more_labels_than_are_remembered_are_all_counted() -> None:
    metrics, standing = Metrics(), Standing(CI, 10, BALANCE, 10, 0, None, shadow=True)
    shadow = Refused(standing, asked=1, fits_in_ms=None, exact=False)
    asked = [
        Finished("req_1", "POST", "/", 200, 1, "acme", f"key-{n}", would_refuse=shadow)
        for n in range(5_000)
    ]
    for finished in asked * 2:
        metrics.request(finished)
    [family] = [f for f in metrics.registry.collect() if f.name.endswith("shadow_refusals")]
    counted = [each.value for each in family.samples if each.name.endswith("_total")]
    assert counted == [2] * 5_000
