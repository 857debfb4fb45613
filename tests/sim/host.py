"""A machine whose true time, clock rate, wall clock and boots the simulation decides.

It owns the truth that an outside judge measures by, and hands the ledger only what a kernel would:
a boot clock that runs a little fast or slow, and a wall clock that anybody may set.
"""

import random
from collections.abc import Callable

from cortexd.ledger.clock import TimeSources

START_MS = 1_700_000_000_000
DEAD_BATTERY_MS = -START_MS
"""Error of a wall clock that woke up in 1970."""

RATES_PPM = (0, 0, 900, -900)
"""How much faster than the truth boot clocks run; the ledger allows for 976."""


class Host:
    """Time sources that follow `true_ms`. `rate_ppm`: how much faster the boot clock runs."""

    def __init__(self, *, rate_ppm: int = 0) -> None:
        self.true_ms = START_MS
        self.rate_ppm = rate_ppm
        self.boots = 1
        self.wall_error_ms = 0
        self._booted_ms = START_MS - 50_000

    def sources(self) -> TimeSources:
        """What the kernel tells about time."""
        return TimeSources(
            boottime_ms=self._boottime_ms,
            wall_ms=lambda: self.true_ms + self.wall_error_ms,
            boot_id=f"boot-{self.boots}",
        )

    def reboot(self, *, down_ms: int, wall_error_ms: int, rate_ppm: int = 0) -> None:
        """Be off for a while and come back with a wall clock that is wrong by so much."""
        self.true_ms += down_ms
        self._booted_ms = self.true_ms
        self.boots += 1
        self.wall_error_ms = wall_error_ms
        self.rate_ppm = rate_ppm

    def _boottime_ms(self) -> int:
        passed = self.true_ms - self._booted_ms
        return passed + passed * self.rate_ppm // 1_000_000


def salts(source: random.Random) -> Callable[[int], bytes]:
    """A journal's salts, which differ and are the same in every run of a seed."""
    return lambda size: source.getrandbits(8 * size).to_bytes(size, "big")
