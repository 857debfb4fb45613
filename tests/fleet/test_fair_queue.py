"""The queue: fair between keys, first come first within one, bounded, and nothing gets lost."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.fleet.fair_queue import FairQueue, Full, Ticket
from cortexd.fleet.turns import Turns


def put(
    queue: FairQueue[str], key: str, item: str = "", *, cost: int = 100, now_ms: int = 0
) -> Ticket:
    """Add a request that finds a place."""
    ticket = queue.add(key, item or key, cost_tokens=cost, now_ms=now_ms)
    assert isinstance(ticket, Ticket)
    return ticket


def everything(queue: FairQueue[str]) -> list[str]:
    """All that waits, in turn."""
    items = []
    while (item := queue.take()) is not None:
        items.append(item)
    return items


def test_an_empty_queue_has_nothing_to_give() -> None:
    queue = FairQueue[str](100, 10)
    assert queue.take() is None
    assert len(queue) == 0
    assert queue.oldest_since_ms is None
    assert queue.waiting_of("a") == 0


def test_within_a_key_who_came_first_goes_first() -> None:
    queue = FairQueue[str](100, 10)
    for item, cost in (("1", 500), ("2", 1), ("3", 0)):
        put(queue, "a", item, cost=cost)
    assert everything(queue) == ["1", "2", "3"]


@pytest.mark.parametrize("taken", range(5))
@pytest.mark.parametrize("cost", [1, 99, 100, 5000])
def test_a_key_with_200_waiting_delays_another_by_a_turn_at_most(taken: int, cost: int) -> None:
    queue = FairQueue[str](100, 400)
    for _ in range(200):
        put(queue, "busy", cost=cost)
    for _ in range(taken):
        assert queue.take() == "busy"
    put(queue, "quiet", cost=30_000)
    before = list(iter(queue.take, "quiet"))
    turn = -(-100 // cost)
    assert len(before) <= turn
    assert len(queue) == 200 - taken - len(before)


def test_each_of_many_busy_keys_delays_another_by_one_turn_at_most() -> None:
    queue = FairQueue[str](100, 1000)
    for _ in range(50):
        for key in "abcde":
            put(queue, key)
    put(queue, "quiet")
    assert sorted(everything(queue)[:6]) == ["a", "b", "c", "d", "e", "quiet"]


def test_weights_are_honoured() -> None:
    queue = FairQueue[str](100, 100)
    for _ in range(8):
        queue.add("a", "a", cost_tokens=100, weight=3, now_ms=0)
        queue.add("b", "b", cost_tokens=50, weight=0.5, now_ms=0)
    assert "".join(everything(queue))[:12] == "aaabaaabaabb"


def test_a_key_that_comes_back_has_nothing_saved_up() -> None:
    queue = FairQueue[str](100, 100)
    for _ in range(10):
        put(queue, "a", cost=1)
    assert len(everything(queue)) == 10
    for _ in range(3):
        put(queue, "b")
    for _ in range(3):
        put(queue, "a")
    assert "".join(everything(queue)) == "bababa"


def test_one_huge_request_after_the_other_takes_no_more_than_its_share() -> None:
    """Each leaves the queue at once; its key's debt must not leave with it."""
    queue = FairQueue[str](100, 100)
    order = ""
    put(queue, "huge", cost=1000)
    for _ in range(30):
        while queue.waiting_of("small") < 5:
            put(queue, "small", cost=100)
        if not queue.waiting_of("huge"):
            put(queue, "huge", cost=1000)
        order += (queue.take() or "")[0]
    assert order == ("h" + "s" * 10) * 2 + "h" + "s" * 7


def test_a_request_that_leaves_is_not_charged_for() -> None:
    queue = FairQueue[str](100, 100)
    huge = put(queue, "a", cost=10**9)
    put(queue, "b")
    assert queue.remove(huge)
    put(queue, "a", "again")
    put(queue, "b")
    assert everything(queue) == ["b", "again", "b"]


def test_what_is_gone_cannot_be_removed() -> None:
    queue = FairQueue[str](100, 100)
    taken, removed, left = (put(queue, "a") for _ in range(3))
    assert queue.take() == "a"
    assert queue.remove(removed)
    assert not queue.remove(removed)
    assert not queue.remove(taken)
    assert taken not in queue
    assert left in queue
    assert (queue.position(taken), queue.position(removed), queue.position(left)) == (None, None, 0)
    assert len(queue) == queue.waiting_of("a") == 1


def test_the_oldest_request_is_known_whoever_leaves() -> None:
    queue = FairQueue[str](100, 100)
    tickets = [put(queue, key, now_ms=10 + at) for at, key in enumerate("aabb")]
    assert queue.oldest_since_ms == 10
    queue.remove(tickets[0])
    assert queue.oldest_since_ms == 11
    queue.remove(tickets[2])
    assert queue.oldest_since_ms == 11
    assert queue.take() == "a"
    assert queue.oldest_since_ms == 13


def test_alone_a_key_gets_half_of_the_places_and_leaves_some_for_others() -> None:
    queue = FairQueue[str](100, 12)
    for _ in range(6):
        put(queue, "a")
    full = queue.add("a", "a", cost_tokens=1, now_ms=0)
    assert full == Full(waiting=6, of_key=6, entries_max=12)
    assert not full.is_full_for_all
    for _ in range(3):
        put(queue, "b")
    assert queue.add("b", "b", cost_tokens=1, now_ms=0) == Full(9, 3, 12)
    for key in "cde":
        put(queue, key)
    full = queue.add("f", "f", cost_tokens=1, now_ms=0)
    assert full == Full(waiting=12, of_key=0, entries_max=12)
    assert full.is_full_for_all
    assert queue.take() == "a"
    put(queue, "f")


def test_a_queue_of_one_place_has_it_for_anybody() -> None:
    queue = FairQueue[str](100, 1)
    put(queue, "a")
    assert isinstance(queue.add("a", "a", cost_tokens=1, now_ms=0), Full)
    assert isinstance(queue.add("b", "b", cost_tokens=1, now_ms=0), Full)


def test_settings_and_costs_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="0 places"):
        FairQueue[str](100, 0)
    with pytest.raises(ValueError, match="quantum"):
        FairQueue[str](0, 10)
    queue = FairQueue[str](100, 10)
    with pytest.raises(ValueError, match="cost of -1"):
        queue.add("a", "a", cost_tokens=-1, now_ms=0)
    with pytest.raises(ValueError, match="weight"):
        queue.add("a", "a", cost_tokens=1, weight=0, now_ms=0)
    assert len(queue) == queue.waiting_of("a") == 0
    assert queue.take() is None


class Plain:
    """What a queue is when fairness is left to `Turns`: a line for each key."""

    def __init__(self, quantum_tokens: int, entries_max: int) -> None:
        self.turns = Turns(quantum_tokens, debtors_max=entries_max)
        self.entries_max = entries_max
        self.lines: dict[str, deque[tuple[int, int]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.lines.values()))

    def add(self, key: str, number: int, cost: int) -> bool:
        line = self.lines.setdefault(key, deque())
        if len(line) >= self.entries_max - len(self):
            return False
        self.turns.join(key, 1)
        line.append((number, cost))
        return True

    def first(self) -> int | None:
        key = self.turns.next()
        return self.lines[key][0][0] if key is not None else None

    def take(self) -> int | None:
        key = self.turns.next()
        if key is None:
            return None
        number, cost = self.lines[key].popleft()
        self.turns.charge(key, cost)
        if not self.lines[key]:
            self.turns.leave(key)
        return number

    def remove(self, number: int) -> bool:
        for key, line in self.lines.items():
            for entry in line:
                if entry[0] == number:
                    line.remove(entry)
                    if not line:
                        self.turns.leave(key)
                    return True
        return False


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abcd"), st.integers(0, 300)),
        st.tuples(st.just("take"), st.just(0)),
        st.tuples(st.just("remove"), st.integers(1, 60)),
    ),
    max_size=60,
)


@given(st.integers(1, 100), st.integers(1, 12), STEPS)
def test_nothing_is_lost_or_served_twice_and_positions_come_true(
    quantum_tokens: int, entries_max: int, steps: list[tuple[str, int]]
) -> None:
    queue, plain = FairQueue[int](quantum_tokens, entries_max), Plain(quantum_tokens, entries_max)
    tickets: dict[int, Ticket] = {}
    for now_ms, (verb, value) in enumerate(steps):
        if verb == "take":
            assert queue.take() == plain.take()
        elif verb == "remove" and value in tickets:
            assert queue.remove(tickets[value]) == plain.remove(value)
        elif verb != "remove":
            number = len(tickets) + 1
            ticket = queue.add(verb, number, cost_tokens=value, now_ms=now_ms)
            assert isinstance(ticket, Ticket) == plain.add(verb, number, max(1, value))
            if isinstance(ticket, Ticket):
                tickets[number] = ticket
        first = plain.first()
        assert first is None or queue.position(tickets[first]) == 0
        waiting = [ticket for ticket in tickets.values() if ticket in queue]
        assert len(queue) == len(plain) == len(waiting) <= entries_max
        assert queue.oldest_since_ms == min((it.since_ms for it in waiting), default=None)
        assert all(queue.waiting_of(key) == len(line) for key, line in plain.lines.items())
    foretold = {queue.position(ticket): number for number, ticket in tickets.items()}
    foretold.pop(None, None)
    for position in range(len(foretold)):
        assert queue.take() == plain.take() == foretold[position]
    assert queue.take() is None


@given(
    st.integers(1, 200),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 500)), max_size=80),
    st.integers(0, 80),
)
def test_who_owes_nothing_waits_for_at_most_a_turn_of_every_other_key(
    quantum_tokens: int, crowd: list[tuple[str, int]], taken: int
) -> None:
    queue = FairQueue[tuple[str, int]](quantum_tokens, 1000)
    for key, cost in crowd:
        queue.add(key, (key, cost), cost_tokens=cost, now_ms=0)
    for _ in range(taken):
        queue.take()
    queue.add("new", ("new", 1), cost_tokens=10**6, now_ms=0)
    tokens = dict.fromkeys("abc", 0)
    last = dict.fromkeys("abc", 0)
    while (item := queue.take()) != ("new", 1):
        assert item is not None
        key, cost = item
        tokens[key] += cost
        last[key] = cost
    # A turn: the share is not used up before its last request.
    assert all(tokens[key] - last[key] < quantum_tokens for key in "abc")


@given(st.integers(1, 50), st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_nobody_starves_while_others_never_stop_coming(
    quantum_tokens: int, costs: list[int]
) -> None:
    queue = FairQueue[str](quantum_tokens, 1000)
    for cost in costs:
        put(queue, "mine", cost=cost)
    served_others = 0
    while queue.waiting_of("mine"):
        while queue.waiting_of("others") < 2:
            put(queue, "others", cost=100)
        served_others += queue.take() == "others"
    # As many tokens as its own, a share, and the largest requests of both; and never more.
    assert served_others * 100 <= sum(costs) + 2 * quantum_tokens + 400 + 100
