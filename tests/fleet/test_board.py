"""The board: what is on it, who is told of it, who is woken."""

from __future__ import annotations

from cortexd.config.schema import Neuron, Secret
from cortexd.fleet.board import Board
from cortexd.fleet.reports import ModelId, ModelReport
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


def test_whoever_asked_to_be_told_hears_of_every_new_picture_once_it_is_there() -> None:
    board = Board([Neuron("x", "http://x:1"), Neuron("y", "http://y:1")])
    heard: list[tuple[str, bool]] = []
    board.tell(lambda name: heard.append((name, board.view.neurons[name].healthy)))
    board.publish(fold(board.view.neurons[Y], Answered(())))
    assert heard == [("y", True)]


def test_a_model_that_is_known_to_be_gone_is_off_the_picture_at_once_and_looked_for() -> None:
    board = board_with_a_loaded()
    woken: list[str] = []
    board.watch(X, lambda: woken.append("x"))
    board.withdraw(X, A)
    assert (A in board.view.neurons[X].models, A in board.view.neurons[Y].models) == (False, True)
    assert woken == ["x"]


def test_what_is_not_on_the_picture_can_be_withdrawn_too() -> None:
    board = board_with_a_loaded()
    before = board.view.neurons[X]
    board.withdraw(X, ModelId("other"))
    assert board.view.neurons[X] is before


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
