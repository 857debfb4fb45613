"""The table of open reservations, and the deadlines of those whose owner is dead.

Owns numbering and identity: a number is used once, closed once, and a ghost's deadline is set once.
Refuses to know caps and charges.
"""

from collections.abc import Iterable

import msgspec

from cortexd.ledger.entries import HoldEntry, OpenReservation, ReservationId, Scope


class IllegalEntry(Exception):
    """An entry that cannot happen in this state: a bug of ours, or books that were tampered with.

    Raised before anything is changed.
    """


class Reservations:
    """Open reservations by number, in the order in which they were made."""

    __slots__ = ("_by_scope", "_deadlines", "_open", "next_id")

    def __init__(self, next_id: int = 1, reservations: Iterable[OpenReservation] = ()) -> None:
        self.next_id = next_id
        self._open = {found.reservation_id: found for found in reservations}
        self._by_scope: dict[Scope, list[OpenReservation]] | None = None  # None: to be made
        self._deadlines = {
            found.reservation_id: found.ghost_until_ms
            for found in self._open.values()
            if found.ghost_until_ms is not None
        }

    def __len__(self) -> int:
        return len(self._open)

    def get(self, reservation_id: ReservationId) -> OpenReservation | None:
        """The open reservation of that number, or None."""
        return self._open.get(reservation_id)

    def every(self) -> tuple[OpenReservation, ...]:
        """All of them, the oldest first."""
        return tuple(self._open.values())

    def owned(self) -> tuple[OpenReservation, ...]:
        """Those that are no ghosts, the oldest first."""
        return tuple(found for found in self._open.values() if found.ghost_until_ms is None)

    def add(self, entry: HoldEntry) -> None:
        """Open the reservation of `entry`."""
        if entry.i != self.next_id:
            raise IllegalEntry(f"reservation {entry.i} where {self.next_id} comes next")
        self._by_scope = None
        self._open[entry.i] = OpenReservation(entry.i, entry.w, entry.a, entry.t, entry.rid, None)
        self.next_id += 1

    def remove(self, reservation_id: ReservationId) -> OpenReservation:
        """Close a reservation and return what it was."""
        found = self._open.pop(reservation_id, None)
        if found is None:
            raise IllegalEntry(f"reservation {reservation_id} is closed but was not open")
        self._deadlines.pop(reservation_id, None)
        self._by_scope = None
        return found

    def haunt(self, reservation_id: ReservationId, until_ms: int) -> None:
        """Make a reservation a ghost. A second crash does not give it a second grace."""
        found = self._open.get(reservation_id)
        if found is None or found.ghost_until_ms is not None:
            raise IllegalEntry(f"reservation {reservation_id} cannot become a ghost")
        self._open[reservation_id] = msgspec.structs.replace(found, ghost_until_ms=until_ms)
        self._deadlines[reservation_id] = until_ms
        self._by_scope = None

    def due(self, now_ms: int) -> tuple[OpenReservation, ...]:
        """Ghosts whose grace is over at `now_ms`, the oldest first."""
        if not self._deadlines:
            return ()
        due = [found for found, until_ms in self._deadlines.items() if until_ms <= now_ms]
        return tuple(self._open[found] for found in sorted(due))

    def next_deadline(self) -> int | None:
        """When the next ghost is due, in ledger time; None without ghosts."""
        return min(self._deadlines.values(), default=None)

    def ghost_tokens(self) -> int:
        """Tokens that ghosts keep reserved."""
        return sum(self._open[found].tokens for found in self._deadlines)

    def on(self, scope: Scope) -> tuple[OpenReservation, ...]:
        """Those on `scope`, the oldest first.

        Asked for one limit after the other when a ledger is opened, so all are looked through once.
        """
        if self._by_scope is None:
            self._by_scope = {}
            for found in self._open.values():
                for each in found.scopes:
                    self._by_scope.setdefault(each, []).append(found)
        return tuple(self._by_scope.get(scope, ()))

    def tokens_on(self, scope: Scope) -> int:
        """Tokens reserved on `scope`, added up afresh."""
        return sum(found.tokens for found in self.on(scope))
