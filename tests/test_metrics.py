"""The instruments: what is counted of a request, and what is shown of caps and of the ledger."""

import math
import re

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cortexd.dialects.usage import EndingKind, Usage
from cortexd.finished import Finished
from cortexd.fleet.serving import Cause, Unserved
from cortexd.fleet.view import FleetView
from cortexd.ledger.cap_windows import BALANCE, HELD, calendar, rolling
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import Refused, Standing, account_scope, key_scope
from cortexd.ledger.journal import Condition
from cortexd.ledger.retention import DiskUse
from cortexd.metrics.instruments import Metrics

CI, ACME = key_scope("ci"), account_scope("acme")
NOTHING = FleetView({})
NOW = 1_700_000_000.5
SERVED = Finished("req_1", "POST", "/v1/chat/completions", 200, 1, "acme", "ci")

Samples = dict[tuple[str, tuple[str, ...]], float]


def at_zero() -> Metrics:
    """Metrics of a daemon that has done nothing, at one moment."""
    return Metrics(lambda: NOW)


def samples(
    *standings: Standing,
    metrics: Metrics | None = None,
    ledger: Condition = "ok",
    clock_skew_ms: int = 0,
) -> Samples:
    """Every sample of an exposition, by name and the values of its labels in alphabetical order."""
    exposition = (metrics or at_zero()).exposition
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
    metrics = at_zero()
    metrics.ledger.disk(DiskUse(segments=3, size_bytes=4_000, free_bytes=50_000))
    found = samples(metrics=metrics)
    assert found["cortex_ledger_segments", ()] == 3
    assert found["cortex_ledger_disk_bytes", ()] == 4_000
    assert found["cortex_ledger_disk_free_bytes", ()] == 50_000
    metrics.ledger.disk(DiskUse(segments=3, size_bytes=4_000, free_bytes=None))
    assert math.isnan(samples(metrics=metrics)["cortex_ledger_disk_free_bytes", ()])


def test_what_shadows_would_refuse_and_what_went_unjournalled_is_counted() -> None:
    metrics = at_zero()
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
    metrics = at_zero()
    metrics.request(msgspec.structs.replace(SERVED, **finished))
    metrics.request(msgspec.structs.replace(SERVED, unserved=Unserved(Cause.NO_ROOM)))
    found = samples(metrics=metrics)
    expired = {labels: value for (name, labels), value in found.items() if "expired_total" in name}
    assert expired == {(clock,): 1}


def test_more_labels_than_are_remembered_are_all_counted() -> None:
    metrics, standing = at_zero(), Standing(CI, 10, BALANCE, 10, 0, None, shadow=True)
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


SCRAPED = """\
cortex_budget_refusals_total{account="acme",key="ci",reason="rate_limit_exceeded"} 1.0
cortex_cached_prompt_tokens_total{model="org/m",node="beast"} 5.0
cortex_clock_expired_total{clock="first_token"} 1.0
cortex_completion_tokens_total{model="org/m",node="beast"} 24.0
cortex_overrun_tokens_total{model="org/m",node="beast"} 7.0
cortex_prompt_tokens_total{model="org/m",node="beast"} 80.0
cortex_request_duration_seconds_count{model="",node=""} 1.0
cortex_request_duration_seconds_count{model="org/m",node=""} 2.0
cortex_request_duration_seconds_count{model="org/m",node="beast"} 3.0
cortex_request_duration_seconds_sum{model="",node=""} 0.0
cortex_request_duration_seconds_sum{model="org/m",node=""} 0.0078125
cortex_request_duration_seconds_sum{model="org/m",node="beast"} 702.0
cortex_request_errors_total{model="",node=""} 1.0
cortex_request_errors_total{model="org/m",node=""} 1.0
cortex_request_errors_total{model="org/m",node="beast"} 1.0
cortex_requests_total{model="",node=""} 1.0
cortex_requests_total{model="org/m",node=""} 2.0
cortex_requests_total{model="org/m",node="beast"} 3.0
cortex_spend_completion_tokens_total{account="acme",key="ci"} 31.0
cortex_spend_prompt_tokens_total{account="acme",key="ci"} 80.0
cortex_spend_tokens_total{account="acme",key="ci"} 111.0
cortex_time_to_first_token_seconds_count{model="org/m",node="beast"} 2.0
cortex_time_to_first_token_seconds_sum{model="org/m",node="beast"} 0.5
cortex_tokens_per_second_count{model="org/m",node="beast"} 1.0
cortex_tokens_per_second_sum{model="org/m",node="beast"} 25.333333333333332
"""


def test_what_came_of_requests_is_scraped_as_it_ever_was() -> None:
    """To the letter, as dashboards and alert rules are written against it."""
    refused = Refused(Standing(CI, 10, BALANCE, 10, 0, None), 1, None, exact=False)
    charge = Charge(67, 40, 27, "settle", overrun=7)
    asked = msgspec.structs.replace(SERVED, model="org/m", duration_seconds=1 / 256)
    served = msgspec.structs.replace(SERVED, model="org/m", neuron="beast")
    answered = msgspec.structs.replace(
        served, stream=True, first_token_seconds=0.25, usage=Usage(40, 20, 5), charge=charge
    )
    metrics = at_zero()
    for finished, facts in (
        (SERVED, {"path": "/v1/models"}),
        (SERVED, {"status": 401, "code": "invalid_api_key", "model": "", "duration_seconds": 0}),
        (asked, {"refused": refused, "status": 429, "code": "rate_limit_exceeded"}),
        (asked, {"status": 499, "ending": EndingKind.CLIENT_GONE}),
        (answered, {}),
        (answered, {"stream": False, "usage": Usage(40, 4), "charge": Charge(44, 40, 4, "cut", 0)}),
        (served, {"duration_seconds": 700, "clock": "first_byte", "failure": "it fell silent"}),
    ):
        metrics.request(msgspec.structs.replace(finished, **facts))
    lines = metrics.exposition(NOTHING, (), "ok", clock_skew_ms=0).decode().splitlines()
    of_requests = re.compile(
        r"cortex_(?!ledger|connections|tasks|requests_in_flight)\w+(?<!_bucket)\b"
    )
    shown = [line for line in lines if of_requests.match(line) and "_created" not in line]
    assert sorted(shown) == SCRAPED.splitlines()
    assert "# HELP cortex_requests_total Requests to inference endpoints" in lines
    assert "# TYPE cortex_requests_total counter" in lines
    assert "# TYPE cortex_request_duration_seconds histogram" in lines
    assert 'cortex_requests_created{model="org/m",node="beast"} 1.7000000005e+09' in lines


def test_the_buckets_of_a_histogram_are_those_that_dashboards_ask_for() -> None:
    metrics = at_zero()
    for seconds in (0.004, 0.005, 0.0051, 599, 601):
        metrics.request(msgspec.structs.replace(SERVED, model="m", duration_seconds=seconds))
    found = samples(metrics=metrics)
    name = "cortex_request_duration_seconds_bucket"
    buckets = {labels[0]: value for (each, labels), value in found.items() if each == name}
    assert " ".join(buckets) == (
        "0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0 30.0 60.0 120.0 300.0 600.0 +Inf"
    )
    assert list(buckets.values()) == [2, *[3] * 14, 4, 5]
