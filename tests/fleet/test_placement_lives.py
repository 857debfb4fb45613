"""Fleets that live on while their polls lag behind: no card ever has to hold more than it can.

The world here knows what every card really holds. Decisions are made from what was last polled.
"""

from __future__ import annotations

from random import Random

import pytest

from cortexd.config.schema import CatalogueModel, Eviction
from cortexd.fleet.placement import Place, Riding, place
from cortexd.fleet.reports import ModelId
from cortexd.fleet.situation import Loading, Situation, Use
from cortexd.fleet.view import ModelView, NeuronName, NeuronView, Status
from tests.fleet.situations import neuron, on, situation

MODELS = [
    *(CatalogueModel(f"small{index}", vram_mb=6) for index in range(3)),
    CatalogueModel("middle", vram_mb=11),
    CatalogueModel("large", vram_mb=20),
    CatalogueModel("wide", vram_mb=34),
    CatalogueModel("pinned", vram_mb=15, pinned_on=("n0",)),
]
CARD_MB = 24
STRANGERS_MB = 3
SETTINGS = Eviction(min_residency_seconds=0.01)


class Truth:
    """A neuron as it really is: shares by card of what is resident or arriving."""

    def __init__(self, name: str, cards: int) -> None:
        self.name = NeuronName(name)
        self.cards = cards
        self.resident: dict[ModelId, tuple[int, ...]] = {}
        self.arriving: dict[ModelId, tuple[tuple[int, ...], int]] = {}

    def check(self) -> None:
        """What all may take in the end fits on every card."""
        for card in range(self.cards):
            held = [_share(model, on) for model, on in self.resident.items() if card in on]
            held += [_share(model, on) for model, (on, _) in self.arriving.items() if card in on]
            assert sum(held) + STRANGERS_MB <= CARD_MB, (self.name, card, self.__dict__)

    def poll(self, lists_arriving: bool) -> NeuronView:
        """A report: memory as taken so far; a load is listed or not, as neurons differ in that."""
        here = [on(model, *devices, mb=_mb(model)) for model, devices in self.resident.items()]
        for model, (devices, percent) in self.arriving.items():
            mb = _mb(model) * percent // 100
            here.append(on(model, *devices, mb=mb, status=Status.LOADING))
        view = neuron(self.name, *[CARD_MB] * self.cards, has=here, strangers_mb=STRANGERS_MB)
        if not lists_arriving:
            for model in self.arriving:
                del view.models[model]
        return view


def _mb(model: ModelId) -> int:
    return next(each.vram_mb or 0 for each in MODELS if each.id == model)


def _share(model: ModelId, devices: tuple[int, ...]) -> int:
    return -(-_mb(model) // len(devices))


class Life:
    """One fleet, driven by chance; keeps what a loader would keep."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.truths = [Truth(f"n{index}", self.chance.choice([1, 2, 2])) for index in range(2)]
        self.views = [truth.poll(False) for truth in self.truths]
        self.uses: dict[tuple[str, str], Use] = {}
        self.loading: list[Loading] = []
        self.done: list[Loading] = []
        self.now_ms = 0
        self.loads = self.evictions = 0

    def situation(self) -> Situation:
        """What a decision is made from."""
        return situation(
            *self.views,
            models=MODELS,
            loading=(*self.loading, *self.done),
            uses=self.uses,
            now_ms=self.now_ms,
        )

    def truth(self, name: str) -> Truth:
        """The neuron of that name."""
        return next(each for each in self.truths if each.name == name)

    def step(self) -> None:
        """One thing happens."""
        self.now_ms += self.chance.randrange(5)
        self.chance.choice(DEEDS)(self)
        for truth in self.truths:
            truth.check()

    def ask(self) -> None:
        """A request for some model."""
        model = ModelId(self.chance.choice(MODELS).id)
        state = self.situation()
        found = place(model, state, SETTINGS)
        if any(each.model == model for each in state.loading):
            assert isinstance(found, Riding)
        if isinstance(found, Place):
            for gone in found.evict:
                use = self.uses.get((found.neuron, gone), Use(0, 0))
                assert use.in_flight == 0, "a model in use was to be displaced"
            self.loading.append(found.loading(model, self.now_ms))
            self.loads += 1
            self.evictions += len(found.evict)
        elif isinstance(found, Riding) and (found.neuron, model) in self.uses:
            in_flight = self.chance.randrange(2)
            self.uses[found.neuron, model] = Use(self.now_ms, 0, in_flight)

    def answer(self) -> None:
        """All requests are answered."""
        self.uses = {each: Use(self.now_ms, use.loaded_ms) for each, use in self.uses.items()}

    def work(self) -> None:
        """A load gets on: first those who make way go, one by one; then it takes memory."""
        if not self.loading:
            return
        load = self.chance.choice(self.loading)
        truth = self.truth(load.neuron)
        left = [model for model in load.evict if model in truth.resident]
        if left:
            del truth.resident[left[0]]
            self.uses.pop((load.neuron, left[0]))
        else:
            _, percent = truth.arriving.get(load.model, ((), 0))
            percent = min(100, percent + self.chance.choice([0, 30, 70]))
            truth.arriving[load.model] = (load.devices, percent)

    def finish(self) -> None:
        """A load ends well, or fails and leaves nothing."""
        begun = [each for each in self.loading if each.model in self.truth(each.neuron).arriving]
        if not begun:
            return
        load = self.chance.choice(begun)
        truth = self.truth(load.neuron)
        self.loading.remove(load)
        del truth.arriving[load.model]
        if self.chance.random() < 0.8:
            truth.resident[load.model] = load.devices
            self.uses[load.neuron, load.model] = Use(self.now_ms, self.now_ms)
            self.done.append(load)

    def poll(self) -> None:
        """One neuron is heard of again. Then it shows the loads that have ended there."""
        index = self.chance.randrange(len(self.truths))
        self.views[index] = self.truths[index].poll(self.chance.random() < 0.5)
        self.done = [each for each in self.done if each.neuron != self.views[index].name]


DEEDS = [Life.ask, Life.ask, Life.answer, Life.work, Life.work, Life.finish, Life.poll]


@pytest.mark.parametrize("seed", range(60))
def test_no_card_ever_has_to_hold_more_than_it_can(seed: int) -> None:
    life = Life(seed)
    for _ in range(250):
        life.step()
    assert life.loads > 5
    assert life.evictions > 0


def test_the_world_notices_when_memory_is_promised_twice() -> None:
    truth = Truth("n", 1)
    truth.resident = {ModelId("middle"): (0,)}
    truth.arriving = {ModelId("large"): ((0,), 0)}
    with pytest.raises(AssertionError):
        truth.check()


def test_a_view_of_a_neuron_shows_a_load_or_not() -> None:
    truth = Truth("n", 1)
    truth.arriving = {ModelId("large"): ((0,), 50)}
    listed: list[ModelView] = list(truth.poll(True).models.values())
    assert [each.status for each in listed] == [Status.LOADING]
    assert truth.poll(False).models == {}
    assert truth.poll(False).devices[0].vram_used_mb == 10 + STRANGERS_MB
