"""What the ledger tells about itself, counted."""

import math
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from cortexd.ledger.entries import Scope
from cortexd.ledger.retention import DiskUse
from cortexd.metrics.tallies import Tallies

_SYNC_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class LedgerInstruments:
    """What the ledger tells about itself; it is the ledger's observer.

    Told several times for every request where few come, so what it is told is only kept here.
    """

    def __init__(self, registry: CollectorRegistry, tallies: Tallies) -> None:
        """Register the instruments."""
        self._disk = DiskUse(segments=0, size_bytes=0, free_bytes=0)
        self._open = self._unresolved = 0

        def gauge(name: str, text: str, value: Callable[[], float]) -> None:
            Gauge(name, text, registry=registry).set_function(value)

        self._sync = tallies.histogram(
            "cortex_ledger_fsync_seconds", "Time of one fdatasync of the journal", _SYNC_SECONDS
        )[()]
        self._batch = tallies.histogram(
            "cortex_ledger_batch_size", "Calls that the ledger took in one batch", _BATCH
        )[()]
        self._entries = tallies.counter(
            "cortex_ledger_entries_total", "Entries written to the journal"
        )
        gauge(
            "cortex_ledger_unresolved_tokens",
            "Tokens reserved by requests whose end was lost in a crash, until they are charged",
            lambda: self._unresolved,
        )
        self._unresolved_charges = Counter(
            "cortex_ledger_unresolved_charges_total",
            "Reservations charged in full because their request's end was lost in a crash",
            registry=registry,
        )
        gauge("cortex_ledger_open_reservations", "Open reservations", lambda: self._open)
        gauge(
            "cortex_ledger_disk_bytes",
            "Size of all segments of the journal",
            lambda: self._disk.size_bytes,
        )
        gauge("cortex_ledger_segments", "Segments of the journal", lambda: self._disk.segments)
        gauge(
            "cortex_ledger_disk_free_bytes",
            "Free space on the journal's disk when last measured; NaN: unknown",
            lambda: math.nan if self._disk.free_bytes is None else self._disk.free_bytes,
        )

    def batch(self, commands: int, records: int) -> None:
        """One batch of `commands` calls became `records` journal entries."""
        self._batch.add(commands)
        self._entries[()] += records

    def synced(self, seconds: float) -> None:
        """One fdatasync took `seconds`."""
        self._sync.add(seconds)

    def disk(self, use: DiskUse) -> None:
        """What the journal takes on its disk now."""
        self._disk = use

    def open_reservations(self, n: int) -> None:
        """So many reservations are open now."""
        self._open = n

    def unresolved(self, tokens: int) -> None:
        """So many tokens are reserved now by requests whose end was lost in a crash."""
        self._unresolved = tokens

    def ghost_charged(self, scopes: tuple[Scope, ...], tokens: int) -> None:
        """A reservation whose request's end was lost in a crash was charged in full."""
        self._unresolved_charges.inc()
