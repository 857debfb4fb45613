"""The board: what is on it, who is in flight, who is woken."""

from __future__ import annotations

from contextlib import suppress

import pytest

from cortexd.config.schema import Neuron, Secret
from cortexd.fleet.board import Board
from cortexd.fleet.reports import ModelId, ModelReport
from cortexd.fleet.routing import Route
from cortexd.fleet.view import Answered, NeuronName, fold

A = ModelId("a")
X, Y = NeuronName("x"), NeuronName("y")


def board_with_a_loaded() -> Board:
    board = Board([Neuron("x", "http://x:1", api_key=Secret("sk-x")), Neuron("y", "http://y:1")])
    for name in (X, Y):
        report = Answered((ModelReport(A, "loaded"),), {A: f"http://{name}:1"})
        board.publish(fold(board.view.neurons[name], report))
    return board


def test_a_published_picture_takes_the_place_of_the_old_one_only() -> None:
    board = Board([Neuron("x", "http://x:1"), Neuron("y", "http://y:1")])
    before = board.view
    board.publish(fold(before.neurons[Y], Answered(())))
    assert (before.neurons[Y].healthy, board.view.neurons[Y].healthy) == (False, True)
    assert list(board.view.neurons) == ["x", "y"]
    assert board.view.neurons[X] is before.neurons[X]


def test_requests_in_flight_are_counted_and_spread_the_next_ones() -> None:
    board = board_with_a_loaded()
    first = board.route(A)
    assert first == Route(X, "neuron", A, "http://x:1", "sk-x")
    with board.serving(first):
        second = board.route(A)
        assert second == Route(Y, "neuron", A, "http://y:1")
        with board.serving(second), board.serving(first):
            assert dict(board.in_flight) == {(X, A): 2, (Y, A): 1}
        assert dict(board.in_flight) == {(X, A): 1}
    assert dict(board.in_flight) == {}


def test_a_request_that_fails_is_no_longer_in_flight() -> None:
    board = board_with_a_loaded()
    route = board.route(A, without=frozenset({"x"}))
    assert route is not None
    with suppress(KeyError), board.serving(route):
        raise KeyError
    assert dict(board.in_flight) == {}


def test_the_count_in_flight_cannot_be_written_by_others() -> None:
    with pytest.raises(TypeError):
        Board([]).in_flight[X, A] = 1  # type: ignore[index]  # that is the claim


def test_a_doubt_wakes_the_poller_of_that_neuron_and_names_the_model() -> None:
    board = board_with_a_loaded()
    woken: list[str] = []
    board.watch(X, lambda: woken.append("x"))
    board.doubt(X)
    assert (woken, board.take_doubted(X)) == (["x"], set())
    board.doubt(X, A)
    board.doubt(Y, A)
    assert (woken, board.take_doubted(X), board.take_doubted(X)) == (["x", "x"], {A}, set())
    assert board.take_doubted(Y) == {A}
