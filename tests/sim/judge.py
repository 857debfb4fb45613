"""The judge outside: was more consumed than a cap allows, in true time?

It is told what neurons consumed and when, by the simulated fleet, and nothing that the ledger says.
All of a request's tokens may have been consumed at any instant between its dispatch and its end, so
each window is charged with everything that touches it.
"""

from collections.abc import Sequence

from cortexd.ledger.entries import Cap, Scope


class Consumption:
    """What one dispatched request really consumed, under which caps it was let in.

    `asked_ms`: when it was let in. `end_ms` None: it is still running.
    """

    __slots__ = ("asked_ms", "begin_ms", "caps", "end_ms", "scopes", "tokens")

    def __init__(
        self,
        scopes: tuple[Scope, ...],
        caps: Sequence[Cap],
        begin_ms: int,
        tokens: int,
        *,
        asked_ms: int | None = None,
    ) -> None:
        self.scopes = scopes
        self.caps = caps
        self.asked_ms = begin_ms if asked_ms is None else asked_ms
        self.begin_ms = begin_ms
        self.end_ms: int | None = None
        self.tokens = tokens


def judge(consumed: Sequence[Consumption]) -> None:
    """Raise AssertionError if any window of any cap was exceeded.

    `consumed`: in the order of dispatch. A window that begins a moment later or ends a moment
    before a dispatch holds no more, so those that end with a dispatch are all that matter; and the
    caps that let that one in are the ones that were promised then. Fixed and civil periods follow
    ledger time, not the truth: the ledger's own history judges those.
    """
    for index, last in enumerate(consumed):
        before = consumed[: index + 1]
        for cap in last.caps:
            if cap.scope in last.scopes and cap.window.kind in ("balance", "rolling", "held"):
                used = _USED[cap.unit](before, cap, last)
                assert used <= cap.hard_cap, f"{used} at {last.begin_ms} on {cap}"


def _tokens(consumed: Sequence[Consumption], cap: Cap, last: Consumption) -> int:
    after_ms = last.begin_ms - cap.window.ms if cap.window.ms else -1
    return sum(
        each.tokens
        for each in consumed
        if cap.scope in each.scopes and (each.end_ms is None or each.end_ms > after_ms)
    )


def _requests(consumed: Sequence[Consumption], cap: Cap, last: Consumption) -> int:
    after_ms = last.asked_ms - cap.window.ms if cap.window.ms else -1
    return sum(cap.scope in each.scopes and each.asked_ms > after_ms for each in consumed)


def _in_flight(consumed: Sequence[Consumption], cap: Cap, last: Consumption) -> int:
    now_ms = last.begin_ms
    return sum(
        cap.scope in each.scopes and (each.end_ms is None or each.end_ms > now_ms)
        for each in consumed
    )


_USED = {"tok": _tokens, "req": _requests, "con": _in_flight}
