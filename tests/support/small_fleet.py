"""A fleet without sockets and tasks: its state machine, a board, and obedient neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cortexd.config.schema import Catalogue, CatalogueModel, Config, Eviction, Neuron
from cortexd.config.schema import Waiting as WaitingSettings
from cortexd.fleet.board import Board
from cortexd.fleet.breaker import Verdict
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.lines import Waiting, Wanted, patience_of
from cortexd.fleet.observer import Nobody
from cortexd.fleet.orders import Failure, Load, Unload, Wake, Why
from cortexd.fleet.outcomes import Outcomes
from cortexd.fleet.parts import parts_of
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Serving, Unserved
from cortexd.fleet.view import NeuronName
from tests.fleet.situations import on

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cortexd.fleet.affinity import Mark
    from cortexd.fleet.observer import FleetObserver
    from cortexd.fleet.orders import Order
    from cortexd.fleet.view import NeuronView


class SmallFleet:
    """Some neurons, a catalogue and a clock that stands still until it is moved.

    `notified`: how often somebody who waits was told.
    """

    def __init__(
        self,
        *neurons: NeuronView,
        models: tuple[CatalogueModel, ...] = (),
        eviction: Eviction | None = None,
        waiting: WaitingSettings | None = None,
        configured: Iterable[Neuron] = (),
        observer: FleetObserver | None = None,
    ) -> None:
        """Every neuron has been polled once; `configured`: what is said of some of them."""
        self.now_ms = 1_000_000
        self.notified = 0
        said = {each.name: each for each in configured}
        entries = [said.get(each.name, Neuron(each.name, each.endpoint)) for each in neurons]
        config = Config(
            neurons=tuple(entries),
            eviction=eviction or Eviction(),
            waiting=waiting or WaitingSettings(),
        )
        self.board = Board(config.neurons)
        self.parts = parts_of(config, self.board, observer or Nobody())
        self.dispatcher = Dispatcher(self.parts, patience_of(config.waiting))
        self.outcomes = Outcomes(self.parts, self.dispatcher)
        self.board.tell(lambda name: self.outcomes.news(name, self.now_ms))
        self.sizes_mb = {each.id: each.vram_mb or 0 for each in models}
        self.outcomes.catalogue(Catalogue(tuple(models)), self.now_ms)
        for each in neurons:
            self.board.publish(each)

    def ask(
        self, model: str, key: str = "key", *, cost: int = 100, streams: bool = True
    ) -> Serving | Unserved | Waiting:
        """A request comes."""
        wanted = Wanted(ModelId(model), key, cost, streams=streams)
        return self.dispatcher.enter(wanted, self.now_ms, self._notify)

    def wanted(self, model: str, *marks: Mark) -> Wanted:
        """A request as the fleet sees it."""
        return Wanted(ModelId(model), "key", 100, marks=marks)

    def serve(self, model: str, key: str = "key") -> Serving:
        """A request comes that is served at once."""
        answer = self.ask(model, key)
        assert isinstance(answer, Serving), answer
        return answer

    def wait(
        self, model: str, key: str = "key", *, cost: int = 100, streams: bool = True
    ) -> Waiting:
        """A request comes that has to wait."""
        answer = self.ask(model, key, cost=cost, streams=streams)
        assert isinstance(answer, Waiting), answer
        return answer

    def told(self, model: str, *, streams: bool = True) -> Unserved:
        """A request comes that is not served."""
        answer = self.ask(model, streams=streams)
        assert isinstance(answer, Unserved), answer
        return answer

    def leave(self, waiting: Waiting) -> None:
        """A client that waits hangs up."""
        self.dispatcher.leave(waiting, self.now_ms)
        self.pass_ms(0)

    def end(self, serving: Serving, verdict: Verdict | None = Verdict.WORKED) -> None:
        """A request is over, and what follows from it is done."""
        self.dispatcher.end(serving, verdict, self.now_ms)
        self.outcomes.tick(self.now_ms)

    def pass_ms(self, milliseconds: int) -> None:
        """Time passes, and everything that is due meanwhile happens when it is due."""
        until_ms = self.now_ms + milliseconds
        while (wake_ms := self.outcomes.wake_at_ms) is not None and wake_ms <= until_ms:
            self.now_ms = max(self.now_ms, wake_ms)
            self.outcomes.tick(self.now_ms)
        self.now_ms = until_ms

    def orders(self) -> list[Order]:
        """What has to be done since the last call."""
        return self.dispatcher.take_orders()

    def only_load(self) -> Load:
        """The one order there is, a load."""
        (order,) = self.orders()
        assert isinstance(order, Load), order
        return order

    def carry_out(self, order: Order, *, took_ms: int = 0) -> None:
        """Do what is ordered, as a neuron without fault would, and poll it."""
        self.now_ms += took_ms
        match order:
            case Load():
                for model in order.evict:
                    self.outcomes.unload_ended(
                        order.neuron, model, Why.MAKES_ROOM, None, self.now_ms
                    )
                self.outcomes.load_ended(order, None, self.now_ms, took_ms=took_ms)
                self.show(order.neuron, order.spec.model, devices=order.spec.devices)
            case Unload():
                self.outcomes.unload_ended(order.neuron, order.model, order.why, None, self.now_ms)
                self.poll(order.neuron)
            case Wake():
                pass

    def fail(self, order: Load, reason: str = "no such file") -> None:
        """The neuron could not do it."""
        self.outcomes.load_ended(order, Failure(reason), self.now_ms, took_ms=0)

    def show(self, neuron: str, model: str, *, devices: tuple[int, ...] = (0,)) -> None:
        """The neuron is polled, and has the model, loaded and not busy."""
        view = self.board.view.neurons[NeuronName(neuron)]
        self.poll(neuron, models={**view.models, ModelId(model): on(model, *devices)[0]})

    def hide(self, neuron: str, model: str) -> None:
        """The neuron is polled, and does not have the model any more."""
        models = dict(self.board.view.neurons[NeuronName(neuron)].models)
        del models[ModelId(model)]
        self.poll(neuron, models=models)

    def poll(self, name: str, **changes: Any) -> None:
        """The neuron is polled: all is as before but for the changes, and its memory fits to it."""
        view = msgspec.structs.replace(
            self.board.view.neurons[NeuronName(name)], **{"is_stale": False, **changes}
        )
        used_mb = dict.fromkeys((each.index for each in view.devices), 0)
        for offer in view.models.values():
            for index in used_mb.keys() & set(offer.devices):
                used_mb[index] += self.sizes_mb.get(offer.id, 0) // len(offer.devices)
        devices = tuple(
            msgspec.structs.replace(
                each,
                vram_used_mb=used_mb[each.index],
                vram_free_mb=(each.vram_total_mb or 0) - used_mb[each.index],
            )
            for each in view.devices
        )
        self.board.publish(msgspec.structs.replace(view, devices=devices))

    def _notify(self) -> None:
        self.notified += 1
