"""What has to hold, whatever happens. Each rule is a function; its name is what a run fails with.

The rules count for themselves: what clients have in flight, who was promised a turn and what a card
holds is taken from the simulated world, not from the machine that is under test.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop
from typing import TYPE_CHECKING

from cortexd.fleet.breaker import State
from cortexd.fleet.feasibility import share_mb
from cortexd.fleet.lines import Clock
from cortexd.fleet.orders import Load, Unload, Wake, Why
from cortexd.fleet.routing import Replicas
from cortexd.fleet.serving import Cause, Serving
from cortexd.fleet.swaps import rules_of
from cortexd.fleet.view import Status
from tests.fleetsim.violation import Violation

if TYPE_CHECKING:
    from cortexd.fleet.lines import Line, Wanted
    from cortexd.fleet.orders import Order
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.residents import Resident
    from cortexd.fleet.serving import Unserved
    from cortexd.fleet.view import NeuronName
    from tests.fleetsim.clients import Client
    from tests.fleetsim.loader import Job
    from tests.fleetsim.machine import Machine
    from tests.fleetsim.simulation import Simulation

IDLE_LATE_MS = 3_000
"""An idle model is unloaded so long after its time at the latest: polls and looks take a moment."""

LOAD_ENDS_WITHIN_MS = 1_200_000
"""A load ends when its call does (900 s at most), its evictions and the polls after it."""

COST_TOKENS_MAX = 5_000
"""No simulated request costs more."""

SWAP_TAKES_MS = 8_000
"""An unload, the start of a load, and the polls that show both take so long at most."""

LARGE_EVERY = 25
"""In a large world what looks at everything is looked at in every so many steps."""


def _must(holds: bool, rule: str, why: object) -> None:
    if not holds:
        raise Violation(rule, str(why))


# Orders.


def on_order(sim: Simulation, order: Order) -> None:
    """All that has to hold of an order when it is given."""
    only_who_can_is_ordered(sim, order)
    match order:
        case Load():
            one_load_per_model(sim, order)
            for model in order.evict:
                nothing_in_use_leaves(sim, order.neuron, model)
                nobody_leaves_before_its_time(sim, order.neuron, model)
            memory_is_promised_once(sim, order)
        case Unload():
            nothing_in_use_leaves(sim, order.neuron, order.model)
            if order.why is Why.IDLE:
                only_the_idle_are_unloaded(sim, order)
        case Wake():
            pass


def only_who_can_is_ordered(sim: Simulation, order: Order) -> None:
    """Only healthy neurons load and unload, never one of kind openai; only sleepers are woken."""
    neuron = sim.board.view.neurons[order.neuron]
    if isinstance(order, Wake):
        able = not neuron.healthy and sim.machines[order.neuron].host.can_wake
    else:
        able = neuron.healthy and neuron.kind != "openai"
    _must(able, "only_who_can_is_ordered", order)


def one_load_per_model(sim: Simulation, order: Load) -> None:
    """There are never two loads of one model at a time, anywhere in the fleet; one of which nothing
    is heard, because its neuron does not answer any more, is none, and one that polls show to be
    done.
    """
    others = [
        job.order
        for job in sim.loader.jobs.values()
        if job.order.spec.model == order.spec.model and not (job.is_lost or job.is_shown)
    ]
    _must(others in ([], [order]), "one_load_per_model", f"{order} beside {others}")


def nothing_in_use_leaves(sim: Simulation, neuron: NeuronName, model: ModelId) -> None:
    """No model leaves that has a request of ours in flight, or that was loaded for some who wait
    and of whom none has had a byte. Nor does one leave twice.
    """
    rule = "nothing_in_use_leaves"
    _must((neuron, model) not in sim.loader.unloading, rule, f"{model} leaves {neuron} twice")
    busy = [each for each in sim.clients if _is_on(each, neuron, model)]
    _must(not busy, rule, f"{len(busy)} requests are on {model} at {neuron}")
    for job in sim.loader.jobs.values():
        loads = job.order.neuron == neuron and job.order.spec.model == model
        is_over = job.is_lost or job.is_shown
        _must(is_over or not loads, rule, f"{model} loads on {neuron}")
    if neuron in sim.parts.residents.draining:
        return  # who was promised it will not get it here
    owed = [each for each in sim.owed.get((neuron, model), ()) if each.is_owed]
    _must(not owed, rule, f"{model} on {neuron} was loaded for {len(owed)}")


def nobody_leaves_before_its_time(sim: Simulation, neuron: NeuronName, model: ModelId) -> None:
    """A model that makes room has been there for its residency, or for a whole turn, whichever is
    shorter: this is what bounds the swaps per minute on a card.
    """
    settings = sim.world.config.eviction
    rules = rules_of(settings, drain_seconds=settings.drain_seconds)
    least_ms = rules.min_residency_ms
    if rules.max_swap_wait_ms:
        least_ms = min(least_ms, rules.longest_service_ms)
    stayed_ms = sim.now_ms - sim.seen_ms[neuron, model]
    why = f"{model} has been on {neuron} for {stayed_ms} ms of {least_ms}"
    _must(stayed_ms >= least_ms, "nobody_leaves_before_its_time", why)


def only_the_idle_are_unloaded(sim: Simulation, order: Unload) -> None:
    """What is unloaded for being idle is waited for by nobody."""
    waits = [each for each in sim.clients if each.wanted.model == order.model and each.is_waiting]
    _must(not waits, "only_the_idle_are_unloaded", f"{len(waits)} wait for {order.model}")


def memory_is_promised_once(sim: Simulation, order: Load) -> None:
    """Of a card of which only we take memory, no more is promised than there is: models that are
    listed, and loads under way; who leaves for a load and that load count once.
    """
    if not books_are_exact(sim, order.neuron):
        return
    neuron, promised = order.neuron, Counter[int]()
    loads = [
        job.order
        for job in sim.loader.jobs.values()
        if job.order.neuron == neuron and not (job.is_lost or job.is_shown)
    ]
    loads.append(order)
    leaving: dict[ModelId, Load] = {model: load for load in loads for model in load.evict}
    going = {load.spec.model: Counter[int]() for load in loads}
    for model, offer in sim.board.view.neurons[neuron].models.items():
        if offer.status is Status.UNLOADED or model in going:
            continue
        for card in offer.devices:
            share = share_mb(offer.vram_used_mb or 0, len(offer.devices))
            target = going[leaving[model].spec.model] if model in leaving else promised
            target[card] += share
    for load in loads:
        cards = load.spec.devices
        if load is order and _is_of_unknown_size(sim, load.spec.model):
            alone = not any(promised[card] for card in cards)
            _must(alone, "memory_is_promised_once", f"{order} is not alone")
            return
        need = share_mb(sim.size_mb(load.spec.model), len(cards))
        leavers = going[load.spec.model]
        for card in {*cards, *leavers}:
            promised[card] += max(need if card in cards else 0, leavers[card])
    for card in order.spec.devices:
        total = sim.machines[neuron].host.cards_mb[card]
        why = f"{promised[card]} of {total} MB of card {card} of {neuron}"
        _must(promised[card] <= total, "memory_is_promised_once", why)


def _is_of_unknown_size(sim: Simulation, model: ModelId) -> bool:
    """Whether neither the catalogue nor a neuron that has it says how large it is."""
    offers = [view.models.get(model) for view in sim.board.view.neurons.values()]
    reported = any(offer is not None and offer.vram_used_mb for offer in offers)
    return model in sim.world.sizes_unknown and not reported


def books_are_exact(sim: Simulation, neuron: NeuronName) -> bool:
    """Whether nobody but us has taken or freed memory there since what the board shows, and all
    sizes are known.
    """
    machine = sim.machines[neuron]
    if any(machine.strangers_mb) or machine.disturbed_ms >= sim.polls.as_of_ms[neuron]:
        return False
    return not machine.warming and all(held.is_ours for held in machine.models.values())


def what_was_promised_is_there(sim: Simulation, machine: Machine, job: Job) -> None:
    """A load that was planned on exact books, and that nobody got in the way of, fits. So nothing
    is displaced in vain.
    """
    excused = not job.was_exact or machine.disturbed_ms >= job.ordered_ms
    excused = excused or any(machine.strangers_mb) or bool(machine.warming)
    model = job.order.spec.model
    entry = sim.parts.planner.entry(model)
    unknown = entry is None or entry.vram_mb is None  # it may not even fit on an empty card
    known = machine.models.get(model)
    if known is not None:
        excused = excused or not known.is_ours or sim.now_ms > job.ordered_ms
    why = f"{job.order} into {[machine.free_mb(card) for card in job.order.spec.devices]} MB"
    _must(excused or unknown, "what_was_promised_is_there", why)


def nobody_is_cut_off(sim: Simulation, machine: Machine, model: ModelId) -> None:
    """When a model really leaves its neuron, no request of ours is on it."""
    cut = [each for each, of in machine.clients.items() if of == model]
    _must(not cut, "nobody_is_cut_off", f"{len(cut)} requests for {model} on {machine.name}")


# Every step.


def at_every_step(sim: Simulation) -> None:
    """All that has to hold after every event."""
    everyone_is_answered_in_time(sim)
    wake_ms = sim.outcomes.wake_at_ms
    if wake_ms is not None and wake_ms <= sim.now_ms:
        return  # it has not seen all of the event yet, and has said so
    if sim.world.kind == "large" and sim.tally["steps"] % LARGE_EVERY:
        return
    nobody_waits_beside_a_free_replica(sim)
    routes_are_of_now(sim)
    drains_are_for_somebody(sim)
    counts_are_right(sim)
    every_load_ends(sim)
    the_idle_go(sim)
    if sim.world.kind == "duel":
        the_cold_get_their_turn(sim)


def everyone_is_answered_in_time(sim: Simulation) -> None:
    """Nobody waits for longer than its clocks together allow, to the millisecond; and whoever was
    told was told once.
    """
    limits = sim.wait_limits
    while limits and limits[0][0] < sim.now_ms:
        client = heappop(limits)[2]
        _must(not client.is_waiting, "everyone_is_answered_in_time", client.wanted)
        _must(client.notified <= 1, "nobody_is_answered_twice", client.wanted)


def refused_in_time(sim: Simulation, client: Client, answer: Unserved) -> None:
    """Who is told that a clock ran out has spent what that clock allows."""
    if client.waiting is None:
        return
    spent_ms, patience = client.waiting.spent_ms, sim.patience
    waited_ms = sim.now_ms - client.entered_ms
    rule, why = "refused_in_time", f"{answer} after {spent_ms}"
    _must(client.notified == 1, "nobody_is_answered_twice", client.wanted)
    if sim.world.kind == "duel":
        _must(answer.cause is not Cause.IN_USE, "the_cold_get_their_turn", answer)
    if answer.cause is Cause.LOAD_CLOCK:
        _must(spent_ms[Clock.LOAD] >= patience.load_ms, rule, why)
    if answer.cause is Cause.QUEUE_CLOCK:
        plain = not client.wanted.streams and waited_ms >= patience.plain_ms
        _must(plain or spent_ms[Clock.QUEUE] >= patience.queue_ms, rule, why)
    _must(sum(spent_ms.values()) == waited_ms, rule, f"{spent_ms} of {waited_ms} ms")


def nobody_waits_beside_a_free_replica(sim: Simulation) -> None:
    """While a request could be sent, none waits: there is no wake-up that is forgotten."""
    for model, line in sim.dispatcher.lines().items():
        free = sim.parts.replicas.has_room(model, sim.now_ms)
        _must(not free, "nobody_waits_beside_a_free_replica", f"{len(line)} wait for {model}")
        _must(len(line) > 0, "no_line_without_waiters", model)


def routes_are_of_now(sim: Simulation) -> None:
    """What is kept of where models can serve is what would be found now, by somebody who knows
    nothing of before.
    """
    kept = sim.parts.replicas
    anew = Replicas(sim.world.config.neurons, sim.board, sim.parts.residents)
    anew.breakers = kept.breakers
    models = {stay.residency[1] for stay in sim.parts.residents}
    anew.see(models)
    for model in models | sim.dispatcher.lines().keys():
        same = kept.routes(model) == anew.routes(model)
        ours, theirs = (each.choose(model, (), frozenset(), sim.now_ms) for each in (kept, anew))
        _must(same and ours == theirs, "routes_are_of_now", f"{model}: {ours}, not {theirs}")
    for name in sim.machines:
        closed = kept.breakers.state(name, sim.now_ms) is State.CLOSED
        _must(closed is (name not in kept.breakers.not_closed), "breakers_agree", name)


def what_matters_is_said(sim: Simulation, due: tuple[int | None, bool], client: Client) -> None:
    """Whoever is told that a request matters to nobody need not ask when to look again."""
    _must(sim.due == due, "what_matters_is_said", f"{client.wanted}: {due} is {sim.due} now")


def drains_are_for_somebody(sim: Simulation) -> None:
    """Nobody admits no more in favour of a model that nobody wants loaded."""
    lines = sim.dispatcher.lines()
    wanted = {model for model, line in lines.items() if line.clock is Clock.LOAD}
    wanted |= sim.parts.errands.wanted()
    for stay in sim.parts.residents:
        drains = stay.draining_for
        ok = (drains is None) == (stay.draining_since_ms is None)
        _must(ok and (drains is None or drains in wanted), "drains_are_for_somebody", drains)


def counts_are_right(sim: Simulation) -> None:
    """What a stay counts is what clients have: requests in flight, and leases not given back."""
    in_flight = Counter[int]()
    leases = Counter[int]()
    for client in sim.clients:
        serving = client.serving
        if serving is None and client.waiting is not None:
            answer = client.waiting.answer
            serving = answer if isinstance(answer, Serving) else None
            if client.waiting.lease is not None:
                leases[id(client.waiting.lease)] += 1
        if serving is not None:
            in_flight[id(serving.resident)] += 1
            if serving.lease is not None:
                leases[id(serving.lease)] += 1
    for stay in sim.parts.residents:
        mine = stay.in_flight, stay.leases
        real = in_flight[id(stay)], leases[id(stay)]
        _must(mine == real, "counts_are_right", f"{stay.residency} counts {mine}, not {real}")


def every_load_ends(sim: Simulation) -> None:
    """No load is under way for ever."""
    for load in sim.parts.loads:
        age_ms = sim.now_ms - load.loading.since_ms
        _must(age_ms <= LOAD_ENDS_WITHIN_MS, "every_load_ends", load.loading)


def the_cold_get_their_turn(sim: Simulation) -> None:
    """Of models that share a card, none waits for its load longer than the others' turns take: each
    of them serves for as long as the swap rules say, ends what it has in flight, and is replaced.
    """
    world, settings = sim.world, sim.world.config.eviction
    rules = rules_of(settings, drain_seconds=settings.drain_seconds)
    swap_ms = max(world.load_ms.values()) * 3 // 2 + SWAP_TAKES_MS
    turn_ms = rules.longest_service_ms + world.longest_request_ms + swap_ms
    for model, line in sim.dispatcher.lines().items():
        if line.clock is Clock.LOAD and model not in sim.parts.loads:
            waited_ms = sim.now_ms - line.clock_since_ms
            most_ms = len(world.true_mb) * turn_ms
            why = f"{model} for {waited_ms} of {most_ms} ms"
            _must(waited_ms <= most_ms, "the_cold_get_their_turn", why)


def the_idle_go(sim: Simulation) -> None:
    """A model that nobody has used for its `idle_unload_seconds` is unloaded soon after."""
    for stay in sim.parts.residents:
        if not _is_idle(sim, stay):
            sim.idle_since_ms.pop(stay.residency, None)
            continue
        since_ms = sim.idle_since_ms.setdefault(stay.residency, sim.now_ms)
        late_ms = sim.now_ms - since_ms
        _must(late_ms <= IDLE_LATE_MS, "the_idle_go", f"{stay.residency} for {late_ms} ms")


def _is_idle(sim: Simulation, stay: Resident) -> bool:
    neuron, model = stay.residency
    entry, view = sim.parts.planner.entry(model), sim.board.view.neurons[neuron]
    if entry is None or not entry.idle_unload_seconds or stay.leaving or stay.in_flight:
        return False
    if not view.healthy or view.kind == "openai" or model in sim.parts.loads:
        return False
    if any(neuron == load.loading.neuron for load in sim.parts.loads):
        return False  # it may have left for that load, and be shown by a late poll
    offer = view.models[model]
    if offer.status is not Status.LOADED or offer.load.in_flight or stay.leases:
        return False
    if sim.dispatcher.waiting().get(model):
        return False
    return sim.now_ms - stay.last_used_ms > entry.idle_unload_seconds * 1000


# The end.


def at_rest(sim: Simulation) -> None:
    """Once nobody comes any more, nothing is left over and nothing is wanted."""
    rule = "nothing_is_left_over"
    _must(not sim.clients, rule, f"clients {len(sim.clients)}")
    _must(not sim.dispatcher.lines(), rule, f"lines {sim.dispatcher.waiting()}")
    _must(not list(sim.parts.loads), rule, "loads")
    _must(not sim.parts.errands.wanted(), rule, sim.parts.errands.wanted())
    _must(not sim.loader.is_busy, rule, "orders")
    for stay in sim.parts.residents:
        left = stay.in_flight, stay.leases, stay.leaving, stay.draining_for, stay.unload_until_ms
        _must(left == (0, 0, False, None, None), rule, f"{stay.residency}: {left}")
    wake_ms = sim.outcomes.wake_at_ms
    _must(wake_ms is None, "it_asks_for_nothing_more", f"wake-up at {wake_ms}")


# Fairness.


class FairTurns:
    """What is served of each line while the first of a key waits there.

    A key of which nobody has waited in that line owes nothing, and waits for one turn of each
    other key at most, however many requests those have there.
    """

    def __init__(self, quantum_tokens: int) -> None:
        self._quantum = quantum_tokens
        self._lines: dict[ModelId, tuple[Line, set[str]]] = {}
        self._watched: dict[ModelId, dict[Client, Counter[Wanted]]] = {}

    def joined(self, client: Client, line: Line) -> None:
        """A client begins to wait."""
        model, key = client.wanted.model, client.wanted.key
        known, seen = self._lines.get(model, (None, set[str]()))
        if known is not line:
            seen = set()
            self._lines[model] = line, seen
            self._watched[model] = {}
        if key not in seen:
            self._watched[model][client] = Counter()
        seen.add(key)

    def served(self, client: Client) -> None:
        """A client has its turn."""
        watched = self._watched.get(client.wanted.model, {})
        before = watched.pop(client, None)
        if before is not None:
            self.one_turn_of_each_other_key(client, before)
        for served in watched.values():
            served[client.wanted] += 1

    def gone(self, client: Client) -> None:
        """A client waits no more."""
        self._watched.get(client.wanted.model, {}).pop(client, None)

    def one_turn_of_each_other_key(self, client: Client, before: Counter[Wanted]) -> None:
        """Who comes first of its key waits for a turn of each other one: a share, and what the
        request that uses it up takes beyond.
        """
        tokens = Counter[str]()
        for wanted, times in before.items():
            tokens[wanted.key] += wanted.cost_tokens * times
        for wanted in before:
            share = max(1, round(self._quantum * wanted.weight))
            most = share - 1 + COST_TOKENS_MAX if wanted.key != client.wanted.key else 0
            why = f"{tokens[wanted.key]} tokens of {wanted.key} went before {client.wanted}"
            _must(tokens[wanted.key] <= most, "one_turn_of_each_other_key", why)


def _is_on(client: Client, neuron: NeuronName, model: ModelId) -> bool:
    serving = client.serving
    if serving is None and client.waiting is not None:
        answer = client.waiting.answer
        serving = answer if isinstance(answer, Serving) and client.outcome is None else None
    return serving is not None and serving.resident.residency == (neuron, model)
