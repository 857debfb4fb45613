"""The requests that wait for one model, and which of them is next.

Owns the waiting line of every key, and how many requests may wait. Whose turn it is, is decided in
turns.py. Refuses to know what a request is, how long it may wait, and why it waits.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

import msgspec

from cortexd.fleet.turns import Turns

ItemT = TypeVar("ItemT")


class Ticket(msgspec.Struct, frozen=True):
    """A request's place in a queue. `number` is used once; `cost_tokens` is at least 1."""

    number: int
    key: str
    cost_tokens: int
    since_ms: int


class Full(msgspec.Struct, frozen=True):
    """There is no place for one more request of that key: `waiting` in all, `of_key` of its own."""

    waiting: int
    of_key: int
    entries_max: int

    @property
    def is_full_for_all(self) -> bool:
        """Whether nobody finds a place; if not, this key has as many as are left to the others."""
        return self.waiting >= self.entries_max


class FairQueue(Generic[ItemT]):
    """A bounded queue that is fair between keys: weighted, by tokens, first come first in each.

    A key that owes nothing waits for at most one turn of every other key, however many requests
    those have waiting. A turn is worth `quantum_tokens` x weight; the request that uses it up may
    go beyond, which the key pays back by sitting out.

    A key may hold no more places than are free: alone it gets half of them, two greedy keys a third
    each, and there is always one left for who comes next, until as many keys as there are places
    wait. Adding, taking and removing take constant time, amortised (turns.py says when more).
    """

    __slots__ = ("_entries_max", "_lines", "_next_number", "_positions", "_turns", "_waiting")

    def __init__(self, quantum_tokens: int, entries_max: int) -> None:
        """`quantum_tokens` >= 1, best near the cost of a usual request; `entries_max` >= 1."""
        if entries_max < 1:
            raise ValueError(f"a queue of {entries_max} places")
        self._entries_max = entries_max
        self._turns = Turns(quantum_tokens, debtors_max=entries_max)
        # Ordered dictionaries find their first entry in constant time also after many removals.
        self._lines: dict[str, OrderedDict[int, tuple[Ticket, ItemT]]] = {}
        self._waiting: OrderedDict[int, Ticket] = OrderedDict()
        self._next_number = 1
        self._positions: dict[int, int] | None = None  # None: to be found out

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket.number in self._waiting

    @property
    def oldest_since_ms(self) -> int | None:
        """Since when the request waits that came first; None when none does."""
        return next(iter(self._waiting.values())).since_ms if self._waiting else None

    def waiting_of(self, key: str) -> int:
        """How many requests of `key` wait."""
        return len(self._lines.get(key, ()))

    def add(
        self, key: str, item: ItemT, *, cost_tokens: int, now_ms: int, weight: float = 1
    ) -> Ticket | Full:
        """Put a request at the end of its key's line, or say that there is no place.

        `cost_tokens` >= 0 is what it counts for against the key's share; 0 counts as 1. The
        `weight` (above 0) of a key's newest request is that of the key. Raises ValueError.
        """
        if cost_tokens < 0:
            raise ValueError(f"a cost of {cost_tokens} tokens")
        line = self._lines.get(key)
        of_key = len(line) if line is not None else 0
        if of_key >= self._entries_max - len(self):
            return Full(len(self), of_key, self._entries_max)
        self._turns.join(key, weight)
        ticket = Ticket(self._next_number, key, max(1, cost_tokens), now_ms)
        self._next_number += 1
        if line is None:
            line = self._lines[key] = OrderedDict()
        line[ticket.number] = (ticket, item)
        self._waiting[ticket.number] = ticket
        self._positions = None
        return ticket

    def take(self) -> ItemT | None:
        """The next request, which waits no longer; None when none waits."""
        key = self._turns.next()
        if key is None:
            return None
        number, (ticket, item) = next(iter(self._lines[key].items()))
        self._turns.charge(key, ticket.cost_tokens)
        self._forget(key, number)
        return item

    def remove(self, ticket: Ticket) -> bool:
        """Take a request out of turn, at no cost to its key: its client hung up, or its time is up.

        False when it was taken or removed before.
        """
        if ticket not in self:
            return False
        self._forget(ticket.key, ticket.number)
        return True

    def position(self, ticket: Ticket) -> int | None:
        """How many requests go before this one if nobody comes or leaves; None: it waits no more.

        The first question after a change costs as much as taking everything out once.
        """
        if self._positions is None:
            self._positions = self._find_positions()
        return self._positions.get(ticket.number)

    def _forget(self, key: str, number: int) -> None:
        line = self._lines[key]
        del line[number]
        del self._waiting[number]
        if not line:
            del self._lines[key]
            self._turns.leave(key)
        self._positions = None

    def _find_positions(self) -> dict[int, int]:
        turns = self._turns.copy()
        lines = {
            key: [ticket for ticket, _ in reversed(line.values())]
            for key, line in self._lines.items()
        }
        positions: dict[int, int] = {}
        while (key := turns.next()) is not None:
            ticket = lines[key].pop()
            positions[ticket.number] = len(positions)
            turns.charge(key, ticket.cost_tokens)
            if not lines[key]:
                turns.leave(key)
        return positions
