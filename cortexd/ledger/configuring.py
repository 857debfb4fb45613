"""From the caps that an operator wants to the entries that make it so.

Owns the difference between a configuration and the books. Refuses to know what a changed cap does
to spend and reservations: `accounts.py` decides that when the entries are applied.
"""

from collections.abc import Iterable, Mapping

from cortexd.ledger.entries import (
    AMOUNT_MAX,
    Cap,
    DropEntry,
    LimitEntry,
    Scope,
    WindowKind,
    limit_id,
)
from cortexd.ledger.limits import Limit


def changes(
    limits: Mapping[Scope, Limit], caps: Iterable[Cap], *, now_ms: int
) -> tuple[LimitEntry | DropEntry, ...]:
    """List what turns `limits` into exactly `caps`: nothing for those that are as they should be.

    Raises ValueError for two caps on one scope, or one that cannot be (a bug: the configuration
    was checked before it came here).
    """
    wanted: dict[Scope, Cap] = {}
    for cap in caps:
        if cap.scope in wanted:
            raise ValueError(f"two caps on {cap.scope}")
        wanted[cap.scope] = _checked(cap)
    entries: list[LimitEntry | DropEntry] = [
        _limit_entry(cap, now_ms)
        for cap in wanted.values()
        if not _is_as_wanted(limits.get(cap.scope), cap)
    ]
    entries += [
        DropEntry(now_ms, limit_id(scope))
        for scope, limit in limits.items()
        if not limit.retired and scope not in wanted
    ]
    return tuple(entries)


def _checked(cap: Cap) -> Cap:
    if not 0 <= cap.hard_cap <= AMOUNT_MAX:
        raise ValueError(f"a cap that cannot be: {cap}")
    if cap.window_ms is not None and not 0 < cap.window_ms <= AMOUNT_MAX:
        raise ValueError(f"a window that cannot be: {cap}")
    return cap


def _is_as_wanted(limit: Limit | None, cap: Cap) -> bool:
    return (
        limit is not None
        and not limit.retired
        and limit.hard_cap == cap.hard_cap
        and limit.window.window_ms == cap.window_ms
    )


def _limit_entry(cap: Cap, now_ms: int) -> LimitEntry:
    kind: WindowKind = "balance" if cap.window_ms is None else "rolling"
    return LimitEntry(
        now_ms, limit_id(cap.scope), cap.scope, "tok", kind, cap.hard_cap, cap.window_ms or 0
    )
