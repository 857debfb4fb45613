"""What a ledger's directory says at start: the newest segment, read and believed, or a problem.

It owns the order of recovery up to the point where a new segment can begin, and the words in which
a refusal is told to the operator. What a segment means is `recovery.py`'s to judge. It removes
unfinished files and writes nothing.
"""

import msgspec

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.clock import LastSeen
from cortexd.ledger.disk import HINT_NAME, Disk, LedgerProblem
from cortexd.ledger.records import Header, Hint, decode_hint, digest
from cortexd.ledger.recovery import Corrupt, Recovered, Torn, replay
from cortexd.ledger.segment import TEMPORARY_SUFFIX, segment_name, segment_numbers

_OPTIONS = (
    "Nothing was changed. Either restore the directory from a backup; or move this file and "
    f"{HINT_NAME} elsewhere and start again, which forgets what was spent since the segment "
    "before it was closed; or move the whole directory elsewhere to begin with nothing spent."
)


class Found(msgspec.Struct, frozen=True):
    """The state in which the last process left the ledger.

    `n`: number of the last entry in `accounts`; `segment`: number of the newest segment, 0 if there
    is none; `previous_digest`: of all its bytes, the dropped ones too; `replayed`: how many entries
    it held behind its snapshot; `torn`: unsynced data at its end that was left out, if any.
    """

    accounts: Accounts
    n: int
    segment: int
    previous_digest: str
    last_seen: LastSeen | None
    replayed: int
    torn: Torn | None


def read_newest(disk: Disk, *, where: str) -> Found:
    """Clear away unfinished segments and read the newest finished one.

    `where` names the directory in problems. Raises `LedgerProblem` where the segment must not be
    believed, OSError where the disk refuses.
    """
    names = disk.names()
    for name in names:
        if name.startswith("seg-") and name.endswith(TEMPORARY_SUFFIX):
            disk.remove(name)
    hint = decode_hint(disk.read(HINT_NAME)) if HINT_NAME in names else None
    numbers = segment_numbers(names)
    if not numbers:
        if hint is not None:
            raise all_lost(hint, where=where)
        return Found(Accounts(), 0, 0, "", None, replayed=0, torn=None)
    data = disk.read(segment_name(numbers[-1]))
    recovered = _replayed(data, hint, where=f"{where}/{segment_name(numbers[-1])}")
    if recovered.header.seg != numbers[-1]:
        file = f"{where}/{segment_name(numbers[-1])}"
        raise damaged(file, misnamed(recovered.header))
    return Found(
        accounts=recovered.accounts,
        n=recovered.n,
        segment=numbers[-1],
        previous_digest=digest(data),
        last_seen=last_seen(recovered.header, recovered.accounts.now_ms),
        replayed=recovered.n - recovered.header.n,
        torn=recovered.torn,
    )


def damaged(file: str, what: str) -> LedgerProblem:
    """Why the daemon will not start: what is wrong with `file`, and what a human can do."""
    return LedgerProblem(file, what, _OPTIONS, "damaged")


def misnamed(header: Header) -> str:
    """Say what is wrong with a file whose header has another number than its name."""
    return f"the file says that it is segment {header.seg}"


def all_lost(hint: Hint, *, where: str) -> LedgerProblem:
    """The problem of a directory that has a hint and no segment."""
    what = f"the file is gone, and every other segment: entry {hint.n} in it was durable"
    return damaged(f"{where}/{segment_name(hint.seg)}", what)


def _replayed(data: bytes, hint: Hint | None, *, where: str) -> Recovered:
    try:
        return replay(data, hint)
    except Corrupt as error:
        raise damaged(where, str(error)) from error


def last_seen(header: Header, newest_entry_ms: int) -> LastSeen:
    """The newest moment that a segment knows of."""
    newest_ms = max(header.lt, newest_entry_ms)
    return LastSeen(
        boot_id=header.boot,
        offset_ms=header.off,
        ledger_ms=newest_ms,
        wall_ms=header.wall + newest_ms - header.lt,
    )
