"""Fleets of chosen sizes, and what their decisions take: in this process, without sockets.

Owns the fleet that is measured: cards and models are drawn with a seed, each neuron has a few
models loaded, and some of the catalogue are loaded nowhere.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator

import msgspec
import trio

from cortexd.config.schema import Catalogue, CatalogueModel, Config, Limit, Neuron
from cortexd.dialects.models import models_list
from cortexd.fleet.board import Board
from cortexd.fleet.limits import limits_of
from cortexd.fleet.observer import Nobody
from cortexd.fleet.reports import ModelId, ModelLoad
from cortexd.fleet.serving import Serving
from cortexd.fleet.traffic import Traffic
from cortexd.fleet.view import NeuronView
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

_SIZES_MB = (2_000, 6_000, 9_000, 16_000)
_CARD_MB = 24_000
_LOADED_ON_EACH = 4
_LOADED_MB = 4_000
_COLD_WORLDS = 15
_HOUR_MS = 3_600_000
_LINES = 20
_HELD_LINES = 40
_HELD_SECONDS = 10
_POLLED_EVERY_MS = 5_000


class Took(msgspec.Struct, frozen=True):
    """Microseconds that each thing took, in a fleet of `neurons` with `models` in the catalogue.

    `held_share`: of a core, while some models wait for cards that are all in use. `listed_bytes`:
    the size of the whole list of models.
    """

    neurons: int
    models: int
    turn: float
    limits: float
    listed: float
    listed_after_news: float
    news: float
    news_while_some_wait: float
    cold: float
    held: float
    held_share: float
    listed_bytes: int

    @property
    def size(self) -> str:
        """As a column is headed."""
        return f"{self.neurons}x{self.models}"


def measure(neurons: int, models: int, *, seconds: float) -> Took:
    """Everything, each for about so long."""

    async def run() -> Took:
        return _measure(neurons, models, seconds)

    return trio.run(run)


def _measure(neurons: int, models: int, seconds: float) -> Took:
    world = World(neurons, models, seed=1)
    fleet, traffic = world.fleet(), world.traffic()
    loaded, view = world.loaded[0], fleet.board.view
    written = fleet.parts.planner.entry(loaded)
    listed = models_list(tuple(traffic.models(None).values()))
    polls = _polls(traffic.parts.board)

    def turn() -> None:
        serving = fleet.ask(loaded)
        assert isinstance(serving, Serving), "a loaded model was to serve at once"
        fleet.dispatcher.end(serving, None, fleet.now_ms)

    def list_models() -> None:
        models_list(tuple(traffic.models(None).values()))

    def hear_and_list() -> None:
        next(polls)
        list_models()

    news = _polls(fleet.board)
    took = {
        "turn": _microseconds(turn, seconds),
        "limits": _microseconds(lambda: limits_of(loaded, written, view), seconds),
        "listed": _microseconds(list_models, seconds),
        "listed_after_news": _microseconds(hear_and_list, seconds),
        "news": _microseconds(lambda: next(news), seconds),
    }
    for cold in world.cold[:_LINES]:
        fleet.ask(cold)
    took["news_while_some_wait"] = _microseconds(lambda: next(news), seconds)
    took["cold"] = statistics.median(_cold_decision(neurons, models))
    took["held"], took["held_share"] = _held(world)
    return Took(neurons, models, **took, listed_bytes=len(listed))


class World:
    """The neurons as polls show them, and the catalogue."""

    def __init__(self, neurons: int, models: int, *, seed: int) -> None:
        chance = random.Random(seed)
        ids = [f"org/model-{number}" for number in range(models + 1)]
        self.catalogue = tuple(
            CatalogueModel(id, vram_mb=chance.choice(_SIZES_MB), limit=Limit(context=32_768))
            for id in ids
        )
        warm = ids[: max(1, models - models // 5)]
        self.neurons = [self._neuron(f"neuron-{n}", warm, chance) for n in range(neurons)]
        there = {model for each in self.neurons for model in each.models}
        self.loaded = sorted(there)
        self.cold = [ModelId(id) for id in ids if id not in there]

    def fleet(self) -> SmallFleet:
        """The state machine alone, long enough after its start that anything idle may leave."""
        fleet = SmallFleet(*self.neurons, models=self.catalogue)
        fleet.now_ms += _HOUR_MS
        return fleet

    def traffic(self) -> Traffic:
        """What the gateway asks; its task does not run."""
        configured = tuple(Neuron(each.name, each.endpoint) for each in self.neurons)
        board = Board(configured)
        catalogue = Catalogue(self.catalogue)
        config = Config(neurons=configured)
        traffic = Traffic(config, catalogue, board, Nobody(), started_unix_seconds=0)
        for each in self.neurons:
            board.publish(each)
        return traffic

    def _neuron(self, name: str, warm: list[str], chance: random.Random) -> NeuronView:
        cards = [_CARD_MB] * chance.choice((1, 2, 4))
        chosen = chance.sample(warm, min(_LOADED_ON_EACH, len(warm)))
        has = [on(model, chance.randrange(len(cards)), mb=_LOADED_MB) for model in chosen]
        return neuron(name, *cards, has=has)


def _polls(board: Board) -> Iterator[None]:
    """Polls of one neuron after the other, each with other numbers of load and nothing else new."""
    names = list(board.view.neurons)
    turn = 0
    while True:
        turn += 1
        before = board.view.neurons[names[turn % len(names)]]
        models = {
            id: msgspec.structs.replace(each, load=ModelLoad(id, tok_s_decode=float(turn)))
            for id, each in before.models.items()
        }
        board.publish(msgspec.structs.replace(before, models=models))
        yield


def _cold_decision(neurons: int, models: int) -> list[float]:
    """The first request for a model that is loaded nowhere, each in a fleet of its own."""
    took: list[float] = []
    for seed in range(_COLD_WORLDS):
        world = World(neurons, models, seed=seed)
        fleet = world.fleet()
        began = time.perf_counter()
        fleet.ask(world.cold[0])
        took.append((time.perf_counter() - began) * 1e6)
        assert fleet.orders(), "a load was to begin"
    return took


def _held(world: World) -> tuple[float, float]:
    """A decision for a model that needs the largest neuron for itself, while everybody is busy; and
    what several such models cost in a fleet that is polled meanwhile.
    """
    cards = max(len(each.devices) for each in world.neurons)
    size_mb = cards * _CARD_MB - _LOADED_MB
    wide = [
        CatalogueModel(f"org/wide-{number}", vram_mb=size_mb, min_devices=cards)
        for number in range(_HELD_LINES)
    ]
    fleet = SmallFleet(*world.neurons, models=(*world.catalogue, *wide))
    fleet.now_ms += _HOUR_MS
    for stay in fleet.parts.residents:
        stay.begin(fleet.now_ms)
    took: list[float] = []
    for each in wide:
        began = time.perf_counter()
        fleet.ask(each.id)
        took.append((time.perf_counter() - began) * 1e6)
    polls, began = _polls(fleet.board), time.perf_counter()
    for _ in range(_HELD_SECONDS * 1000 * len(world.neurons) // _POLLED_EVERY_MS):
        fleet.pass_ms(_POLLED_EVERY_MS // len(world.neurons))
        next(polls)
    share = (time.perf_counter() - began) / _HELD_SECONDS
    assert not fleet.orders(), "nobody who is busy was to leave"
    return statistics.median(took), share


def _microseconds(act: Callable[[], object], seconds: float) -> float:
    """The fastest of some batches: what else runs on the machine can only add to it."""
    act()
    once = _timed(act, 1)
    count = max(1, int(seconds / 20 / max(once, 1e-7)))
    return min(_timed(act, count) for _ in range(20)) * 1e6


def _timed(act: Callable[[], object], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        act()
    return (time.perf_counter() - began) / count
