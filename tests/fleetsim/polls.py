"""Pollers: what each neuron said a moment ago is put on the board now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortexd.fleet.view import Answered, Missed, fold

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortexd.fleet.view import NeuronName
    from tests.fleetsim.simulation import Simulation

INTERVAL_MS = 5_000


class Polls:
    """One poller per neuron. `as_of_ms`: when what the board shows of its memory was true."""

    def __init__(self, sim: Simulation) -> None:
        """Nobody has been polled."""
        self._sim = sim
        self._asking: set[NeuronName] = set()
        self._doubted: set[NeuronName] = set()
        self._turn = dict.fromkeys(sim.machines, 0)
        self._is_stopped = False
        self.as_of_ms: dict[NeuronName, int] = {}
        self.slow: set[NeuronName] = set()

    def begin(self) -> None:
        """Poll everybody for the first time."""
        for name in self._sim.machines:
            self._sim.board.watch(name, self._waker(name))
            self._sim.after(self._sim.chance.randrange(0, 300), self._poller(name))

    def stop(self) -> None:
        """Poll nobody any more, unless somebody is doubted."""
        self._is_stopped = True

    def _poller(self, name: NeuronName) -> Callable[[], None]:
        self._turn[name] += 1
        turn = self._turn[name]

        def poll() -> None:
            if turn == self._turn[name]:
                self._ask(name)

        return poll

    def _waker(self, name: NeuronName) -> Callable[[], None]:
        def wake() -> None:
            if name in self._asking:
                self._doubted.add(name)
            else:
                self._sim.after(100, self._poller(name))

        return wake

    def _ask(self, name: NeuronName) -> None:
        sim = self._sim
        self._asking.add(name)
        said, asked_ms = sim.machines[name].say(sim.now_ms), sim.now_ms
        slow = name in self.slow and not sim.is_over
        if slow and sim.chance.random() < 0.3:
            said = Missed("it took too long")
        delay_ms = sim.chance.randrange(200, 5_000) if slow else sim.chance.randrange(1, 100)

        def publish() -> None:
            self._asking.discard(name)
            if isinstance(said, Answered):
                self.as_of_ms[name] = asked_ms
            sim.board.publish(fold(sim.board.view.neurons[name], said))
            doubted = name in self._doubted
            self._doubted.discard(name)
            if doubted or not self._is_stopped:
                sim.after(250 if doubted else INTERVAL_MS, self._poller(name))

        sim.after(delay_ms, publish)
