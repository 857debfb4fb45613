"""What the fleet does is in the log, with what to do about it, and in the metrics."""

import logging

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cortexd.daemon.fleet_log import TOLD_AGAIN_SECONDS, FleetLog
from cortexd.fleet.breaker import State
from cortexd.fleet.lines import Clock
from cortexd.fleet.orders import Failure, Why
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause
from cortexd.fleet.view import FleetView, NeuronName
from cortexd.metrics.instruments import Metrics

OAK, BEAST = ModelId("org/oak"), NeuronName("beast")


class Told:
    """A fleet log, its metrics, its lines, and a clock that stands until it is moved."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "cortexd.fleet")
        self.now = 0.0
        self.metrics = Metrics(lambda: 0.0)
        self.log = FleetLog(self.metrics.fleet, clock=lambda: self.now)
        self._caplog = caplog

    def lines(self) -> list[tuple[str, str]]:
        """Level and text of every line since the last call."""
        found = [(each.levelname, each.getMessage()) for each in self._caplog.records]
        self._caplog.clear()
        return found

    def count(self, name: str, **labels: str) -> float:
        """The value of one series; 0 if it is not there."""
        text = self.metrics.exposition(FleetView({}), (), "ok", clock_skew_ms=0).decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return 0


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    return Told(caplog)


def test_a_load_is_told_from_its_beginning_to_its_end(told: Told) -> None:
    told.log.load_began(OAK, BEAST, (ModelId("org/fern"),), 42_400)
    told.log.load_ended(OAK, BEAST, 41_250)
    assert told.lines() == [
        (
            "INFO",
            "event=load_began model=org/oak neuron=beast evicts=org/fern expected_seconds=42",
        ),
        ("INFO", "event=load_ended model=org/oak neuron=beast took_seconds=41.2"),
    ]
    assert told.count("cortex_cold_starts_total", model=OAK, node=BEAST) == 1
    assert told.count("cortex_load_seconds_sum", model=OAK, node=BEAST) == 41.25


def test_a_load_that_fails_is_an_error_with_the_neurons_reason_in_one_line(told: Told) -> None:
    told.log.load_failed(OAK, BEAST, Failure("no such\nfile", permanent=True), 300_000)
    [(level, line)] = told.lines()
    assert level == "ERROR"
    assert "\n" not in line
    assert "retry_in_seconds=300 permanent=true" in line
    assert 'do="' in line
    assert told.count("cortex_load_failures_total", model=OAK, node=BEAST) == 1


@pytest.mark.parametrize(("why", "evictions"), [(Why.MAKES_ROOM, 1), (Why.IDLE, 0)])
def test_only_who_makes_room_is_an_eviction_and_every_unload_is_a_cycle(
    told: Told, why: Why, evictions: int
) -> None:
    told.log.unloaded(OAK, BEAST, why, 3)
    assert told.lines() == [
        ("INFO", f"event=unloaded model=org/oak neuron=beast why={why.value} cycles=3")
    ]
    assert told.count("cortex_evictions_total", model=OAK, node=BEAST) == evictions
    assert told.count("cortex_unloads_total", model=OAK, node=BEAST, reason=why.value) == 1
    assert told.count("cortex_neuron_load_cycles", node=BEAST) == 3
    told.log.restart_advised(BEAST, 3)
    assert told.lines()[0][0] == "WARNING"
    told.log.restarted(BEAST)
    assert told.count("cortex_neuron_load_cycles", node=BEAST) == 0


def test_an_unload_that_fails_and_a_breaker_that_opens_are_errors(told: Told) -> None:
    told.log.unload_failed(OAK, BEAST, Why.OPERATOR, Failure("busy"))
    told.log.breaker_changed(BEAST, State.OPEN)
    assert told.count("cortex_neuron_breaker_open", node=BEAST) == 1
    told.log.breaker_changed(BEAST, State.CLOSED)
    assert [level for level, _ in told.lines()] == ["ERROR", "ERROR", "INFO"]
    assert told.count("cortex_neuron_breaker_open", node=BEAST) == 0
    assert told.count("cortex_unload_failures_total", model=OAK, node=BEAST) == 1


def test_the_same_trouble_is_told_once_a_minute_and_counted_each_time(told: Told) -> None:
    for _ in range(5):
        told.log.unserved(OAK, Cause.NO_ROOM, "others hold the memory")
    [(level, line)] = told.lines()
    assert (level, "cause=no_room" in line, 'do="' in line) == ("ERROR", True, True)
    told.log.unserved(ModelId("org/fern"), Cause.NO_ROOM, "others hold the memory")
    assert len(told.lines()) == 1
    told.now = TOLD_AGAIN_SECONDS
    told.log.unserved(OAK, Cause.NO_ROOM, "others hold the memory")
    assert len(told.lines()) == 1
    assert told.count("cortex_unserved_total", model=OAK, reason="no_room") == 6


def test_what_passes_by_itself_is_no_line_and_an_unknown_name_is_no_series(told: Told) -> None:
    told.log.unserved(OAK, Cause.LOADING, "it is being loaded")
    told.log.unserved(ModelId("whatever a client says"), Cause.UNKNOWN, "")
    assert told.lines() == []
    assert told.count("cortex_unserved_total", model=OAK, reason="loading") == 1
    assert told.count("cortex_unserved_total", model="", reason="unknown") == 1


def test_many_names_of_models_do_not_fill_the_memory(told: Told) -> None:
    for number in range(3_000):
        told.log.unserved(ModelId(f"m{number}"), Cause.QUEUE_FULL, "full")
    assert len(told.lines()) == 3_000
    assert len(told.log._told) <= 1_000


def test_waits_are_told_by_clock(told: Told) -> None:
    told.log.waited(OAK, Clock.QUEUE, 1_500)
    told.log.waited(OAK, Clock.LOAD, 20_000)
    assert told.count("cortex_wait_seconds_sum", clock="queue") == 1.5
    assert told.count("cortex_wait_seconds_sum", clock="load") == 20
