"""Every way a request can end, and what it costs."""

from itertools import product

import pytest

from cortexd.dialects.upper_bound import Bound
from cortexd.dialects.usage import Ending, EndingKind, Seen, Usage
from cortexd.ledger.charging import IN_FLIGHT_TOKENS, Charge, charge
from cortexd.ledger.entries import Why

BOUND = Bound(prompt_tokens=100, output_tokens=400, choices=1)
TWO = Bound(prompt_tokens=100, output_tokens=400, choices=2)
SEEN = Seen(chunks=10, text_bytes=45)
USAGE = Usage(prompt_tokens=80, completion_tokens=12)


def ending(
    kind: EndingKind,
    usage: Usage | None = None,
    seen: Seen = SEEN,
    *,
    streamed: bool = True,
    token_per_chunk: bool = False,
) -> Ending:
    return Ending(kind, streamed, usage, seen, token_per_chunk)


def test_what_was_never_dispatched_costs_nothing() -> None:
    nothing = Charge(0, 0, 0, "release", 0)
    assert charge(BOUND, None, dispatched=False) == nothing
    assert charge(BOUND, ending(EndingKind.COMPLETED, USAGE), dispatched=False) == nothing


def test_what_a_neuron_refused_costs_nothing() -> None:
    refused = ending(EndingKind.NEURON_REFUSED, seen=Seen())
    assert charge(BOUND, refused, dispatched=True) == Charge(0, 0, 0, "release", 0)


def test_an_owner_that_said_nothing_pays_the_bound() -> None:
    assert charge(BOUND, None, dispatched=True) == Charge(500, 100, 400, "unknown", 0)


COMPLETED = [
    # usage, seen, bound -> tokens, prompt, why
    ("the engine's count", USAGE, SEEN, BOUND, (92, 80, "settle")),
    ("more chunks than tokens", USAGE, Seen(20, 45), BOUND, (100, 80, "settle")),
    ("nothing reported", None, SEEN, BOUND, (500, 100, "unmetered")),
    ("no output for text seen", Usage(80, 0), Seen(0, 9), BOUND, (500, 100, "unmetered")),
    ("no output for chunks seen", Usage(80, 0), Seen(1, 0), BOUND, (500, 100, "unmetered")),
    ("an empty answer", Usage(80, 0), Seen(), BOUND, (80, 80, "settle")),
    ("one choice's count for two", USAGE, SEEN, TWO, (900, 80, "settle")),
    ("an overrun", Usage(450, 300), SEEN, BOUND, (750, 450, "settle")),
    ("an overrun of two choices", Usage(900, 300), SEEN, TWO, (1200, 900, "settle")),
    ("chunks beyond the bound", USAGE, Seen(600, 700), BOUND, (680, 80, "settle")),
    ("a lie about a huge prompt", Usage(700, 0), SEEN, BOUND, (700, 100, "unmetered")),
]


@pytest.mark.parametrize(
    ("usage", "seen", "bound", "expected"),
    [row[1:] for row in COMPLETED],
    ids=[row[0] for row in COMPLETED],
)
def test_a_complete_answer_costs_what_was_counted_and_never_less_than_was_seen(
    usage: Usage | None, seen: Seen, bound: Bound, expected: tuple[int, int, str]
) -> None:
    for streamed in (False, True):
        cost = charge(
            bound, ending(EndingKind.COMPLETED, usage, seen, streamed=streamed), dispatched=True
        )
        assert (cost.tokens, cost.prompt_tokens, cost.why) == expected


def test_an_engine_that_counts_every_choice_is_believed_about_several() -> None:
    believed = Ending(EndingKind.COMPLETED, False, USAGE, SEEN, False, counts_every_choice=True)
    cost = charge(TWO, believed, dispatched=True)
    assert (cost.tokens, cost.why) == (USAGE.total, "settle")
    silent = Ending(EndingKind.COMPLETED, False, None, SEEN, False, counts_every_choice=True)
    assert charge(TWO, silent, dispatched=True).tokens == TWO.total


def test_a_cut_answer_costs_the_bound_or_what_was_reported_beyond_it() -> None:
    cut = EndingKind.CUT
    assert charge(BOUND, ending(cut), dispatched=True) == Charge(500, 100, 400, "cut", 0)
    assert charge(BOUND, ending(cut, USAGE), dispatched=True) == Charge(500, 80, 420, "cut", 0)
    beyond = charge(BOUND, ending(cut, Usage(100, 450)), dispatched=True)
    assert beyond == Charge(550, 100, 450, "cut", 50)


BROKEN_OFF: list[tuple[EndingKind, Why]] = [
    (EndingKind.CLIENT_GONE, "abort"),
    (EndingKind.NEURON_FAILED, "failed"),
]


@pytest.mark.parametrize(("kind", "why"), BROKEN_OFF)
def test_a_plain_answer_that_broke_off_costs_the_bound(kind: EndingKind, why: Why) -> None:
    for usage, seen in product((None, USAGE), (Seen(), SEEN)):
        cost = charge(BOUND, ending(kind, usage, seen, streamed=False), dispatched=True)
        assert (cost.tokens, cost.why, cost.overrun) == (500, why, 0)


STREAMED = [
    # usage, seen, token_per_chunk -> tokens, prompt
    (None, Seen(), False, 500, 100),
    (None, SEEN, False, 500, 100),
    (None, SEEN, True, 100 + 10 + 64, 100),
    (USAGE, SEEN, False, 500, 80),
    (USAGE, SEEN, True, 80 + 12 + 64, 80),
    (Usage(80, 430), SEEN, False, 510, 80),
    (Usage(80, 0), SEEN, True, 100 + 10 + 64, 100),
    (Usage(80, 0), Seen(), True, 80 + 0 + 64, 80),
    (None, Seen(900, 900), True, 500, 100),
    (Usage(80, 430), SEEN, True, 510, 80),
    (Usage(600, 1), SEEN, True, 601, 600),
]


@pytest.mark.parametrize(("kind", "why"), BROKEN_OFF)
@pytest.mark.parametrize(("usage", "seen", "token_per_chunk", "tokens", "prompt"), STREAMED)
def test_a_stream_that_broke_off_costs_what_was_seen_if_that_is_known_to_be_all_else_the_bound(
    kind: EndingKind,
    why: Why,
    usage: Usage | None,
    seen: Seen,
    token_per_chunk: bool,
    tokens: int,
    prompt: int,
) -> None:
    cost = charge(
        BOUND, ending(kind, usage, seen, token_per_chunk=token_per_chunk), dispatched=True
    )
    assert cost == Charge(tokens, prompt, tokens - prompt, why, max(0, tokens - 500))


def test_every_choice_of_a_broken_stream_may_have_tokens_in_flight() -> None:
    gone = ending(EndingKind.CLIENT_GONE, token_per_chunk=True)
    assert charge(TWO, gone, dispatched=True).tokens == 100 + 10 + 2 * IN_FLIGHT_TOKENS


USAGES = (None, USAGE, Usage(1, 0), Usage(80, 0), Usage(500, 1), Usage(2**53 - 1, 2**53 - 1))
SEENS = (Seen(), SEEN, Seen(10**6, 10**6), Seen(0, 10**6))
BOUNDS = (BOUND, TWO, Bound(0, 1, 1), Bound(10**6, 10**6, 128))


@pytest.mark.parametrize("kind", list(EndingKind))
def test_the_rules_that_hold_in_every_row_of_the_table(kind: EndingKind) -> None:
    flags = (False, True)
    for bound, usage, seen, streamed, tokens_known in product(BOUNDS, USAGES, SEENS, flags, flags):
        end = ending(kind, usage, seen, streamed=streamed, token_per_chunk=tokens_known)
        cost = charge(bound, end, dispatched=True)
        assert cost.prompt_tokens >= 0
        assert cost.completion_tokens >= 0
        assert cost.prompt_tokens + cost.completion_tokens == cost.tokens
        assert cost.overrun == max(0, cost.tokens - bound.total)
        assert (cost.tokens == 0) == (cost.why == "release") == (kind is EndingKind.NEURON_REFUSED)
        if kind is EndingKind.NEURON_REFUSED:
            continue
        assert cost.tokens >= (0 if usage is None else usage.total)
        if cost.why != "settle":
            assert cost.tokens <= max(bound.total, 0 if usage is None else usage.total)
        if not (kind is EndingKind.COMPLETED or streamed):
            assert cost.tokens >= bound.total
