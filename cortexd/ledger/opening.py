"""What a ledger's directory says at start: the newest segment, read and believed, or a problem.

It owns the order of recovery up to the point where a new segment can begin, and the words in which
a refusal is told to the operator. What a segment means is `recovery.py`'s to judge. It removes
unfinished files and writes nothing.
"""

from collections.abc import Sequence

import msgspec

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.clock import LastSeen
from cortexd.ledger.disk import HINT_NAME, Disk, LedgerProblem
from cortexd.ledger.records import FORMAT, Header, Hint, OtherFormat, decode_hint, digest
from cortexd.ledger.recovery import Corrupt, Recovered, Torn, replay
from cortexd.ledger.segment import TEMPORARY_SUFFIX, segment_name, segment_numbers

_RESTORE = "Nothing was changed. Either restore the directory from a backup; or move "

_OPTIONS = (
    f"{_RESTORE}this file and {HINT_NAME} elsewhere and start again, which forgets what was spent "
    "since the segment before it was closed; or move the whole directory elsewhere to begin with "
    "nothing spent."
)

_OPTIONS_OF_THE_ONLY_ONE = (
    f"{_RESTORE}the whole directory elsewhere, which begins with nothing spent: there is no other "
    "segment to go back to."
)

_OLDER = (
    "It was written by a development version: start with a new directory in ledger.directory, or "
    "keep using that version."
)

_NEWER = "Run that version or a later one on it, or start with a new directory in ledger.directory."


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
    recovered = replayed(data, hint, numbers, where=where)
    return Found(
        accounts=recovered.accounts,
        n=recovered.n,
        segment=numbers[-1],
        previous_digest=digest(data),
        last_seen=last_seen(recovered.header, recovered.accounts.now_ms),
        replayed=recovered.n - recovered.header.n,
        torn=recovered.torn,
    )


def replayed(data: bytes, hint: Hint | None, numbers: Sequence[int], *, where: str) -> Recovered:
    """The newest segment, whose bytes are `data`; `numbers`: of all segments, in order.

    Raises `LedgerProblem` where it must not be believed.
    """
    file = f"{where}/{segment_name(numbers[-1])}"
    is_only = len(numbers) == 1
    try:
        recovered = replay(data, hint)
    except OtherFormat as error:
        raise foreign(file, error) from error
    except Corrupt as error:
        raise damaged(file, str(error), is_only=is_only) from error
    if recovered.header.seg != numbers[-1]:
        raise damaged(file, misnamed(recovered.header), is_only=is_only)
    return recovered


def damaged(file: str, what: str, *, is_only: bool) -> LedgerProblem:
    """Why the daemon will not start: what is wrong with `file`, and what a human can do.

    `is_only`: there is no other segment, from which the books could go on.
    """
    hint = _OPTIONS_OF_THE_ONLY_ONE if is_only else _OPTIONS
    return LedgerProblem(file, what, hint, "damaged")


def foreign(file: str, error: OtherFormat) -> LedgerProblem:
    """Why nothing here reads `file`: it is whole, but of another version."""
    return LedgerProblem(file, str(error), _OLDER if error.fmt < FORMAT else _NEWER, "other_format")


def misnamed(header: Header) -> str:
    """Say what is wrong with a file whose header has another number than its name."""
    return f"the file says that it is segment {header.seg}"


def all_lost(hint: Hint, *, where: str) -> LedgerProblem:
    """The problem of a directory that has a hint and no segment."""
    what = f"the file is gone, and every other segment: entry {hint.n} in it was durable"
    return damaged(f"{where}/{segment_name(hint.seg)}", what, is_only=True)


def last_seen(header: Header, newest_entry_ms: int) -> LastSeen:
    """The newest moment that a segment knows of."""
    newest_ms = max(header.lt, newest_entry_ms)
    return LastSeen(
        boot_id=header.boot,
        offset_ms=header.off,
        ledger_ms=newest_ms,
        wall_ms=header.wall + newest_ms - header.lt,
    )
