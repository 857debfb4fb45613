"""Reservations of which no ledger knows, for whom no cap can refuse, while the ledger is down."""

import trio

from cortexd.dialects.upper_bound import Bound
from cortexd.ledger.calls import Held
from cortexd.ledger.charging import Charge
from cortexd.ledger.desk import Reservation
from cortexd.ledger.entries import ReservationId


def unjournalled(bound: Bound) -> Reservation:
    """A reservation that no ledger knows of; its charge is only told and counted."""

    async def forget(reservation_id: ReservationId, charge: Charge) -> None:
        await trio.lowlevel.checkpoint()

    return Reservation(forget, Held(ReservationId(0), (), bound.total, None), bound)
