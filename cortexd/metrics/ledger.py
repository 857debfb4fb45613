"""What the ledger tells about itself, counted."""

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import Scope
from cortexd.ledger.retention import DiskUse

_SYNC_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class LedgerInstruments:
    """What the ledger tells about itself; it is the ledger's observer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the instruments."""

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, registry=registry)

        self._sync = Histogram(
            "cortex_ledger_fsync_seconds",
            "Time of one fdatasync of the journal",
            buckets=_SYNC_SECONDS,
            registry=registry,
        )
        self._batch = Histogram(
            "cortex_ledger_batch_size",
            "Calls that the ledger took in one batch",
            buckets=_BATCH,
            registry=registry,
        )
        self._entries = Counter(
            "cortex_ledger_entries_total", "Entries written to the journal", registry=registry
        )
        self._unresolved = gauge(
            "cortex_ledger_unresolved_tokens",
            "Tokens reserved by requests whose end was lost in a crash, until they are charged",
        )
        self._unresolved_charges = Counter(
            "cortex_ledger_unresolved_charges_total",
            "Reservations charged in full because their request's end was lost in a crash",
            registry=registry,
        )
        self._open = gauge("cortex_ledger_open_reservations", "Open reservations")
        self._disk = gauge("cortex_ledger_disk_bytes", "Size of all segments of the journal")
        self._segments = gauge("cortex_ledger_segments", "Segments of the journal")
        self._free = gauge(
            "cortex_ledger_disk_free_bytes",
            "Free space on the journal's disk when last measured; NaN: unknown",
        )

    def batch(self, commands: int, records: int) -> None:
        """One batch of `commands` calls became `records` journal entries."""
        self._batch.observe(commands)
        self._entries.inc(records)

    def synced(self, seconds: float) -> None:
        """One fdatasync took `seconds`."""
        self._sync.observe(seconds)

    def disk(self, use: DiskUse) -> None:
        """What the journal takes on its disk now."""
        self._disk.set(use.size_bytes)
        self._segments.set(use.segments)
        self._free.set(math.nan if use.free_bytes is None else use.free_bytes)

    def open_reservations(self, n: int) -> None:
        """So many reservations are open now."""
        self._open.set(n)

    def unresolved(self, tokens: int) -> None:
        """So many tokens are reserved now by requests whose end was lost in a crash."""
        self._unresolved.set(tokens)

    def settled(self, scopes: tuple[Scope, ...], charge: Charge) -> None:
        """A reservation was closed. Requests count their own charge; a lost one is counted here."""
        if charge.why == "crash":
            self._unresolved_charges.inc()
