"""A neuron as it really is: its memory, what it holds, who is on it. What it says may be late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cortexd.fleet.feasibility import share_mb
from cortexd.fleet.reports import (
    Activation,
    Device,
    DeviceHealth,
    Discovery,
    Health,
    ModelId,
    ModelLoad,
    ModelReport,
    Servable,
)
from cortexd.fleet.view import Answered, Missed

if TYPE_CHECKING:
    from tests.fleetsim.clients import Client
    from tests.fleetsim.world import Host

Status = Literal["loading", "loaded", "recovering"]


class Held:
    """A model in the memory of a neuron. `is_ours`: we had it loaded."""

    __slots__ = ("cards", "is_ours", "is_servable", "share_mb", "status")

    def __init__(self, cards: tuple[int, ...], size_mb: int, status: Status, is_ours: bool) -> None:
        self.cards = cards
        self.share_mb = share_mb(size_mb, max(1, len(cards)))
        self.status = status
        self.is_servable = True
        self.is_ours = is_ours

    def mend(self) -> None:
        """Whatever was wrong with it, it is well again."""
        self.is_servable = True
        if self.status == "recovering":
            self.status = "loaded"


class Machine:
    """One neuron. `disturbed_ms`: when something that we did not do last happened in its memory.

    `life`: how often it has started. `warming`: what it still loads by itself.
    """

    def __init__(self, host: Host, now_ms: int) -> None:
        """It has just started, with nothing loaded."""
        self.host = host
        self.name = host.name
        self.is_up = True
        self.life = 1
        self.started_ms = now_ms
        self.disturbed_ms = -1
        self.strangers_mb = [0] * len(host.cards_mb)
        self.models: dict[ModelId, Held] = {}
        self.warming: list[ModelId] = []
        self.clients: dict[Client, ModelId] = {}
        for model in host.lists:
            self.models[model] = Held((), 0, "loaded", is_ours=False)

    def free_mb(self, card: int) -> int:
        """What nobody has of a card."""
        held = sum(each.share_mb for each in self.models.values() if card in each.cards)
        return self.host.cards_mb[card] - self.strangers_mb[card] - held

    def take(self, model: ModelId, size_mb: int, cards: tuple[int, ...], *, is_ours: bool) -> bool:
        """Begin to load a model; False: it does not fit, or is there already."""
        held = Held(cards, size_mb, "loading", is_ours)
        if model in self.models or any(self.free_mb(card) < held.share_mb for card in cards):
            return False
        self.models[model] = held
        return True

    def drop(self, model: ModelId) -> None:
        """Its memory is free again."""
        self.models.pop(model, None)

    def stop(self) -> list[Client]:
        """The machine is off; returns those whose requests break with that."""
        self.is_up = False
        self.models = {model: self.models[model] for model in self.host.lists}
        self.warming = []
        return self.take_clients()

    def take_clients(self) -> list[Client]:
        """Those who were on it are on it no more."""
        clients, self.clients = list(self.clients), {}
        return clients

    def start(self, now_ms: int) -> None:
        """It is up again, and empty."""
        self.is_up = True
        self.life += 1
        self.started_ms = now_ms

    def can_answer(self, model: ModelId) -> bool:
        """Whether a request for it would be served."""
        held = self.models.get(model)
        return self.is_up and held is not None and held.status == "loaded" and held.is_servable

    def say(self, now_ms: int) -> Answered | Missed:
        """What a poll finds out right now."""
        if not self.is_up:
            return Missed("no connection")
        reports = tuple(self._report(model, held) for model, held in self.models.items())
        resident = [model for model, held in self.models.items() if held.status != "loading"]
        endpoints = dict.fromkeys(resident, f"http://{self.name}:1")
        if self.host.is_openai:
            return Answered(reports, endpoints)
        return Answered(
            reports,
            endpoints,
            self._health(now_ms),
            self._discovery(),
            started_after_ms=self.started_ms - 1,
        )

    def _report(self, model: ModelId, held: Held) -> ModelReport:
        servable = None if held.is_servable else Servable(False, "insufficient_vram")
        used_mb = held.share_mb * len(held.cards) or None
        return ModelReport(
            model, held.status, devices=held.cards, vram_used_mb=used_mb, servable=servable
        )

    def _health(self, now_ms: int) -> Health:
        counts = dict.fromkeys(self.models, 0)
        for model in self.clients.values():
            counts[model] = counts.get(model, 0) + 1
        pending = tuple(self.warming)
        return Health(
            uptime_secs=(now_ms - self.started_ms) / 1000,
            devices=tuple(
                DeviceHealth(card, vram_used_mb=total - self.free_mb(card))
                for card, total in enumerate(self.host.cards_mb)
            ),
            activation=Activation("pre_warming" if pending else "ready", pending),
            models=tuple(
                ModelLoad(model, in_flight=count, max_in_flight=self.host.says_most)
                for model, count in counts.items()
            ),
        )

    def _discovery(self) -> Discovery:
        cards = enumerate(self.host.cards_mb)
        return Discovery(devices=tuple(Device(card, vram_total_mb=total) for card, total in cards))
