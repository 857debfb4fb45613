"""Which charges count under a cap, by the oracle: from what each window can know of the past.

A window that is new is told what one rolling window before it on the same scope remembers. So what
counts is known within bounds: charges that count surely, and charges that count perhaps.
"""

from collections.abc import Iterable

import msgspec

from cortexd.ledger.cap_windows import CapWindow
from cortexd.ledger.entries import Cap

BUCKETS = 3
DAY_MS = 86_400_000
ZONES = {"UTC": 0, "Asia/Tokyo": 9 * 3_600_000}
"""Where civil days are counted, and how far ahead of UTC it is there, all year."""


class Memory(msgspec.Struct, frozen=True):
    """What the limit of `cap`, made at `made_ms`, can know of the time before.

    It knows of all charges after `all_after_ms`, and of none before `none_before_ms`; and what it
    was told may have been stamped so much later than it was by windows before it: `blur_ms`.
    """

    cap: Cap
    made_ms: int
    all_after_ms: int = 0
    none_before_ms: int = 0
    blur_ms: int = 0

    def counts_since(self, now_ms: int) -> tuple[int, int]:
        """From when on a charge counts surely, and from when on perhaps."""
        window = self.cap.window
        match window.kind:
            case "rolling":
                surely_ms = now_ms - window.ms + 1
                perhaps_ms = now_ms - _counts_ms(window) - _grain_ms(window) - self.blur_ms
            case "fixed":
                surely_ms = perhaps_ms = now_ms - now_ms % window.ms
            case "calendar":
                surely_ms = perhaps_ms = now_ms - (now_ms + ZONES[window.time_zone]) % DAY_MS
            case _:
                return 0, 0
        if perhaps_ms == surely_ms <= self.made_ms:
            perhaps_ms -= self.blur_ms
        return max(surely_ms, self.all_after_ms + 1), max(perhaps_ms, self.none_before_ms)


def memory_of(cap: Cap, known: Iterable[Memory] | None, now_ms: int) -> Memory:
    """What a limit is told that is made now. `known`: all before it; None: nothing happened yet."""
    if known is None:
        return Memory(cap, now_ms)
    kin = [
        each
        for each in known
        if (each.cap.scope, each.cap.unit, each.cap.window.kind) == (cap.scope, cap.unit, "rolling")
    ]
    if not kin:
        return Memory(cap, now_ms, now_ms, now_ms)
    kin.sort(key=lambda each: each.cap.window.ms)
    enough = [each for each in kin if each.cap.window.ms >= cap.window.ms > 0]
    best = enough[0] if enough else kin[-1]
    window, blur_ms = best.cap.window, best.blur_ms + _grain_ms(best.cap.window)
    return Memory(
        cap,
        now_ms,
        max(best.all_after_ms, now_ms - window.ms),
        max(best.none_before_ms, now_ms - _counts_ms(window) - blur_ms),
        blur_ms,
    )


def _counts_ms(window: CapWindow) -> int:
    """How long a rolling window counts a charge: a little longer than it says."""
    return window.ms + window.ms // 1024 + 1


def _grain_ms(window: CapWindow) -> int:
    return -(-window.ms // BUCKETS)
