"""Conversations go back to the neuron that has read them, and nobody can read them here."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.fleet.affinity import (
    MARKS_PER_REQUEST_MAX,
    MESSAGES_MAX,
    Affinity,
    Mark,
    first,
    prefix_marks,
)
from cortexd.fleet.view import NeuronName

SECRET = bytes(range(32))
A, B, C = NeuronName("a"), NeuronName("b"), NeuronName("c")
IDLE = {A: 0, B: 0, C: 0}


def chat(*contents: str) -> bytes:
    roles = ("system", "user", "assistant")
    return msgspec.json.encode(
        [{"role": roles[i % 3], "content": text} for i, text in enumerate(contents)]
    )


def marks(*contents: str, scope: tuple[bytes, ...] = (b"key", b"model")) -> tuple[Mark, ...]:
    return prefix_marks(chat(*contents), secret=SECRET, scope=scope)


CONTENTS = st.lists(st.sampled_from(["", "x", "y", '"},{"', "ä"]), max_size=6)


@given(CONTENTS, CONTENTS)
def test_two_conversations_share_the_marks_of_what_they_begin_with_alike_and_no_others(
    one: list[str], other: list[str]
) -> None:
    ours, theirs = marks(*one), marks(*other)
    assert (len(ours), len(theirs)) == (len(one), len(other))
    for i in range(min(len(one), len(other))):
        assert (ours[i] == theirs[i]) == (one[: i + 1] == other[: i + 1])
    assert not set(ours[len(other) :]) & set(theirs)


def test_a_longer_conversation_has_the_marks_of_the_one_that_it_goes_on_from() -> None:
    assert marks("be brief", "hi", "hello", "bye")[:2] == marks("be brief", "hi")


@given(st.lists(st.binary(max_size=3), max_size=3), st.lists(st.binary(max_size=3), max_size=3))
def test_another_key_model_or_tool_makes_other_marks(one: list[bytes], other: list[bytes]) -> None:
    ours, theirs = marks("x", scope=tuple(one)), marks("x", scope=tuple(other))
    assert (ours == theirs) == (one == other)


def test_what_is_scope_is_no_message() -> None:
    ours = prefix_marks(b"[2]", secret=SECRET, scope=(b"1",))
    assert not {*ours} & {*prefix_marks(b"[1,2]", secret=SECRET, scope=())}


def test_without_the_secret_nobody_can_tell_what_was_said() -> None:
    """Marks may be seen in a debugger or a core dump: they must not confirm a guess."""
    guessed = prefix_marks(chat("x"), secret=bytes(32), scope=(b"key", b"model"))
    assert marks("x") != guessed
    assert {len(mark) for mark in marks("a long text of no use" * 99)} == {16}


@pytest.mark.parametrize("size", [0, 15, 65])
def test_a_secret_of_a_wrong_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=r"secret|maximum"):
        prefix_marks(b"[]", secret=bytes(size), scope=())


@pytest.mark.parametrize("text", [b"", b"{}", b"[1", b"7", b"[" * 100_000])
def test_what_is_no_array_has_no_marks(text: bytes) -> None:
    assert prefix_marks(text, secret=SECRET, scope=()) == ()


def test_a_long_conversation_has_the_marks_of_its_first_and_its_last_messages() -> None:
    texts = [str(i) for i in range(MARKS_PER_REQUEST_MAX + 40)]
    long, longer = marks(*texts), marks(*texts, "more", "and more")
    assert len(long) == len(longer) == MARKS_PER_REQUEST_MAX
    assert long[0] == longer[0] == marks(texts[0])[0]
    assert long[-1] == longer[-3]
    assert long[3:] == longer[1:-2]


def test_a_conversation_without_end_has_no_marks() -> None:
    def empty(count: int) -> bytes:
        return b"[" + b",".join([b"{}"] * count) + b"]"

    assert prefix_marks(empty(MESSAGES_MAX), secret=SECRET, scope=()) != ()
    assert prefix_marks(empty(MESSAGES_MAX + 1), secret=SECRET, scope=()) == ()


def test_a_conversation_goes_on_where_it_began() -> None:
    affinity = Affinity()
    said = ["be brief"]
    for turn in range(9):
        said += [f"question {turn}"]
        if turn:
            assert affinity.prefer(marks(*said), IDLE, now_ms=turn) == B
        affinity.remember(marks(*said), B, now_ms=turn)
        said += [f"answer {turn}"]


def test_another_question_about_the_same_text_goes_where_the_text_was_read() -> None:
    affinity = Affinity()
    affinity.remember(marks("be brief", "a book", "who did it?"), C, now_ms=0)
    affinity.remember(marks("be brief", "hi"), A, now_ms=0)
    assert affinity.prefer(marks("be brief", "a book", "why?"), IDLE, now_ms=0) == C


def test_instructions_alone_are_a_reason_too_but_the_longer_beginning_wins() -> None:
    affinity = Affinity()
    affinity.remember(marks("be brief", "hi"), A, now_ms=0)
    affinity.remember(marks("be brief", "ho"), B, now_ms=1)
    assert affinity.prefer(marks("be brief", "other"), IDLE, now_ms=2) == B
    assert affinity.prefer(marks("be brief", "hi", "yes?"), IDLE, now_ms=2) == A


def test_nobody_is_preferred_for_what_nobody_has_read() -> None:
    affinity = Affinity()
    affinity.remember(marks("x", "y"), A, now_ms=0)
    assert affinity.prefer(marks("z", "y"), IDLE, now_ms=0) is None
    assert affinity.prefer((), IDLE, now_ms=0) is None
    assert affinity.prefer(marks("x", "y"), {}, now_ms=0) is None


def test_an_overloaded_neuron_is_not_preferred() -> None:
    """A conversation that fans out spreads over the fleet instead of queueing at one neuron."""
    affinity = Affinity(slack=1)
    conversation = marks("x", "y")
    affinity.remember(conversation, A, now_ms=0)
    assert affinity.prefer(conversation, {A: 4, B: 3}, now_ms=0) == A
    assert affinity.prefer(conversation, {A: 5, B: 3}, now_ms=0) is None
    assert affinity.prefer(conversation, {B: 0}, now_ms=0) is None, "tried, or away"


def test_the_next_best_is_preferred_when_the_best_is_overloaded() -> None:
    affinity = Affinity(slack=0)
    affinity.remember(marks("x", "y"), B, now_ms=0)
    affinity.remember(marks("x", "y", "z"), A, now_ms=0)
    assert affinity.prefer(marks("x", "y", "z"), {A: 2, B: 1, C: 1}, now_ms=0) is None
    affinity.remember(marks("x", "y"), B, now_ms=0)
    assert affinity.prefer(marks("x", "y", "z"), {A: 2, B: 1, C: 1}, now_ms=0) == B


def test_what_was_read_long_ago_is_no_reason_any_more() -> None:
    affinity = Affinity(age_ms_max=1_000)
    affinity.remember(marks("x", "y"), A, now_ms=0)
    assert affinity.prefer(marks("x", "y"), IDLE, now_ms=1_000) == A
    assert affinity.prefer(marks("x", "y"), IDLE, now_ms=1_001) is None
    affinity.remember(marks("z"), A, now_ms=1_001)
    assert len(affinity) == 1
    affinity.remember((), A, now_ms=9_999)
    assert len(affinity) == 0


def test_a_neuron_that_was_restarted_has_read_nothing() -> None:
    affinity = Affinity()
    affinity.remember(marks("x"), A, now_ms=0)
    affinity.remember(marks("y"), B, now_ms=0)
    affinity.forget(A)
    assert affinity.prefer(marks("x"), IDLE, now_ms=0) is None
    assert affinity.prefer(marks("y"), IDLE, now_ms=0) == B
    affinity.remember(marks("x"), A, now_ms=0)
    assert affinity.prefer(marks("x"), IDLE, now_ms=0) == A


def test_one_request_leaves_three_marks_however_long_it_is() -> None:
    affinity = Affinity()
    affinity.remember(marks(*map(str, range(200))), A, now_ms=0)
    assert len(affinity) == 3


TEXTS = st.lists(st.sampled_from("xyz"), min_size=1, max_size=5)
EVENTS = st.lists(
    st.tuples(st.sampled_from([A, B, C]), TEXTS, st.sampled_from([0, 1, 40, 100])), max_size=40
)


@pytest.mark.slow
@given(EVENTS, TEXTS, st.tuples(*[st.integers(0, 3)] * 3))
def test_it_prefers_whom_a_list_of_everything_that_happened_prefers(
    events: list[tuple[NeuronName, list[str], int]], asked: list[str], load: tuple[int, int, int]
) -> None:
    """With the same rule, said without hashes, orders or bounds on memory."""
    affinity, now = Affinity(age_ms_max=100, marks_max=8, slack=1), 0
    told: dict[tuple[str, ...], tuple[NeuronName, int]] = {}
    for neuron, texts, pause in events:
        now += pause
        affinity.remember(marks(*texts), neuron, now_ms=now)
        for length in (1, len(texts) - 1, len(texts)):
            if length:
                told.pop(tuple(texts[:length]), None)
                told[tuple(texts[:length])] = (neuron, now)
    kept = dict(list(told.items())[-8:])
    busy = dict(zip((A, B, C), load, strict=True))
    expected = None
    for length in range(len(asked), 0, -1):
        reader, at = kept.get(tuple(asked[:length]), (None, 0))
        if reader and now - at <= 100 and busy[reader] <= min(load) + 1:
            expected = reader
            break
    assert len(affinity) <= 8
    assert affinity.prefer(marks(*asked), busy, now_ms=now) == expected


NAMES = st.sampled_from([NeuronName(name) for name in "abcdef"])


@pytest.mark.slow
@given(st.dictionaries(NAMES, st.integers(0, 3), min_size=1), st.sets(NAMES), st.none() | NAMES)
def test_who_comes_first_is_chosen_by_the_rules(
    busy: dict[NeuronName, int], not_closed: set[NeuronName], preferred: NeuronName | None
) -> None:
    preferred = preferred if preferred in busy else None
    chosen = first(busy, not_closed, preferred)
    assert chosen in busy
    if preferred is not None and preferred not in not_closed:
        assert chosen == preferred
        return
    for other in busy.keys() - {chosen}:
        assert busy[chosen] <= busy[other]
        if busy[chosen] == busy[other]:
            assert chosen not in not_closed or other in not_closed
            assert (chosen in not_closed) != (other in not_closed) or chosen < other
