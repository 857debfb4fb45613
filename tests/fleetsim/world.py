"""What a seed makes of the world: neurons, models, settings, and how much goes wrong in it."""

from __future__ import annotations

import random
from typing import Literal

import msgspec

from cortexd.config.schema import Catalogue, CatalogueModel, Config, Eviction, Neuron, Waiting
from cortexd.fleet.reports import ModelId
from cortexd.fleet.view import NeuronName

Kind = Literal["small", "duel", "large"]

CARDS_MB = (8_000, 12_000, 16_000, 24_000, 48_000)
_MAC = "02:00:00:00:00:01"


class Host(msgspec.Struct, frozen=True):
    """A neuron as it is built. `says_most` 0: it does not report how many requests it takes.

    `lists`: what one of kind openai serves, always. `sleeps`: it is off until it is woken.
    """

    name: NeuronName
    cards_mb: tuple[int, ...]
    is_openai: bool = False
    can_wake: bool = False
    says_most: int = 0
    lists: tuple[ModelId, ...] = ()


class World(msgspec.Struct, frozen=True):
    """A world at its start.

    `true_mb`: what each model really takes, `load_ms` how long its load does. `is_calm`: nothing
    fails, nobody else uses the cards, and every request ends well within a drain. `trouble`: how
    often something goes wrong, per minute.
    """

    kind: Kind
    config: Config
    catalogue: Catalogue
    hosts: tuple[Host, ...]
    true_mb: dict[ModelId, int]
    load_ms: dict[ModelId, int]
    keys: dict[str, float]
    horizon_ms: int
    is_calm: bool
    trouble: float
    requests_per_minute: float
    longest_request_ms: int

    @property
    def sizes_unknown(self) -> set[ModelId]:
        """The models of which the catalogue does not say how large they are."""
        return {ModelId(each.id) for each in self.catalogue.models if each.vram_mb is None}


def kind_of(seed: int) -> Kind:
    """Most worlds are small ones, in which more collides."""
    return "duel" if seed % 5 == 4 else "small"


def build(seed: int, kind: Kind) -> World:
    """The world of a seed."""
    chance = random.Random(f"world {kind} {seed}")
    if kind == "duel":
        return _duel(chance)
    return _fleet(chance, kind)


def _duel(chance: random.Random) -> World:
    """Models of one class that do not fit beside each other on the only card there is."""
    swap_wait = chance.choice((5, 10, 20, 30))
    drain = chance.choice((4, swap_wait / 2, swap_wait))
    count = chance.randrange(2, 5)
    models = tuple(
        CatalogueModel(f"m{number}", vram_mb=chance.randrange(6_000, 10_000))
        for number in range(count)
    )
    config = Config(
        neurons=(Neuron("n0", "http://n0:1"),),
        eviction=Eviction(
            strategy=chance.choice(("lru", "priority")),
            min_residency_seconds=chance.choice((0, 10, 60)),
            max_swap_wait_seconds=swap_wait,
            drain_seconds=drain,
        ),
        waiting=Waiting(plain_wait_seconds=1_800),
    )
    return World(
        kind="duel",
        config=config,
        catalogue=Catalogue(models),
        hosts=(Host(NeuronName("n0"), (10_000,), says_most=chance.choice((0, 4))),),
        true_mb={ModelId(each.id): each.vram_mb or 0 for each in models},
        load_ms={ModelId(each.id): chance.randrange(1_000, 20_000) for each in models},
        keys={"a": 1.0, "b": 1.0},
        horizon_ms=chance.randrange(120_000, 240_000),
        is_calm=True,
        trouble=0,
        requests_per_minute=chance.choice((20, 60, 120)),
        longest_request_ms=min(3_000, round(drain * 1000)) // 2,
    )


def _fleet(chance: random.Random, kind: Kind) -> World:
    is_large = kind == "large"
    hosts = tuple(
        _host(chance, number, is_large)
        for number in range(50 if is_large else chance.choice((1, 1, 1, 2, 2, 3, 5)))
    )
    count = 200 if is_large else chance.randrange(3, 9)
    entries = tuple(_model(chance, number, hosts, is_large) for number in range(count))
    hosts = tuple(_with_list(chance, host, entries) for host in hosts)
    return World(
        kind=kind,
        config=Config(
            neurons=tuple(_configured(chance, host) for host in hosts),
            eviction=_eviction(chance),
            waiting=_waiting(chance),
        ),
        catalogue=Catalogue(entries),
        hosts=hosts,
        true_mb={ModelId(each.id): _true_mb(chance, each) for each in entries},
        load_ms={ModelId(each.id): chance.choice((300, 5_000, 60_000)) for each in entries},
        keys={f"k{number}": chance.choice((0.5, 1.0, 4.0)) for number in range(5)},
        horizon_ms=chance.randrange(60_000, 400_000) if not is_large else 180_000,
        is_calm=False,
        trouble=chance.choice((0, 1, 6)) * (10 if is_large else 1),
        requests_per_minute=chance.choice((10, 40, 120)) * (4 if is_large else 1),
        longest_request_ms=chance.choice((500, 10_000, 60_000)),
    )


def _host(chance: random.Random, number: int, is_large: bool) -> Host:
    name = NeuronName(f"n{number}")
    if number and chance.random() < 0.12:
        return Host(name, (), is_openai=True)
    cards = chance.choice((1, 1, 2, 2, 4, 8)) if is_large else chance.choice((1, 1, 1, 2))
    same = chance.random() < 0.6
    size = chance.choice(CARDS_MB)
    return Host(
        name,
        tuple(size if same else chance.choice(CARDS_MB) for _ in range(cards)),
        can_wake=chance.random() < 0.3,
        says_most=chance.choice((0, 0, 1, 4)),
    )


def _with_list(chance: random.Random, host: Host, entries: tuple[CatalogueModel, ...]) -> Host:
    if not host.is_openai:
        return host
    names = ["elsewhere", *(each.id for each in chance.sample(entries, min(2, len(entries))))]
    return msgspec.structs.replace(host, lists=tuple(map(ModelId, names)))


def _configured(chance: random.Random, host: Host) -> Neuron:
    return Neuron(
        host.name,
        f"http://{host.name}:1",
        kind="openai" if host.is_openai else "neuron",
        max_in_flight=chance.choice((None, None, 1, 3)),
        mac=_MAC if host.can_wake else None,
    )


def _model(
    chance: random.Random, number: int, hosts: tuple[Host, ...], is_large: bool
) -> CatalogueModel:
    size = chance.choice((0.2, 0.5, 0.9, 1.0, 1.0)) * chance.choice(CARDS_MB[:2])
    pinned = chance.random() < 0.2
    return CatalogueModel(
        f"m{number}",
        vram_mb=None if chance.random() < 0.1 else round(size),
        min_devices=2 if chance.random() < (0.2 if is_large else 0.1) else 1,
        pinned_on=(chance.choice(hosts).name,) if pinned else (),
        residency_priority=chance.choice((None, None, None, 50, 100, 200)),
        idle_unload_seconds=chance.choice((0, 0, 5, 60)),
    )


def _true_mb(chance: random.Random, entry: CatalogueModel) -> int:
    written_mb = entry.vram_mb or chance.randrange(1_000, 12_000)
    return round(written_mb * chance.choice((0.8, 1.0, 1.0)))


def _eviction(chance: random.Random) -> Eviction:
    return Eviction(
        strategy=chance.choice(("lru", "priority")),
        defrag_after_cycles=chance.choice((0, 3)),
        min_residency_seconds=chance.choice((0, 5, 60)),
        max_swap_wait_seconds=chance.choice((0, 5, 30)),
        drain_seconds=chance.choice((0, 2, 15)),
    )


def _waiting(chance: random.Random) -> Waiting:
    return Waiting(
        queue_seconds=chance.choice((5, 30, 120)),
        load_seconds=chance.choice((20, 120, 1_800)),
        plain_wait_seconds=chance.choice((3, 30, 60)),
        requests_max=chance.choice((3, 20, 1_000)),
        quantum_tokens=chance.choice((1, 500, 4_096)),
    )
