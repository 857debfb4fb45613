"""What an operator asked for and waits for: a model to be loaded, or to be gone.

Owns these errands and their bounds. Refuses to know who asks (operations.py has the shapes), and
how a model gets loaded (planner.py): an errand is one more need.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from cortexd.fleet.orders import Unload, Why
from cortexd.fleet.planner import Held, Need, Ride
from cortexd.fleet.residents import reported
from cortexd.fleet.serving import Unserved

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cortexd.fleet.board import Board
    from cortexd.fleet.orders import Order
    from cortexd.fleet.planner import Planner
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.residents import Resident, Residents
    from cortexd.fleet.view import NeuronName

UNLOAD_PATIENCE_MS = 60_000
"""How long the requests of a model that is to be unloaded may take to end."""

LOOK_AGAIN_MS = 250


class Hindrance(enum.Enum):
    """What an unload waits for; the values are told to the operator when it waits no longer."""

    UNHEALTHY = "its neuron does not answer"
    LOADING = "it is still being loaded"
    IN_USE = "it has requests that do not end"
    UNSERVED = "it was loaded for requests that have got nothing yet"


_LISTED_STILL = "its neuron says that it is unloaded, and lists it still"


class Errand:
    """One errand. `failed` None at the end: it is done. `notify` is called once, at the end.

    `leaving`, of an unload: the stays that were told to go, and None where one is gone.
    """

    __slots__ = ("failed", "is_over", "leaving", "model", "neuron", "notify", "since_ms")

    def __init__(
        self, model: ModelId, neuron: NeuronName | None, since_ms: int, notify: Callable[[], None]
    ) -> None:
        """It begins; `neuron` None: wherever."""
        self.model = model
        self.neuron = neuron
        self.since_ms = since_ms
        self.notify = notify
        self.leaving: dict[NeuronName, Resident | None] = {}
        self.failed: Unserved | str | None = None
        self.is_over = False

    def end(self, failed: Unserved | str | None = None) -> None:
        """Say what came of it."""
        assert not self.is_over, "an errand ended twice"
        self.is_over, self.failed = True, failed
        self.notify()


class Errands:
    """All errands that are not over."""

    def __init__(self, board: Board, residents: Residents, planner: Planner) -> None:
        """There are none."""
        self._board = board
        self._residents = residents
        self._planner = planner
        self._loads: list[Errand] = []
        self._unloads: list[Errand] = []
        self._orders: list[Order] = []
        self.wake_at_ms: int | None = None

    def load(
        self,
        model: ModelId,
        neuron: NeuronName | None,
        now_ms: int,
        notify: Callable[[], None],
    ) -> Errand:
        """Have a model loaded, there or wherever it fits best; `step` takes it on."""
        errand = Errand(model, neuron, now_ms, notify)
        self._loads.append(errand)
        self.wake_at_ms = now_ms
        return errand

    def unload(
        self,
        model: ModelId,
        neuron: NeuronName | None,
        now_ms: int,
        notify: Callable[[], None],
    ) -> Errand:
        """Have a model gone from there, or from everywhere; its requests may end first."""
        errand = Errand(model, neuron, now_ms, notify)
        self._unloads.append(errand)
        self.wake_at_ms = now_ms
        return errand

    def drop(self, errand: Errand) -> None:
        """Nobody waits for it any more. What was begun goes on; what was not, does not begin."""
        if errand in self._loads:
            self._loads.remove(errand)
            self.wake_at_ms = errand.since_ms  # at once: nobody need make room for it any more

    def look(self, now_ms: int) -> None:
        """Something changed that they may be waiting for: `step` is due."""
        if self._loads or self._unloads:
            self.wake_at_ms = now_ms

    def wanted(self) -> set[ModelId]:
        """The models that somebody wants loaded."""
        return {errand.model for errand in self._loads}

    @property
    def has_orders(self) -> bool:
        """Whether something has to be done."""
        return bool(self._orders)

    def take_orders(self) -> list[Order]:
        """What has to be done since the last call."""
        orders, self._orders = self._orders, []
        return orders

    def load_failed(self, model: ModelId, why: str) -> None:
        """A load of a model failed."""
        for errand in [each for each in self._loads if each.model == model]:
            self._loads.remove(errand)
            errand.end(why)

    def unload_failed(self, stay: Resident, why: str) -> None:
        """A model was to be gone and is not."""
        self._residents.end_unload(stay)
        for errand in [each for each in self._unloads if stay in self._stays(each)]:
            self._unloads.remove(errand)
            errand.end(why)

    def step(self, waiting: Mapping[ModelId, int], now_ms: int) -> None:
        """Go on with all of them."""
        again_ms: list[int] = []
        for errand in tuple(self._loads):
            self._step_load(errand, waiting, now_ms, again_ms)
        for errand in tuple(self._unloads):
            self._step_unload(errand, now_ms, again_ms)
        self.wake_at_ms = min(again_ms, default=None)

    def _step_load(
        self, errand: Errand, waiting: Mapping[ModelId, int], now_ms: int, again_ms: list[int]
    ) -> None:
        if any(self._can_serve(stay) for stay in self._stays(errand)):
            self._loads.remove(errand)
            errand.end()
            return
        need = Need(errand.model, errand.since_ms, errand.neuron, by_operator=True)
        decision = self._planner.decide(need, waiting, now_ms)
        match decision:
            case Unserved():
                self._loads.remove(errand)
                errand.end(decision)
            case Held():
                again_ms.append(decision.ask_again_ms or now_ms + LOOK_AGAIN_MS)
            case Ride():
                again_ms.append(now_ms + 4 * LOOK_AGAIN_MS)

    def _step_unload(self, errand: Errand, now_ms: int, again_ms: list[int]) -> None:
        self._note_the_gone(errand, now_ms)
        for stay in self._stays(errand):
            why = self._take_out(errand, stay, now_ms)
            if why is not None:
                self._give_up(errand, why)
                return
        if self._stays(errand) or any(stay is not None for stay in errand.leaving.values()):
            again_ms.append(now_ms + LOOK_AGAIN_MS)
            return
        self._unloads.remove(errand)
        errand.end()

    def _note_the_gone(self, errand: Errand, now_ms: int) -> None:
        """A stay is gone when a poll after its unload does not show it, or does not come in time;
        or when somebody has had its model loaded there again.
        """
        is_late = now_ms >= errand.since_ms + UNLOAD_PATIENCE_MS
        for name in errand.leaving:
            is_listed = self._residents.get(name, errand.model) is not None
            is_told = is_late or not self._board.view.neurons[name].is_stale
            is_loaded_again = self._planner.loads_there((name, errand.model))
            if is_loaded_again or (is_told and not is_listed):
                errand.leaving[name] = None

    def _take_out(self, errand: Errand, stay: Resident, now_ms: int) -> str | None:
        """Have a stay leave, once, as soon as it can; returns why it is not to be waited for."""
        neuron = self._board.view.neurons[stay.residency[0]]
        if neuron.kind == "openai":
            return f"{neuron.name} cannot unload models"
        if stay.leaving:
            errand.leaving[neuron.name] = stay
            return None
        if errand.leaving.get(neuron.name, stay) is not stay:
            return _LISTED_STILL
        hindrance = self._hindrance(stay)
        if hindrance is not Hindrance.UNSERVED:
            stay.unload_until_ms = errand.since_ms + UNLOAD_PATIENCE_MS
        if hindrance is None:
            stay.leaving = True
            errand.leaving[neuron.name] = stay
            self._orders.append(Unload(*stay.residency, Why.OPERATOR))
        elif now_ms >= errand.since_ms + UNLOAD_PATIENCE_MS:
            return f"{hindrance.value}, for {UNLOAD_PATIENCE_MS // 1000} s"
        return None

    def _hindrance(self, stay: Resident) -> Hindrance | None:
        """What keeps a stay from leaving now; None: nothing."""
        name = stay.residency[0]
        if not self._board.view.neurons[name].healthy:
            return Hindrance.UNHEALTHY
        if self._planner.loads_there(stay.residency):
            return Hindrance.LOADING
        if stay.is_unserved and name not in self._residents.draining:
            return Hindrance.UNSERVED
        if stay.in_flight > 0:
            return Hindrance.IN_USE
        if reported(stay, self._board.view) > 0:
            self._board.doubt(name)  # what it reports may have ended by now
            return Hindrance.IN_USE
        return None

    def _give_up(self, errand: Errand, why: str) -> None:
        for stay in self._stays(errand):
            self._residents.end_unload(stay)
        self._unloads.remove(errand)
        errand.end(why)

    def _stays(self, errand: Errand) -> list[Resident]:
        """Where its model is that it is about; an unload takes it out of each neuron once."""
        gone = {name for name, stay in errand.leaving.items() if stay is None}
        return [
            stay
            for stay in self._residents.of(errand.model)
            if errand.neuron in (None, stay.residency[0]) and stay.residency[0] not in gone
        ]

    def _can_serve(self, stay: Resident) -> bool:
        name, model = stay.residency
        neuron = self._board.view.neurons[name]
        return neuron.healthy and not stay.leaving and neuron.models[model].can_serve
