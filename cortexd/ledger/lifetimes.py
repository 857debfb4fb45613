"""How the lifetime counters of a scope grow.

Owns their arithmetic and the meaning of *uncertain*. Refuses to know caps: these counters are kept
for every scope that ever made a request, capped or not.
"""

from cortexd.ledger.entries import AMOUNT_MAX, CloseEntry, Lifetime

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

    def count_charge(self, entry: CloseEntry, *, reserved: int) -> None:
        """Add the charge of `entry`, for which `reserved` tokens had been reserved."""
        tokens = entry.a
        self.tokens += tokens
        self.prompt += entry.p
        self.completion += entry.o
        if entry.y not in COUNTED:
            self.uncertain += tokens
        if tokens > reserved:
            self.overrun += tokens - reserved

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
