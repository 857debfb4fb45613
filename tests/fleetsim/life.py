"""What goes on in the world: who asks, what breaks, what the operator does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortexd.config.schema import Catalogue
from cortexd.fleet.lines import Wanted
from cortexd.fleet.reports import ModelId
from tests.fleetsim.clients import Client
from tests.fleetsim.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortexd.fleet.errands import Errand
    from tests.fleetsim.simulation import Simulation

MINUTE_MS = 60_000


def begin(sim: Simulation) -> None:
    """Let the world go on from here."""
    _again(sim, sim.world.requests_per_minute, _come)
    if sim.world.trouble:
        for name in [each for each in sim.machines if sim.chance.random() < 0.2]:
            sim.polls.slow.add(name)
        _again(sim, sim.world.trouble, _trouble)
        _again(sim, sim.world.trouble / 2, _operate)


def end(sim: Simulation) -> None:
    """Nobody comes any more, nothing breaks, and what was broken is mended."""
    sim.is_over = True
    for machine in sim.machines.values():
        if not machine.is_up:
            machine.start(sim.now_ms)
        machine.strangers_mb = [0] * len(machine.strangers_mb)
        machine.warming = []
        for held in machine.models.values():
            held.mend()
    sim.parts.residents.draining.clear()
    sim.outcomes.changed(sim.now_ms)


def _again(sim: Simulation, per_minute: float, do: Callable[[Simulation], None]) -> None:
    """Do something so often, by chance, until the end."""

    def turn() -> None:
        if not sim.is_over:
            do(sim)
            sim.after(sim.chance.expovariate(per_minute / MINUTE_MS), turn)

    sim.after(sim.chance.expovariate(per_minute / MINUTE_MS), turn)


# Clients.


def _come(sim: Simulation) -> None:
    """One client, or many at once."""
    chance, world = sim.chance, sim.world
    models = [each.id for each in world.catalogue.models]
    if not world.is_calm:
        models += ["elsewhere"] + (["unheard of"] if chance.random() < 0.05 else [])
    model = models[min(int(chance.expovariate(3 / len(models))), len(models) - 1)]
    many = chance.choice((2, 10, 60)) if chance.random() < 0.06 else 1
    key = chance.choice(list(world.keys))
    for _ in range(many):
        _one(sim, ModelId(model), key)


def _one(sim: Simulation, model: ModelId, key: str) -> None:
    chance, world = sim.chance, sim.world
    wanted = Wanted(
        model,
        key,
        chance.choice((1, 200, 5_000)),
        weight=world.keys[key],
        streams=chance.random() < 0.7,
    )
    length_ms = chance.randrange(10, world.longest_request_ms + 10)
    first_ms = chance.randrange(1, length_ms)
    breaks = not world.is_calm and chance.random() < 0.03
    client = Client(sim, wanted, first_ms=first_ms, rest_ms=length_ms - first_ms, breaks=breaks)
    sim.clients[client] = None
    if chance.random() < 0.15:
        sim.after(chance.choice((0, 5, 500, 20_000)) * chance.random(), client.hang_up)
    client.enter()


# Trouble.


def _trouble(sim: Simulation) -> None:
    machine = sim.chance.choice(list(sim.machines.values()))
    what = sim.chance.choice((_restart, _restart, _sleep, _strangers, _illness, _recovery, _outage))
    sim.note(f"{what.__name__[1:]} on {machine.name}")
    what(sim, machine)


def _restart(sim: Simulation, machine: Machine) -> None:
    """Up again in a moment, empty, or with models that it loads by itself."""
    if not machine.is_up:
        return
    ours = list(machine.models)
    for client in machine.stop():
        sim.after(10, client.break_off)

    def up() -> None:
        if machine.is_up:
            return
        machine.start(sim.now_ms)
        if not machine.host.is_openai and ours and sim.chance.random() < 0.4:
            machine.warming = ours[:2]
            _warm_next(sim, machine, machine.life)

    sim.after(sim.chance.choice((500, 8_000, 40_000)), up)


def _warm_next(sim: Simulation, machine: Machine, life: int) -> None:
    """The neuron loads the next of its own models."""

    def done() -> None:
        if machine.life != life or not machine.is_up or not machine.warming:
            return
        model = machine.warming.pop(0)
        machine.disturbed_ms = sim.now_ms
        card = 0
        if machine.take(model, sim.size_mb(model), (card,), is_ours=False):
            machine.models[model].status = "loaded"
        if machine.warming:
            _warm_next(sim, machine, life)

    sim.after(sim.chance.randrange(500, 8_000), done)


def _sleep(sim: Simulation, machine: Machine) -> None:
    """Off until somebody wakes it; who cannot be woken is away for a while."""
    for client in machine.stop():
        sim.after(sim.chance.choice((10, 3_000)), client.break_off)
    if not machine.host.can_wake:
        sim.after(90_000, lambda: None if machine.is_up else machine.start(sim.now_ms))


def _strangers(sim: Simulation, machine: Machine) -> None:
    """Somebody else takes memory, or gives it back."""
    for card in range(len(machine.strangers_mb)):
        machine.strangers_mb[card] = 0
        if sim.chance.random() < 0.6:
            free_mb = max(0, machine.free_mb(card))
            machine.strangers_mb[card] = round(free_mb * sim.chance.choice((0.0, 0.3, 1.0)))
    machine.disturbed_ms = sim.now_ms


def _illness(sim: Simulation, machine: Machine) -> None:
    """A model cannot answer any more, though it is there."""
    for held in machine.models.values():
        if held.status == "loaded" and sim.chance.random() < 0.5:
            held.is_servable = False
            sim.after(40_000, held.mend)


def _recovery(sim: Simulation, machine: Machine) -> None:
    """A model recovers for a while, and those who were on it break."""
    for model, held in machine.models.items():
        if held.status == "loaded" and sim.chance.random() < 0.5:
            held.status = "recovering"
            for client in [each for each, of in machine.clients.items() if of == model]:
                del machine.clients[client]
                sim.after(10, client.break_off)
            sim.after(sim.chance.randrange(1_000, 20_000), held.mend)


def _outage(sim: Simulation, machine: Machine) -> None:
    """Polls get slow, and many are missed."""
    sim.polls.slow.add(machine.name)
    sim.after(30_000, lambda: sim.polls.slow.discard(machine.name))


# The operator.


def _operate(sim: Simulation) -> None:
    what = sim.chance.choice((_load, _load, _unload, _pin, _drain, _rewrite, _order_from_outside))
    sim.count("operator")
    what(sim)


def _load(sim: Simulation) -> None:
    """Ask for a model, and perhaps not wait for it."""
    model = ModelId(sim.chance.choice(sim.world.catalogue.models).id)
    only = sim.chance.choice((None, *sim.machines))
    sim.note(f"operator loads {model} on {only}")
    errand = sim.parts.errands.load(model, only, sim.now_ms, lambda: _errand_over(sim))
    sim.after(sim.chance.choice((100, 30_000, 300_000)), lambda: _stop_waiting(sim, errand))


def _unload(sim: Simulation) -> None:
    """Have something gone."""
    stays = list(sim.parts.residents)
    if not stays:
        return
    neuron, model = sim.chance.choice(stays).residency
    only = sim.chance.choice((None, neuron))
    sim.note(f"operator unloads {model} on {only}")
    sim.parts.errands.unload(model, only, sim.now_ms, lambda: _errand_over(sim))


def _errand_over(sim: Simulation) -> None:
    sim.errands_over += 1
    sim.count("errands")


def _stop_waiting(sim: Simulation, errand: Errand) -> None:
    if not errand.is_over:
        sim.parts.errands.drop(errand)
        sim.outcomes.tick(sim.now_ms)


def _pin(sim: Simulation) -> None:
    model = ModelId(sim.chance.choice(sim.world.catalogue.models).id)
    pins = sim.parts.planner.pins
    if model in pins:
        del pins[model]
    else:
        names = list(sim.machines)
        pins[model] = frozenset(sim.chance.sample(names, min(len(names), sim.chance.randrange(3))))
    sim.outcomes.changed(sim.now_ms)


def _drain(sim: Simulation) -> None:
    draining = sim.parts.residents.draining
    draining ^= {sim.chance.choice(list(sim.machines))}
    sim.note(f"draining {sorted(draining)}")
    sim.outcomes.changed(sim.now_ms)


def _rewrite(sim: Simulation) -> None:
    """Another catalogue: without one model, or as it was."""
    models = list(sim.world.catalogue.models)
    if sim.chance.random() < 0.5:
        models.pop(sim.chance.randrange(len(models)))
    sim.outcomes.catalogue(Catalogue(tuple(models)), sim.now_ms)


def _order_from_outside(sim: Simulation) -> None:
    """Somebody has a neuron unload a model without us."""
    machine = sim.chance.choice(list(sim.machines.values()))
    free = [
        model
        for model, held in machine.models.items()
        if held.status == "loaded"
        and model not in machine.clients.values()
        and all(job.order.spec.model != model for job in sim.loader.jobs.values())
    ]
    if free and not machine.host.is_openai:
        machine.drop(free[0])
        machine.disturbed_ms = sim.now_ms
