"""The requests that wait for one model, and their two clocks."""

import pytest

from cortexd.config.schema import Waiting as WaitingSettings
from cortexd.fleet.fair_queue import Full
from cortexd.fleet.lines import Clock, Limit, Line, Waiting, Wanted, patience_of, waiting_by_key
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Unserved

PATIENCE = patience_of(
    WaitingSettings(queue_seconds=10, load_seconds=100, plain_wait_seconds=30, requests_max=3)
)


def one(since_ms: int, key: str = "k", *, streams: bool = True) -> Waiting:
    return Waiting(Wanted(ModelId("a"), key, 1, streams=streams), since_ms, lambda: None)


def line_of(*waiting: Waiting, clock: Clock = Clock.QUEUE) -> Line:
    line = Line(PATIENCE, clock, 0)
    for each in waiting:
        assert line.add(each) is None
    return line


def test_a_request_is_let_go_when_the_clock_that_runs_is_up() -> None:
    waiting = one(5)
    line = line_of(waiting)
    assert line.deadline_ms == 10_005
    assert line.take_expired(10_004) == []
    assert line.take_expired(10_005) == [(waiting, Limit.QUEUE)]
    assert len(line) == 0
    assert line.deadline_ms is None
    assert line.take_expired(10_006) == []


def test_time_on_one_clock_stands_still_while_the_other_one_runs() -> None:
    waiting = one(0)
    line = line_of(waiting)
    line.run(Clock.LOAD, 4_000)
    line.run(Clock.LOAD, 5_000)
    assert line.deadline_ms == 104_000
    line.run(Clock.QUEUE, 54_000)
    assert line.deadline_ms == 60_000
    assert line.take_expired(60_000) == [(waiting, Limit.QUEUE)]
    assert waiting.spent_ms == {Clock.QUEUE: 10_000, Clock.LOAD: 50_000}


def test_a_plain_client_waits_for_no_longer_than_its_own_limit_in_all() -> None:
    plain, streaming = one(0, streams=False), one(0)
    line = line_of(plain, streaming, clock=Clock.LOAD)
    assert line.take_expired(30_000) == [(plain, Limit.PLAIN)]
    assert line.take_expired(100_000) == [(streaming, Limit.LOAD)]


def test_time_before_a_turn_that_came_to_nothing_is_not_forgotten() -> None:
    before = ((Clock.QUEUE, 4_000), (Clock.LOAD, 20_000))
    plain, streaming = (
        Waiting(Wanted(ModelId("a"), "k", 1, streams=streams, waited_ms=before), 0, lambda: None)
        for streams in (False, True)
    )
    line = line_of(plain, streaming, clock=Clock.LOAD)
    assert line.take_expired(5_999) == []
    assert line.take_expired(6_000) == [(plain, Limit.PLAIN)]
    assert line.take_expired(80_000) == [(streaming, Limit.LOAD)]
    assert streaming.spent_ms == {Clock.QUEUE: 4_000, Clock.LOAD: 100_000}


def test_a_deadline_of_one_that_left_is_at_most_too_early() -> None:
    first, second = one(0), one(3_000)
    line = line_of(first, second)
    assert line.remove(first, 1_000)
    assert not line.remove(first, 1_000)
    assert line.take_expired(10_000) == []
    assert line.deadline_ms == 13_000


def test_the_next_one_is_taken_in_turn_and_nobody_from_an_empty_line() -> None:
    first, second = one(0), one(1, "other")
    line = line_of(first, second)
    assert line.oldest_since_ms == 0
    assert line.take(2_000) is first
    assert first.spent_ms[Clock.QUEUE] == 2_000
    assert line.take(2_000) is second
    assert line.take(2_000) is None
    assert line.oldest_since_ms is None


def test_there_is_no_place_beyond_the_most() -> None:
    line = line_of(one(0), one(0, "b"))
    answer = line.add(one(0))
    assert isinstance(answer, Full)
    assert not line.remove(one(0), 0), "it never waited"


def test_a_request_is_answered_once() -> None:
    waiting = one(0)
    waiting.end_with(Unserved(Cause.NO_ROOM))
    with pytest.raises(AssertionError):
        waiting.end_with(Unserved(Cause.NO_ROOM))


def test_waiting_requests_are_counted_by_key() -> None:
    line = line_of(one(0), one(0, "b"))
    assert waiting_by_key(line) == {"k": 1, "b": 1}
