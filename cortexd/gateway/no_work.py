"""Which errors of a neuron prove that it did nothing, so that nothing is charged for them.

Owns the table of statuses, and which refusal of several is passed on. Refuses to know money
(ledger/charging.py) and what a client is told (dialects/neuron_errors.py). In doubt nothing is
proven.
"""

from cortexd.dialects.refusals import Refusal

ELSEWHERE = frozenset({404, 429, 503, 529})
"""A neuron that answers so has not begun: the same reservation may go to another, or back."""

ABOUT_A_PROMPT = frozenset({400, 413, 422})
"""Of one prompt these are said before any work. Of several they may be about the last one:
llama-server has then made whole answers to the others, which nobody gets to see.
"""

BEFORE_ANY_PROMPT = ELSEWHERE | {401, 402, 403, 405, 406, 411, 414, 415, 431, 501}
"""These are about the request or the engine, however many prompts there are."""


def proves_no_work(status: int, *, prompts: int, streamed: bool) -> bool:
    """Whether an engine that answers this error to so many prompts cannot have begun with any.

    Other errors of a plain request may come after some work. A stream that has sent no event has
    generated nothing, unless there are several prompts.
    """
    if status in BEFORE_ANY_PROMPT or 300 <= status < 400:
        return True
    if prompts > 1:
        return False
    return status in ABOUT_A_PROMPT or (streamed and status >= 400)


def kinder(one: Refusal | None, other: Refusal) -> Refusal:
    """Of two refusals by different neurons, the one that tells the client to wait longer."""
    if one is None or (other.retry_after_seconds or 0) > (one.retry_after_seconds or 0):
        return other
    return one
