"""Turns alone: who is next, against a model that walks through every round one by one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexd.fleet.turns import Turns

KEYS = ("a", "b", "c")
WEIGHTS = {"a": 1, "b": 2, "c": 0.5}


class WalkedTurns:
    """The same as `Turns`, slowly: all keys in a list, by when they joined or last had a turn.

    In each round every key of the list gets its share; who has more than nothing then has a turn.
    """

    def __init__(self, quantum_tokens: int) -> None:
        self.quantum_tokens = quantum_tokens
        self.tokens: dict[str, int] = {}  # what is left of the share, or the debt
        self.in_order: list[str] = []
        self.due: list[str] = []  # who has yet to have a turn in this round, by order
        self.absent: set[str] = set()

    def share(self, key: str) -> int:
        return max(1, round(self.quantum_tokens * WEIGHTS[key]))

    def join(self, key: str) -> None:
        if key in self.in_order:
            return
        self.tokens.setdefault(key, 0)
        self.absent.discard(key)
        self.in_order.append(key)

    def leave(self, key: str) -> None:
        self.in_order.remove(key)
        if key in self.due:
            self.due.remove(key)
        if self.tokens[key] < 0:
            self.absent.add(key)
        else:
            del self.tokens[key]
        if not self.in_order:
            self.tokens.clear()
            self.absent.clear()

    def next(self) -> str | None:
        while self.in_order and not self.due:
            for key in [*self.in_order, *self.absent]:
                self.tokens[key] += self.share(key)
            for key in [key for key in self.absent if self.tokens[key] > 0]:
                self.absent.remove(key)
                del self.tokens[key]
            self.due = [key for key in self.in_order if self.tokens[key] > 0]
        return self.due[0] if self.due else None

    def charge(self, key: str, tokens: int) -> None:
        self.tokens[key] -= tokens
        if self.tokens[key] <= 0:
            self.due.remove(key)
            self.in_order.remove(key)
            self.in_order.append(key)


def serve(turns: Turns, tokens: int) -> str | None:
    """Serve the next request at so many tokens; whose it was."""
    key = turns.next()
    if key is not None:
        turns.charge(key, tokens)
    return key


def served(turns: Turns, costs: dict[str, int], times: int) -> str:
    """Who is served in so many requests, each key's at its own price."""
    order = ""
    for _ in range(times):
        key = turns.next()
        assert key is not None
        turns.charge(key, costs[key])
        order += key
    return order


def test_nobody_is_next_where_nobody_waits() -> None:
    turns = Turns(100, debtors_max=10)
    assert turns.next() is None
    turns.join("a", 1)
    assert "a" in turns
    assert turns.next() == turns.next() == "a"
    turns.leave("a")
    assert "a" not in turns
    assert turns.next() is None


def test_a_turn_lasts_until_its_share_is_used_up() -> None:
    turns = Turns(100, debtors_max=10)
    turns.join("a", 1)
    turns.join("b", 2)
    assert served(turns, {"a": 50, "b": 50}, 12) == "aabbbbaabbbb"


def test_a_request_larger_than_the_share_is_served_at_once_and_paid_back_by_sitting_out() -> None:
    turns = Turns(100, debtors_max=10)
    turns.join("a", 1)
    turns.join("b", 1)
    assert served(turns, {"a": 350, "b": 100}, 10) == "abbb" + "abbbb" + "a"


def test_rounds_in_which_nobody_has_a_turn_are_skipped() -> None:
    turns = Turns(1, debtors_max=10)
    turns.join("a", 1)
    turns.join("b", 1)
    assert served(turns, {"a": 10**15, "b": 10**15 + 10**9}, 5) == "ababa"


def test_an_unused_share_is_lost_with_the_turn() -> None:
    turns = Turns(100, debtors_max=10)
    turns.join("a", 1)
    turns.join("b", 1)
    assert serve(turns, 10) == "a"
    turns.leave("a")
    turns.join("a", 1)
    assert served(turns, {"a": 50, "b": 50}, 6) == "bbaabb"


def test_a_debt_outlives_an_absence_while_others_wait() -> None:
    turns = Turns(100, debtors_max=10)
    turns.join("a", 1)
    turns.join("b", 1)
    assert serve(turns, 350) == "a"
    turns.leave("a")
    turns.join("a", 1)
    assert served(turns, {"a": 100, "b": 100}, 4) == "bbba"


def test_a_debt_is_paid_by_the_rounds_of_others_during_an_absence() -> None:
    turns = Turns(100, debtors_max=10)
    turns.join("a", 1)
    turns.join("b", 1)
    assert serve(turns, 350) == "a"
    turns.leave("a")
    assert served(turns, {"b": 100}, 4) == "bbbb"
    turns.join("a", 1)
    assert served(turns, {"a": 100, "b": 100}, 4) == "baba"


def test_a_debt_is_owed_to_nobody_once_nobody_waits() -> None:
    turns = Turns(100, debtors_max=10)
    turns.join("a", 1)
    assert serve(turns, 10**9) == "a"
    turns.leave("a")
    turns.join("b", 1)
    turns.join("a", 1)
    assert served(turns, {"a": 100, "b": 100}, 4) == "baba"


def test_nor_is_that_of_a_key_that_left_before_the_last_one() -> None:
    turns = Turns(100, debtors_max=10)
    turns.join("a", 1)
    turns.join("b", 1)
    assert serve(turns, 10**9) == "a"
    turns.leave("a")
    turns.leave("b")
    turns.join("b", 1)
    turns.join("a", 1)
    assert served(turns, {"a": 100, "b": 100}, 4) == "baba"


def test_a_debt_smaller_than_a_share_is_remembered_too() -> None:
    turns = Turns(100, debtors_max=10)
    turns.join("a", 1)
    turns.join("b", 1)
    assert serve(turns, 150) == "a"
    turns.leave("a")
    turns.join("a", 1)
    assert served(turns, {"a": 60, "b": 100}, 4) == "baba"


def test_a_key_that_owes_nothing_takes_no_debtors_place() -> None:
    turns = Turns(100, debtors_max=1)
    for key in ("a", "b", "c"):
        turns.join(key, 1)
    assert serve(turns, 350) == "a"
    turns.leave("a")
    assert serve(turns, 50) == "b"
    turns.leave("b")
    turns.join("a", 1)
    assert served(turns, {"a": 100, "c": 100}, 4) == "ccca"


def test_rounds_that_debtors_wait_for_take_no_memory_when_they_have_left() -> None:
    turns = Turns(1, debtors_max=10)
    turns.join("b", 1)
    for number in range(1000):
        turns.join(f"a{number}", 1)
        while serve(turns, 10_000 + number) == "b":
            pass
        turns.leave(f"a{number}")
    assert len(turns._rounds) == len(turns._ahead) <= 3
    turns.leave("b")
    assert len(turns._rounds) == len(turns._ahead) == 0


def test_of_too_many_debtors_the_first_to_leave_is_forgotten() -> None:
    turns = Turns(100, debtors_max=1)
    for key in ("a", "b", "c"):
        turns.join(key, 1)
    for key in ("a", "b"):
        assert serve(turns, 350) == key
        turns.leave(key)
        turns.join("d", 1)
    turns.join("a", 1)
    turns.join("b", 1)
    assert served(turns, {"a": 100, "b": 100, "c": 100, "d": 100}, 6) == "cdacda"


def test_a_new_weight_counts_from_the_turn_after_the_next() -> None:
    turns = Turns(100, debtors_max=10)
    turns.join("a", 1)
    turns.join("b", 1)
    turns.join("a", 3)
    assert served(turns, {"a": 100, "b": 100}, 7) == "abaaaba"


def test_a_tiny_weight_still_gets_its_turn() -> None:
    turns = Turns(100, debtors_max=10)
    turns.join("a", 1)
    turns.join("b", 1e-9)
    assert serve(turns, 100) == "a"
    assert serve(turns, 50) == "b"
    assert served(turns, {"a": 100, "b": 50}, 51) == "a" * 49 + "ba"


@pytest.mark.parametrize("weight", [0, -1, float("inf"), float("nan")])
def test_a_weight_that_is_none_is_refused_and_changes_nothing(weight: float) -> None:
    turns = Turns(100, debtors_max=10)
    with pytest.raises(ValueError, match="weight"):
        turns.join("a", weight)
    assert "a" not in turns


def test_a_quantum_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="quantum of 0"):
        Turns(0, debtors_max=10)


def test_only_who_is_next_can_be_charged_and_never_nothing() -> None:
    turns = Turns(100, debtors_max=10)
    turns.join("a", 1)
    turns.join("b", 1)
    with pytest.raises(AssertionError, match="whose turn"):
        turns.charge("b", 1)
    with pytest.raises(AssertionError, match="costs nothing"):
        turns.charge("a", 0)


def test_a_copy_goes_its_own_way() -> None:
    turns = Turns(100, debtors_max=10)
    for key in KEYS:
        turns.join(key, WEIGHTS[key])
    assert serve(turns, 350) == "a"
    turns.leave("a")
    twin = turns.copy()
    assert served(twin, {"b": 50, "c": 50}, 10) == "bbbbcbbbbc"
    twin.leave("b")
    assert served(turns, {"b": 50, "c": 50}, 5) == "bbbbc"
    twin = turns.copy()
    for each in (turns, twin):
        each.join("a", 1)
        each.join("d", 1)
    costs = {"a": 100, "b": 100, "c": 100, "d": 100}
    assert served(twin, costs, 9) == served(turns, costs, 9) == "bbcdbbdac"


Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([f"join {key}" for key in KEYS]), st.just(0)),
        st.tuples(st.sampled_from([f"leave {key}" for key in KEYS]), st.just(0)),
        st.tuples(st.sampled_from(["serve", "hop"]), st.integers(1, 40)),
        st.tuples(st.just("serve"), st.integers(1, 400)),
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=300)
@given(st.integers(1, 20), STEPS)
def test_turns_come_as_if_every_round_were_walked_through(
    quantum_tokens: int, steps: list[Step]
) -> None:
    turns, walked = Turns(quantum_tokens, debtors_max=10), WalkedTurns(quantum_tokens)
    for key in KEYS:
        turns.join(key, WEIGHTS[key])
        walked.join(key)
    for step, tokens in steps:
        verb, _, key = step.partition(" ")
        if verb == "join":
            turns.join(key, WEIGHTS[key])
            walked.join(key)
        elif verb == "leave" and key in turns:
            turns.leave(key)
            walked.leave(key)
        elif verb in ("serve", "hop"):
            expected = walked.next()
            assert turns.copy().next() == turns.next() == expected
            if expected is not None:
                turns.charge(expected, tokens)
                walked.charge(expected, tokens)
            if expected is not None and verb == "hop":
                turns.leave(expected)
                walked.leave(expected)
                turns.join(expected, WEIGHTS[expected])
                walked.join(expected)
    assert turns.next() == walked.next()


@given(st.integers(1, 50), st.lists(st.integers(1, 200), min_size=1, max_size=300))
def test_who_always_waits_gets_tokens_by_weight_at_every_moment(
    quantum_tokens: int, costs: list[int]
) -> None:
    turns = Turns(quantum_tokens, debtors_max=10)
    shares = {key: max(1, round(quantum_tokens * WEIGHTS[key])) for key in KEYS}
    taken = dict.fromkeys(KEYS, 0)
    for key in KEYS:
        turns.join(key, WEIGHTS[key])
    for cost in costs:
        served_key = serve(turns, cost)
        assert served_key is not None
        taken[served_key] += cost
        # In shares: nobody is ahead of anybody by more than one share and one request of each.
        got = {each: taken[each] / shares[each] for each in KEYS}
        slack = {each: 200 / shares[each] for each in KEYS}
        for one in KEYS:
            for other in KEYS:
                assert got[one] - got[other] <= 1 + slack[one] + slack[other]
