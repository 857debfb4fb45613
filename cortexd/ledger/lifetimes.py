"""How the lifetime counters of a scope grow.

Owns their arithmetic and the meaning of *uncertain*. Refuses to know caps: these counters are kept
for every scope that ever made a request, capped or not.
"""

from collections.abc import Iterable

from cortexd.ledger.entries import AMOUNT_MAX, CloseEntry, Lifetime, Scope

COUNTED = ("settle", "release")
"""Reasons for closing that rest on knowledge; a charge for any other is uncertain."""


class Counters:
    """The counters of one scope, as they grow. What each means: `Lifetime`."""

    __slots__ = ("completion", "overrun", "prompt", "requests", "tokens", "uncertain")

    def __init__(self, lifetime: Lifetime) -> None:
        self.tokens = lifetime.tokens
        self.prompt = lifetime.prompt
        self.completion = lifetime.completion
        self.requests = lifetime.requests
        self.uncertain = lifetime.uncertain
        self.overrun = lifetime.overrun

    def lifetime(self) -> Lifetime:
        """The counters now, each no larger than an amount can be."""
        return Lifetime(
            min(self.tokens, AMOUNT_MAX),
            min(self.prompt, AMOUNT_MAX),
            min(self.completion, AMOUNT_MAX),
            min(self.requests, AMOUNT_MAX),
            min(self.uncertain, AMOUNT_MAX),
            min(self.overrun, AMOUNT_MAX),
        )


class CountersOn(dict[tuple[Scope, ...], tuple[Counters, ...]]):
    """The counters of the scopes of one request, by these scopes; they begin when asked for.

    `by_scope`: where all of them are, by one scope each.
    """

    def __init__(self, by_scope: dict[Scope, Counters]) -> None:
        super().__init__()
        self._by_scope = by_scope

    def __missing__(self, scopes: tuple[Scope, ...]) -> tuple[Counters, ...]:
        for scope in scopes:
            if scope not in self._by_scope:
                self._by_scope[scope] = Counters(Lifetime())
        found = self[scopes] = tuple([self._by_scope[scope] for scope in scopes])
        return found


def count_charge(scopes: Iterable[Counters], entry: CloseEntry, *, reserved: int) -> None:
    """Add what `entry` charges to the counters of its scopes, which had reserved so much."""
    tokens, prompt, completion = entry.a, entry.p, entry.o
    is_counted, overrun = entry.y in COUNTED, tokens - reserved
    for counters in scopes:
        counters.tokens += tokens
        counters.prompt += prompt
        counters.completion += completion
        if not is_counted:
            counters.uncertain += tokens
        if overrun > 0:
            counters.overrun += overrun
