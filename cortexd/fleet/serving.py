"""What the fleet answers to a request: it is served there, or it is not served, and why.

Owns the words for that. Refuses to know how either is decided, and how a client is told.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from cortexd.fleet.breaker import Ticket  # msgspec reads it at run time
from cortexd.fleet.residents import Resident
from cortexd.fleet.routing import Route

if TYPE_CHECKING:
    from cortexd.fleet.lines import Clock


class Serving:
    """A request that is with a neuron. `waited_ms`: on each clock, before its turn came.

    `lease`: the residency that was loaded for it, until it has its first byte.
    """

    __slots__ = ("lease", "resident", "route", "ticket", "waited_ms")

    def __init__(self, route: Route, resident: Resident, ticket: Ticket) -> None:
        """Begin; the resident counts it as in flight already."""
        self.route = route
        self.resident = resident
        self.ticket = ticket
        self.lease: Resident | None = None
        self.waited_ms: dict[Clock, int] = {}


class Cause(enum.Enum):
    """Why a request is not served; the values are words for a log."""

    UNKNOWN = "unknown"
    """Neither the catalogue nor a neuron knows the model."""
    NOWHERE = "nowhere"
    """No neuron could ever run it."""
    UNHEALTHY = "unhealthy"
    """Only neurons that do not answer have it, or could load it."""
    DRAINING = "draining"
    """Only neurons that an operator drains."""
    NO_ROOM = "no_room"
    """No set of models that may be displaced makes room for it."""
    IN_USE = "in_use"
    """The requests of the models in its place did not end in time."""
    UNSERVABLE = "unservable"
    """It is loaded, and its neuron says that it cannot answer."""
    LOADING = "loading"
    """It will be loaded later than the client can wait."""
    LOAD_FAILED = "load_failed"
    LOAD_CLOCK = "load_clock"
    QUEUE_CLOCK = "queue_clock"
    QUEUE_FULL = "queue_full"


class Unserved(msgspec.Struct, frozen=True):
    """A request that is not served. `why`: more words, of ours. `retry_in_ms` None: not known."""

    cause: Cause
    why: str = ""
    retry_in_ms: int | None = None
