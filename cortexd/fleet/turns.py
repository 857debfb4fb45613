"""Whose turn it is: weighted deficit round-robin between keys, by tokens.

Owns the order of the keys that have something waiting, and what each may take in its turn. Refuses
to know what waits (fair_queue.py), and time: only tokens pass here.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from math import isfinite

import msgspec

# Theory of operation.
#
# Time is counted in rounds. In a round every key has one turn, which gives it a share of tokens
# (quantum x weight), and the turn lasts until the share is used up. A request is served as long as
# *anything* of the share is left, not only when all of it fits: so a key's turn always serves a
# request, and a request larger than the share is not kept waiting while others go round and round.
# What was taken too much is a debt. The key sits out as many rounds as its shares need to pay it
# back, so that over time keys get tokens in proportion to their weights: two keys that both always
# have something waiting differ by no more than a share and one request each.
#
# Rounds in which nobody has a turn are skipped, not walked through: each key is filed under the
# round of its next turn, and a heap holds the rounds that are in use. With costs below the share
# these are two, so that every step takes constant time; debts add the logarithm of how many
# different rounds debtors wait for.
#
# A key that has nothing left to wait for loses what is left of its share: nothing is saved up. Its
# debt is remembered for as long as somebody else waits. If it were forgotten, a key that sends one
# huge request after the other would take far more than its share from those that queue many small
# ones. When nobody waits at all, the debt is owed to nobody.


class _Place(msgspec.Struct):
    """A key's next turn: in which round, and what it may take then (always more than 0)."""

    share_tokens: int
    round: int
    credit_tokens: int


class Turns:
    """The keys that wait, in order. Each is told by name when it joins, pays and leaves."""

    __slots__ = ("_ahead", "_debtors", "_debtors_max", "_places", "_quantum", "_round", "_rounds")

    def __init__(self, quantum_tokens: int, *, debtors_max: int) -> None:
        """`quantum_tokens` >= 1 is the share of a key of weight 1 in a round.

        Of keys that left before their next turn, the last `debtors_max` are remembered.
        """
        if quantum_tokens < 1:
            raise ValueError(f"a quantum of {quantum_tokens} tokens")
        self._quantum = quantum_tokens
        self._debtors_max = debtors_max
        self._round = 0
        self._places: dict[str, _Place] = {}
        self._debtors: OrderedDict[str, _Place] = OrderedDict()
        self._rounds: dict[int, OrderedDict[str, None]] = {}
        self._ahead: list[int] = []  # a heap of the keys of _rounds; some may be empty by now

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def join(self, key: str, weight: float) -> None:
        """Let `key` have turns from now on, the first one after at most a turn of each other key.

        A key that owes waits for longer. For one that is in already, the new weight counts from its
        turn after the next. Weights are above 0; a share is never less than a token, so that nobody
        starves. Raises ValueError.
        """
        if not (weight > 0 and isfinite(weight)):
            raise ValueError(f"a weight of {weight}")
        share_tokens = max(1, round(self._quantum * weight))
        place = self._places.get(key)
        if place is not None:
            place.share_tokens = share_tokens
            return
        place = self._debtors.pop(key, None)
        if place is None or place.round <= self._round:  # what it owed is paid by now
            place = _Place(share_tokens, self._round + 1, share_tokens)
        place.share_tokens = share_tokens
        self._places[key] = place
        self._file(key, place.round)

    def leave(self, key: str) -> None:
        """Let `key` have no more turns: nothing of it waits. It must have joined."""
        place = self._places.pop(key)
        del self._rounds[place.round][key]
        if len(self._ahead) > 2 * len(self._places):
            self._sweep()
        if not self._places:
            self._debtors.clear()
        elif place.round > self._round:
            self._debtors[key] = place
            if len(self._debtors) > self._debtors_max:
                self._debtors.popitem(last=False)

    def next(self) -> str | None:
        """The key whose turn it is; None when nobody waits. Asking changes nothing."""
        while self._ahead:
            keys = self._rounds[self._ahead[0]]
            if keys:
                return next(iter(keys))
            del self._rounds[heappop(self._ahead)]
        return None

    def charge(self, key: str, tokens: int) -> None:
        """Serve a request of `key`, whose turn it must be, that costs so many `tokens` (>= 1)."""
        assert tokens >= 1, "a turn that costs nothing would never end"
        assert key == self.next(), "only the key whose turn it is can be served"
        place = self._places[key]
        self._round = place.round
        place.credit_tokens -= tokens
        if place.credit_tokens > 0:
            return
        del self._rounds[place.round][key]
        rounds = -place.credit_tokens // place.share_tokens + 1
        place.round += rounds
        place.credit_tokens += rounds * place.share_tokens
        self._file(key, place.round)

    def copy(self) -> Turns:
        """The same turns, to try what would come next."""
        twin = Turns(self._quantum, debtors_max=self._debtors_max)
        twin._round = self._round
        twin._places = {key: msgspec.structs.replace(it) for key, it in self._places.items()}
        twin._debtors = OrderedDict(
            (key, msgspec.structs.replace(it)) for key, it in self._debtors.items()
        )
        twin._rounds = {number: keys.copy() for number, keys in self._rounds.items()}
        twin._ahead = self._ahead.copy()
        return twin

    def _file(self, key: str, number: int) -> None:
        keys = self._rounds.get(number)
        if keys is None:
            keys = self._rounds[number] = OrderedDict()
            heappush(self._ahead, number)
        keys[key] = None

    def _sweep(self) -> None:
        """Drop the rounds in which nobody has a turn any more, before they outnumber the keys."""
        self._rounds = {number: keys for number, keys in self._rounds.items() if keys}
        self._ahead = sorted(self._rounds)  # a sorted list is a heap
