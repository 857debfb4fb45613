"""What a bystander makes of a ledger's directory: the state, and the entries in order."""

import errno

import pytest

from cortexd.ledger.chain import Finding
from cortexd.ledger.disk import LedgerProblem
from cortexd.ledger.entries import CloseEntry, GhostEntry, HoldEntry
from cortexd.ledger.reading import Line, look, newest_header, read_entries, read_newest
from tests.ledger.kept_ledger import kept_ledger, name, numbers
from tests.ledger.simulated_disk import SimulatedDisk
from tests.ledger.workbench import SCOPES, open_journal, read_segment


def no_damage(finding: Finding) -> None:
    raise AssertionError(finding)


def entries_of(
    disk: SimulatedDisk, *, since_ms: int = 0, until_ms: int | None = None
) -> list[Line]:
    return list(read_entries(disk, no_damage, since_ms=since_ms, until_ms=until_ms))


class Counted:
    """A folder that counts how often a segment is read whole."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        self.read_whole: list[str] = []

    def names(self) -> list[str]:
        return self._disk.names()

    def read(self, wanted: str, bytes_max: int | None = None) -> bytes:
        if bytes_max is None and wanted.startswith("seg-"):
            self.read_whole.append(wanted)
        return self._disk.read(wanted, bytes_max)


# The state


def test_the_state_is_what_a_start_finds() -> None:
    disk, clock = kept_ledger()
    newest = read_newest(disk, where="ledger")
    assert newest is not None
    assert newest.number == 4
    journal = open_journal(disk, times=clock.sources())
    _, begin, _ = read_segment(disk.read(name(5)))
    assert newest.recovered.accounts.dump() == begin
    assert newest.recovered.n + 3 == journal.written, "and three ghosts were made since"


def test_nothing_is_written_and_nothing_is_locked() -> None:
    disk, _ = kept_ledger()
    before = disk.operations
    read_newest(disk, where="ledger")
    entries_of(disk)
    assert disk.operations == before


def test_without_segments_there_is_no_ledger() -> None:
    assert read_newest(SimulatedDisk(), where="ledger") is None
    assert newest_header(SimulatedDisk()) is None
    assert entries_of(SimulatedDisk()) == []


def refusal_of(disk: SimulatedDisk) -> str:
    with pytest.raises(LedgerProblem) as starting:
        open_journal(disk)
    with pytest.raises(LedgerProblem) as reading:
        read_newest(disk, where="ledger")
    assert str(reading.value) == str(starting.value)
    return str(reading.value)


def test_what_a_start_refuses_is_refused_in_the_same_words() -> None:
    disk, _ = kept_ledger()
    data = bytearray(disk.read(name(4)))
    data[data.index(b'"k":"hold"')] ^= 1
    disk.overwrite(name(4), bytes(data))
    assert "damage inside durable data" in refusal_of(disk)
    disk.overwrite(name(4), disk.read(name(3)))
    assert "entries that were durable are missing" in refusal_of(disk)
    disk.lose("durable.hint")
    assert refusal_of(disk).startswith("ledger/seg-00000004.jsonl: the file says that it is seg")
    disk, _ = kept_ledger()
    for number in numbers(disk):
        disk.lose(name(number))
    assert "and every other segment" in refusal_of(disk)


class Rolling:
    """A folder in which a new segment begins, and a hint tells of it, once names were read."""

    def __init__(self) -> None:
        self.disk, self.clock = kept_ledger()
        self.looks = 0

    def names(self) -> list[str]:
        self.looks += 1
        names = self.disk.names()
        if self.looks > 1:
            open_journal(self.disk, times=self.clock.sources())
        return names

    def read(self, wanted: str, bytes_max: int | None = None) -> bytes:
        return self.disk.read(wanted, bytes_max)


def test_segments_that_begin_meanwhile_do_not_confuse_a_look() -> None:
    folder = Rolling()
    newest = read_newest(folder, where="ledger")
    assert newest is not None
    assert newest.number < numbers(folder.disk)[-1]
    found = look(folder)
    assert found.hint is not None
    assert found.hint.seg <= found.numbers[-1]


# Entries


def test_all_entries_come_in_order_without_a_gap() -> None:
    disk, _ = kept_ledger()
    lines = entries_of(disk)
    assert [line.n for line in lines] == list(range(1, len(lines) + 1))
    written = [
        entry for number in numbers(disk) for _, entry in read_segment(disk.read(name(number)))[2]
    ]
    assert [line.entry for line in lines] == written


def test_what_is_about_a_reservation_carries_how_it_was_made_also_over_segments() -> None:
    disk, _ = kept_ledger()
    made: dict[int, HoldEntry] = {}
    over_segments = 0
    for line in entries_of(disk):
        match line.entry:
            case HoldEntry():
                assert line.held is line.entry
                made[line.entry.i] = line.entry
            case CloseEntry() | GhostEntry():
                assert line.held == made[line.entry.i]
                over_segments += line.held is not made[line.entry.i]
                assert set(line.held.w) == set(SCOPES)
            case _:
                assert line.held is None
    assert over_segments, "no reservation was taken over into another segment"


def test_a_span_begins_with_its_first_moment_and_ends_before_its_last() -> None:
    disk, _ = kept_ledger()
    lines = entries_of(disk)
    times = sorted({line.entry.t for line in lines})
    for since in (0, times[0], times[3], times[-2], times[-1], times[-1] + 1):
        for until in (None, 0, times[0], times[4], times[-1], times[-1] + 1):
            wanted = [
                line
                for line in lines
                if line.entry.t >= since and (until is None or line.entry.t < until)
            ]
            assert entries_of(disk, since_ms=since, until_ms=until) == wanted


def test_segments_outside_a_span_are_not_read() -> None:
    disk, _ = kept_ledger()
    folder = Counted(disk)
    lines = entries_of(disk)
    last = lines[-1].entry.t
    assert list(read_entries(folder, no_damage, since_ms=last + 1)) == []
    assert folder.read_whole == [name(4)]
    list(read_entries(folder, no_damage, until_ms=lines[0].entry.t + 1))
    assert folder.read_whole[1:] == [name(1)]


def test_one_segment_is_read_at_a_time() -> None:
    disk, _ = kept_ledger()
    folder = Counted(disk)
    lines = read_entries(folder, no_damage)
    assert next(lines).n == 1
    assert folder.read_whole == [name(1)]


@pytest.mark.parametrize(("line", "said"), [(1, "header"), (2, "snapshot"), (6, "damage")])
def test_entries_go_on_behind_a_damaged_segment_and_the_damage_is_told(
    line: int, said: str
) -> None:
    disk, _ = kept_ledger()
    whole = entries_of(disk)
    data = bytearray(disk.read(name(3)))
    offset = sum(map(len, bytes(data).splitlines(keepends=True)[: line - 1]))
    data[offset + 30] ^= 1
    disk.overwrite(name(3), bytes(data))
    damage: list[Finding] = []
    lines = list(read_entries(disk, damage.append))
    assert [(found.file, found.line, found.offset) for found in damage] == [(name(3), line, offset)]
    assert said in damage[0].what
    first, last = read_segment(disk.read(name(4)))[0], whole[-1].n
    assert [found.n for found in lines if found.n > first] == list(range(first + 1, last + 1))
    assert len(lines) < len(whole)


def test_a_segment_that_somebody_lost_is_told_and_one_that_was_too_old_is_not() -> None:
    class Losing(Counted):
        lost = name(1)

        def read(self, wanted: str, bytes_max: int | None = None) -> bytes:
            if wanted == self.lost:
                if wanted in disk.names() and self.lost == name(1):
                    disk.lose(wanted)
                raise FileNotFoundError(wanted)
            return super().read(wanted, bytes_max)

    disk, _ = kept_ledger()
    folder = Losing(disk)
    lines = list(read_entries(folder, no_damage))
    assert lines[0].n == read_segment(disk.read(name(2)))[0] + 1
    folder.lost = name(3)
    damage: list[Finding] = []
    list(read_entries(folder, damage.append))
    assert damage == [Finding(name(3), "the file is missing")]


def test_a_segment_that_the_disk_does_not_give_is_told_and_the_others_come() -> None:
    class Failing(Counted):
        def read(self, wanted: str, bytes_max: int | None = None) -> bytes:
            if wanted == name(2):
                raise OSError(errno.EIO, "simulated")
            return super().read(wanted, bytes_max)

    disk, _ = kept_ledger()
    damage: list[Finding] = []
    lines = list(read_entries(Failing(disk), damage.append))
    assert damage == [Finding(name(2), "cannot be read: simulated")]
    assert {line.n for line in lines} < {line.n for line in entries_of(disk)}


def test_a_newest_segment_with_a_header_of_another_format_is_no_bystanders_crash() -> None:
    disk, _ = kept_ledger()
    disk.overwrite(name(4), b"nonsense\n")
    assert newest_header(disk) is None
