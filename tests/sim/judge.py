"""The judge outside: was more consumed than a cap allows, in true time?

It is told what neurons consumed and when, by the simulated fleet, and nothing that the ledger says.
All of a request's tokens may have been consumed at any instant between its dispatch and its end, so
each window is charged with everything that touches it.
"""

from collections.abc import Mapping, Sequence

from cortexd.ledger.entries import Cap, Scope

Caps = Mapping[Scope, Cap]


class Consumption:
    """What one dispatched request really consumed, under which caps it was let in.

    `end_ms` None: it is still running.
    """

    __slots__ = ("begin_ms", "caps", "end_ms", "scopes", "tokens")

    def __init__(self, scopes: tuple[Scope, ...], caps: Caps, begin_ms: int, tokens: int) -> None:
        self.scopes = scopes
        self.caps = caps
        self.begin_ms = begin_ms
        self.end_ms: int | None = None
        self.tokens = tokens


def judge(consumed: Sequence[Consumption]) -> None:
    """Raise AssertionError if any window of any cap was exceeded.

    `consumed`: in the order of dispatch. A window that begins a moment later or ends a moment
    before a dispatch holds no more, so those that end with a dispatch are all that matter; and the
    caps that let that one in are the ones that were promised then.
    """
    for index, last in enumerate(consumed):
        before = consumed[: index + 1]
        for scope in last.scopes:
            cap = last.caps.get(scope)
            if cap is None:
                continue
            tokens = _within(before, scope, cap.window_ms, last.begin_ms)
            assert tokens <= cap.hard_cap, f"{tokens} tokens at {last.begin_ms} on {cap}"


def _within(
    consumed: Sequence[Consumption], scope: Scope, window_ms: int | None, until_ms: int
) -> int:
    after_ms = -1 if window_ms is None else until_ms - window_ms
    return sum(
        each.tokens
        for each in consumed
        if scope in each.scopes and (each.end_ms is None or each.end_ms > after_ms)
    )
