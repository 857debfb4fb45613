"""What a ledger's size costs at start: nothing, but for the segment that was being written."""

from tests.bench import books, opening
from tests.bench.opening import Opened
from tests.bench.plan import Plan
from tests.bench.report import Section, Table, number
from tests.bench.stage import Stage

_SEGMENT_WITHOUT_END = 1 << 32
_NOTES = (
    "1000 keys with three caps each, 500 reservations open. The first has all entries in one",
    "segment, as no ledger does: it is what replay costs. The others begin segments as usual, the",
    "newest as full as it can be (the second) or just begun (the third: a restart).",
)


def measure(stage: Stage, plan: Plan) -> Section:
    """Each start in a process of its own."""
    endless = stage.directory / "endless"
    books.write(
        str(endless),
        plan.entries,
        keys=opening.KEYS,
        open_at_end=opening.OPEN,
        segment_bytes_max=_SEGMENT_WITHOUT_END,
    )
    replayed = opening.measure(endless)
    usual = stage.directory / "usual"
    books.write(
        str(usual), plan.entries, keys=opening.KEYS, open_at_end=opening.OPEN, to_the_brim=True
    )
    full, fresh = opening.measure(usual), opening.measure(usual)
    rows = (
        _row("all in one segment", replayed),
        _row("newest segment full", full),
        _row("newest segment just begun", fresh),
    )
    table = Table(
        "Opening a ledger",
        ("", "entries", "segments", "disk MB", "read MB", "seconds", "CPU s", "peak MB"),
        rows,
        _NOTES,
    )
    return Section(
        (table,),
        {
            "open_full_seconds": full.seconds,
            "open_fresh_seconds": fresh.seconds,
            "replay_seconds": replayed.seconds,
            "replay_peak_mb": replayed.peak_mb,
            "open_full_peak_mb": full.peak_mb,
        },
    )


def _row(name: str, opened: Opened) -> tuple[str, ...]:
    return (
        name,
        str(opened.entries),
        str(opened.segments),
        number(opened.disk_mb),
        number(opened.segment_mb),
        number(opened.seconds),
        number(opened.cpu_seconds),
        number(opened.peak_mb),
    )
