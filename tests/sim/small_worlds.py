"""All that can happen in a small world: every order of a few requests, a crash, two steps of time.

Two keys share an account, each with a cap, and a handful of requests would overdraw all three if
they could. A request is reserved, made durable and dispatched, and settled for nothing or in full;
time passes in steps that put charges just inside and just outside of windows. Once in a world, and
at every point of it, the process dies: the journal that is left is cut behind every entry that
need not be durable, in the middle of the next line too, and replayed. Neurons that were at work go
on until just before their grace is over.

After each step the books must be sound; at each dispatch the judge outside adds up what was
consumed. `explore` walks the tree of steps depth first; worlds that have become the same by
different ways after a crash are walked once and counted by each way.
"""

from collections.abc import Iterator

import msgspec

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.cap_windows import HELD, rolling
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import (
    Cap,
    Entry,
    Granted,
    Refused,
    ReservationId,
    Scope,
    Snapshot,
    account_scope,
    key_scope,
)
from cortexd.ledger.invariants import check_accounts, check_answer, check_at_rest
from cortexd.ledger.records import encode_entries, encode_header, encode_snapshot
from cortexd.ledger.recovery import replay
from tests.ledger.scribe import SALT, header
from tests.sim.judge import Consumption, judge

ACME, ONE, TWO = account_scope("acme"), key_scope("one"), key_scope("two")
CAPS = (
    Cap(ACME, 8, rolling(90)),
    Cap(ONE, 5, rolling(60)),
    Cap(TWO, 5),
    Cap(ACME, 2, HELD, "con"),
)
TIME_STEPS_MS = (31, 60)
GRACE_MS = 40
BUCKETS = 3
START_MS = 1_000


class Request(msgspec.Struct, frozen=True):
    """Somebody wants `tokens`."""

    scopes: tuple[Scope, ...]
    tokens: int


REQUESTS = (
    Request((ACME, ONE), 3),
    Request((ACME, TWO), 4),
    Request((ACME, ONE), 3),
    Request((ACME, TWO), 2),
)


class Running(msgspec.Struct, frozen=True):
    """A request with a reservation. `begin_ms` None: not dispatched yet."""

    index: int
    number: ReservationId
    n: int
    begin_ms: int | None = None


class Consumed(msgspec.Struct, frozen=True):
    """What a neuron did for a request. `end_ms`: when its charge was stamped, at the latest."""

    index: int
    begin_ms: int
    end_ms: int
    tokens: int


class World(msgspec.Struct, frozen=True):
    """One moment. What is frozen here is never changed, so that worlds can share it.

    `snapshot`: the books. `data`: the segment so far, from which a crash recovers; `ends`: where
    each entry's line ends. `durable`: how many of those entries a sync has covered.
    """

    now_ms: int
    snapshot: Snapshot
    data: bytes
    ends: tuple[int, ...]
    durable: int
    waiting: tuple[int, ...]
    running: tuple[Running, ...]
    consumed: tuple[Consumed, ...]
    steps_left: tuple[int, ...]
    may_crash: bool


class Explored(msgspec.Struct):
    """How much was seen. `worlds`: complete histories; `states`: moments that were checked."""

    worlds: int = 0
    states: int = 0
    crashes: int = 0
    dispatches: int = 0
    refusals: int = 0


def first_world(requests: int, time_steps: int) -> World:
    """The beginning: caps are configured and durable, and nobody has asked for anything."""
    accounts = Accounts(buckets=BUCKETS)
    for entry in accounts.configure(START_MS, CAPS):
        accounts.apply(entry)
    return _begin_segment(
        World(
            now_ms=START_MS,
            snapshot=accounts.dump(),
            data=b"",
            ends=(),
            durable=0,
            waiting=tuple(range(requests)),
            running=(),
            consumed=(),
            steps_left=TIME_STEPS_MS[:time_steps],
            may_crash=True,
        )
    )


def explore_all(requests: int, time_steps: int) -> Explored:
    """Walk everything that can happen to so many requests, with so many steps of time."""
    explored = Explored()
    explored.worlds = explore(first_world(requests, time_steps), explored)
    return explored


def explore(world: World, explored: Explored, known: dict[World, int] | None = None) -> int:
    """Walk everything that can follow; how many complete histories that is.

    `known`: worlds behind a crash that were walked, and their histories.
    """
    known = {} if known is None else known
    same = _without_history(world)
    if not world.may_crash and same in known:
        return known[same]
    check_state(world)
    explored.states += 1
    worlds = sum(explore(after, explored, known) for after in following(world, explored))
    if not worlds:
        check_end(world)
        worlds = 1
    if not world.may_crash:
        known[same] = worlds
    return worlds


def following(world: World, explored: Explored) -> Iterator[World]:
    """Each one thing that can happen next."""
    for index in world.waiting:
        yield from _reserve(world, index, explored)
    for running in world.running:
        if running.begin_ms is None:
            explored.dispatches += 1
            yield _dispatch(world, running)
            yield _settle(world, running, 0)
        else:
            yield _settle(world, running, 0)
            yield _settle(world, running, REQUESTS[running.index].tokens)
    for at in range(len(world.steps_left)):
        yield _pass_time(world, at)
    if world.may_crash:
        yield from _crash(world, explored)


# Steps


def _reserve(world: World, index: int, explored: Explored) -> Iterator[World]:
    request = REQUESTS[index]
    accounts = _accounts(world)
    check_answer(accounts, world.now_ms, request.scopes, request.tokens)
    entries, answer = accounts.reserve(world.now_ms, request.scopes, request.tokens)
    if isinstance(answer, Refused):
        explored.refusals += 1
        return  # a refusal is no change: it may come again later, or never
    assert isinstance(answer, Granted)
    after = _happen(world, accounts, entries)
    running = Running(index, answer.reservation_id, len(after.ends))
    yield msgspec.structs.replace(
        after,
        waiting=tuple(other for other in world.waiting if other != index),
        running=(*world.running, running),
    )


def _dispatch(world: World, running: Running) -> World:
    """Sync what was appended, and send the request to a neuron."""
    dispatched = msgspec.structs.replace(running, begin_ms=world.now_ms)
    after = msgspec.structs.replace(
        world,
        durable=len(world.ends),
        running=tuple(dispatched if each is running else each for each in world.running),
    )
    judge(_facts(after))
    return after


def _settle(world: World, running: Running, tokens: int) -> World:
    accounts = _accounts(world)
    why = "settle" if tokens else "release"
    cost = Charge(tokens, tokens, 0, "settle" if tokens else "release", 0)
    assert why == cost.why
    entries, _ = accounts.settle(world.now_ms, running.number, cost)
    after = _happen(world, accounts, entries)
    consumed = world.consumed
    if running.begin_ms is not None and tokens:
        consumed = (*consumed, Consumed(running.index, running.begin_ms, world.now_ms, tokens))
    return msgspec.structs.replace(
        after,
        running=tuple(each for each in world.running if each is not running),
        consumed=consumed,
    )


def _pass_time(world: World, at: int) -> World:
    now_ms = world.now_ms + world.steps_left[at]
    left = world.steps_left[:at] + world.steps_left[at + 1 :]
    later = msgspec.structs.replace(world, now_ms=now_ms, steps_left=left)
    accounts = _accounts(later)
    entries = accounts.tick(now_ms)
    return _happen(later, accounts, entries) if entries else later


def _crash(world: World, explored: Explored) -> Iterator[World]:
    """The process dies, and any entries that no sync has covered may be lost with it."""
    lingering = tuple(
        Consumed(
            each.index, each.begin_ms, world.now_ms + GRACE_MS - 1, REQUESTS[each.index].tokens
        )
        for each in world.running
        if each.begin_ms is not None
    )
    for kept in range(world.durable, len(world.ends) + 1):
        explored.crashes += 1
        end = world.ends[kept - 1] if kept else _begin_bytes(world)
        recovered = replay(world.data[:end], buckets=BUCKETS)
        assert recovered.n == kept, "an entry was lost or made up"
        if kept < len(world.ends):
            torn = replay(world.data[: (end + world.ends[kept]) // 2], buckets=BUCKETS)
            assert torn.accounts.dump() == recovered.accounts.dump()
        accounts = recovered.accounts
        for entry in accounts.ghosts(world.now_ms, GRACE_MS):
            accounts.apply(entry)
        assert accounts.configure(world.now_ms, CAPS) == ()
        yield _begin_segment(
            msgspec.structs.replace(
                world,
                snapshot=accounts.dump(),
                running=(),
                consumed=(*world.consumed, *lingering),
                may_crash=False,
            )
        )


# What must hold


def check_state(world: World) -> None:
    """The books are sound, and what is open in them is what runs or has died."""
    accounts = _accounts(world)
    check_accounts(accounts)
    owned = {each.reservation_id for each in accounts.reservations() if not each.ghost_until_ms}
    assert owned == {each.number for each in world.running}
    standings = accounts.standings((ACME, ONE, TWO), world.now_ms)
    assert len(standings) == len(CAPS)
    for standing in standings:
        assert 0 <= standing.spent + standing.reserved <= standing.hard_cap


def check_end(world: World) -> None:
    """Nobody runs any more; when every grace is over, all that was consumed has been charged."""
    accounts = _accounts(world)
    check_at_rest(accounts)
    for entry in accounts.tick(world.now_ms + GRACE_MS):
        accounts.apply(entry)
    assert accounts.open_reservations == 0
    for scope in (ACME, ONE, TWO):
        consumed = sum(
            each.tokens for each in world.consumed if scope in REQUESTS[each.index].scopes
        )
        assert accounts.lifetime(scope).tokens >= consumed


def _facts(world: World) -> list[Consumption]:
    """What was consumed and may still be, in the order of dispatch."""
    facts = []
    for done in world.consumed:
        fact = Consumption(REQUESTS[done.index].scopes, CAPS, done.begin_ms, done.tokens)
        fact.end_ms = done.end_ms
        facts.append(fact)
    for running in world.running:
        if running.begin_ms is not None:
            request = REQUESTS[running.index]
            facts.append(Consumption(request.scopes, CAPS, running.begin_ms, request.tokens))
    return sorted(facts, key=lambda fact: fact.begin_ms)


# Books and bytes


def _accounts(world: World) -> Accounts:
    return Accounts.load(world.snapshot, buckets=BUCKETS)


def _happen(world: World, accounts: Accounts, entries: tuple[Entry, ...]) -> World:
    """Apply, and append to the segment."""
    lines = world.data
    ends = world.ends
    for entry in entries:
        accounts.apply(entry)
        lines += encode_entries([entry], salt=SALT, n=len(ends), durable_n=world.durable)
        ends = (*ends, len(lines))
    return msgspec.structs.replace(world, snapshot=accounts.dump(), data=lines, ends=ends)


def _begin_segment(world: World) -> World:
    data = encode_header(header()) + encode_snapshot(world.snapshot, salt=SALT)
    return msgspec.structs.replace(world, data=data, ends=(), durable=0)


def _begin_bytes(world: World) -> int:
    """Where the snapshot of the segment ends."""
    return world.data.index(b"\n", world.data.index(b"\n") + 1) + 1


def _without_history(world: World) -> World:
    return msgspec.structs.replace(world, data=b"", ends=(), durable=0)
