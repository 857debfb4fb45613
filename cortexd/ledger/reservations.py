"""The table of open reservations, and the deadlines of those whose owner is dead.

Owns numbering and identity: a number is used once, closed once, and a ghost's deadline is set once.
Refuses to know caps and charges.
"""

from collections.abc import Iterable

from cortexd.ledger.entries import HoldEntry, OpenReservation, ReservationId, Scope


class IllegalEntry(Exception):
    """An entry that cannot happen in this state: a bug of ours, or books that were tampered with.

    Raised before anything is changed.
    """


class Reservations:
    """Open reservations by number, in the order in which they were made.

    Each is kept as the entry that made it, and told as an `OpenReservation` to those who ask.
    """

    __slots__ = ("_by_scope", "_deadlines", "_open", "next_id")

    def __init__(self, next_id: int = 1, reservations: Iterable[OpenReservation] = ()) -> None:
        self.next_id = next_id
        self._by_scope: dict[Scope, list[OpenReservation]] | None = None  # None: to be made
        self._open: dict[ReservationId, HoldEntry] = {}
        self._deadlines: dict[ReservationId, int] = {}
        for found in reservations:
            number = found.reservation_id
            self._open[number] = HoldEntry(
                found.since_ms, number, found.scopes, found.tokens, found.request_label
            )
            if found.ghost_until_ms is not None:
                self._deadlines[number] = found.ghost_until_ms

    def __len__(self) -> int:
        return len(self._open)

    def get(self, reservation_id: ReservationId) -> HoldEntry | None:
        """How the open reservation of that number was made; None if there is none."""
        return self._open.get(reservation_id)

    def every(self) -> tuple[OpenReservation, ...]:
        """All of them, the oldest first."""
        return tuple([self._told(number) for number in self._open])

    def owned(self) -> tuple[OpenReservation, ...]:
        """Those that are no ghosts, the oldest first."""
        ghosts = self._deadlines
        return tuple([self._told(number) for number in self._open if number not in ghosts])

    def add(self, entry: HoldEntry) -> None:
        """Open the reservation of `entry`."""
        number = entry.i
        if number != self.next_id:
            raise IllegalEntry(f"reservation {number} where {self.next_id} comes next")
        self._by_scope = None
        self._open[number] = entry
        self.next_id += 1

    def remove(self, reservation_id: ReservationId) -> HoldEntry:
        """Close a reservation and return how it was made."""
        found = self._open.pop(reservation_id, None)
        if found is None:
            raise IllegalEntry(f"reservation {reservation_id} is closed but was not open")
        self._by_scope = None
        if self._deadlines:
            self._deadlines.pop(reservation_id, None)
        return found

    def haunt(self, reservation_id: ReservationId, until_ms: int) -> None:
        """Make a reservation a ghost. A second crash does not give it a second grace."""
        if reservation_id not in self._open or reservation_id in self._deadlines:
            raise IllegalEntry(f"reservation {reservation_id} cannot become a ghost")
        self._deadlines[reservation_id] = until_ms
        self._by_scope = None

    def due(self, now_ms: int) -> tuple[OpenReservation, ...]:
        """Ghosts whose grace is over at `now_ms`, the oldest first."""
        if not self._deadlines:
            return ()
        due = [found for found, until_ms in self._deadlines.items() if until_ms <= now_ms]
        return tuple([self._told(number) for number in sorted(due)])

    def next_deadline(self) -> int | None:
        """When the next ghost is due, in ledger time; None without ghosts."""
        return min(self._deadlines.values(), default=None)

    def ghost_tokens(self) -> int:
        """Tokens that ghosts keep reserved."""
        return sum(self._open[number].a for number in self._deadlines)

    def on(self, scope: Scope) -> tuple[OpenReservation, ...]:
        """Those on `scope`, the oldest first.

        Asked for one limit after the other when a ledger is opened, so all are looked through once.
        """
        if self._by_scope is None:
            self._by_scope = {}
            for found in self.every():
                for each in found.scopes:
                    self._by_scope.setdefault(each, []).append(found)
        return tuple(self._by_scope.get(scope, ()))

    def tokens_on(self, scope: Scope) -> int:
        """Tokens reserved on `scope`, added up afresh."""
        return sum(found.tokens for found in self.on(scope))

    def _told(self, number: ReservationId) -> OpenReservation:
        made = self._open[number]
        return OpenReservation(
            number, made.w, made.a, made.t, made.rid, self._deadlines.get(number)
        )
