"""What an ending costs.

Owns the one table from "how it ended and what is known about it" to tokens. Refuses to know caps,
journals and dialects' wire formats. Its rule is that a neuron's work is never free: whatever is not
proven to be less is charged by the bound that was reserved, and whatever is proven to be more is
charged as it is.

    not dispatched, or the neuron refused     nothing
    the owner said nothing                    the bound
    completed, with a believable count        the count, and no less than was seen pass
    completed, without one                    the bound
    cut                                       the bound
    client gone or neuron failed              the bound, but for the next line
    the same, token by token                  the prompt, what was seen, and what may be in flight

and in every row no less than a count that the neuron itself reported.
"""

from typing import assert_never

import msgspec

from cortexd.dialects.upper_bound import Bound
from cortexd.dialects.usage import Ending, EndingKind, Seen, Usage
from cortexd.ledger.entries import Why

IN_FLIGHT_TOKENS = 64
"""Tokens per choice that a neuron may still generate after the last that came through to us."""


class Charge(msgspec.Struct, frozen=True):
    """What a reservation is closed with: `tokens` = `prompt_tokens` + `completion_tokens`.

    `overrun`: how many of them exceed what was reserved, by which somebody's promise was broken.
    """

    tokens: int
    prompt_tokens: int
    completion_tokens: int
    why: Why
    overrun: int


def charge(bound: Bound, ending: Ending | None, *, dispatched: bool) -> Charge:
    """Decide what to charge for a request that reserved `bound`.

    `ending` None: nobody said how it ended. `dispatched`: whether a neuron can have seen it.
    """
    if not dispatched:
        return _NOTHING
    if ending is None:
        return _charge(bound, bound.total, bound.prompt_tokens, "unknown")
    match ending.kind:
        case EndingKind.NEURON_REFUSED:
            return _NOTHING
        case EndingKind.COMPLETED:
            return _completed(bound, ending)
        case EndingKind.CUT:
            return _in_full(bound, ending, "cut")
        case EndingKind.CLIENT_GONE:
            return _broken_off(bound, ending, "abort")
        case EndingKind.NEURON_FAILED:
            return _broken_off(bound, ending, "failed")
        case _:
            assert_never(ending.kind)


_NOTHING = Charge(0, 0, 0, "release", 0)
_NOTHING_SEEN = Seen()


def _completed(bound: Bound, ending: Ending) -> Charge:
    usage = _believed(ending)
    if usage is None:
        return _in_full(bound, ending, "unmetered")
    tokens = usage.prompt_tokens + max(usage.completion_tokens, ending.seen.chunks)
    if bound.choices > 1 and not ending.counts_every_choice:
        # Some engines report one choice's tokens only, llama.cpp for one.
        tokens = max(tokens, bound.total)
    return _charge(bound, tokens, usage.prompt_tokens, "settle")


def _broken_off(bound: Bound, ending: Ending, why: Why) -> Charge:
    # Engines hold text back while it may yet become a stop text or a whole letter, so that what was
    # seen bounds what was generated only where each token is promised a chunk of its own.
    if not (ending.streamed and ending.token_per_chunk):
        return _in_full(bound, ending, why)
    usage = _believed(ending)
    reported = 0 if usage is None else usage.completion_tokens
    seen = max(ending.seen.chunks, reported)
    prompt_tokens = bound.prompt_tokens if usage is None else usage.prompt_tokens
    tokens = prompt_tokens + seen + IN_FLIGHT_TOKENS * bound.choices
    tokens = max(min(tokens, bound.total), _reported_total(ending))
    return _charge(bound, tokens, prompt_tokens, why)


def _in_full(bound: Bound, ending: Ending, why: Why) -> Charge:
    usage = _believed(ending)
    prompt_tokens = bound.prompt_tokens if usage is None else usage.prompt_tokens
    return _charge(bound, max(bound.total, _reported_total(ending)), prompt_tokens, why)


def _believed(ending: Ending) -> Usage | None:
    """The reported usage, unless it says that what was seen was never generated."""
    usage = ending.usage
    if usage is not None and not usage.completion_tokens and ending.seen != _NOTHING_SEEN:
        return None
    return usage


def _reported_total(ending: Ending) -> int:
    return 0 if ending.usage is None else ending.usage.total


def _charge(bound: Bound, tokens: int, prompt_tokens: int, why: Why) -> Charge:
    return Charge(
        tokens=tokens,
        prompt_tokens=min(prompt_tokens, tokens),
        completion_tokens=max(0, tokens - prompt_tokens),
        why=why,
        overrun=max(0, tokens - bound.total),
    )
