"""A journal of another format is refused by name, and never taken for damage.

The first format was written by development versions only. Its lines stand here as they were on
disk; how to write them is not in the code any more.
"""

from collections.abc import Callable
from hashlib import blake2b

import pytest

from cortexd.ledger.chain import Finding
from cortexd.ledger.disk import LedgerProblem
from cortexd.ledger.opening import read_newest as start
from cortexd.ledger.reading import read_entries
from cortexd.ledger.reading import read_newest as look_at_newest
from cortexd.ledger.records import FORMAT
from cortexd.ledger.verifying import verify
from tests.ledger.simulated_disk import SimulatedDisk
from tests.ledger.workbench import HandClock, hold, open_journal

SALT = bytes.fromhex("07d78379f2c0f403")
HEADER = (
    b'{"fmt":1,"seg":1,"n":0,"salt":"07d78379f2c0f403","prev":"","boot":"7f2e9a30",'
    b'"off":1763812345000,"lt":1763900000000,"wall":1763900000007,"sw":"cortexd/0.1.0"}'
)
SNAPSHOT = (
    b'{"snap":{"t":1763900000000,"next":2,"limits":[["acct:acme",100000,null,120,[],false],'
    b'["key:ci",60000,3600000,0,[[1763899990000,120]],false]],"holds":[],'
    b'"life":[["acct:acme",[120,20,100,1,0,0]],["key:ci",[120,20,100,1,0,0]]],"learned":[]}}'
)
ENTRY = (
    b'{"k":"limit","t":1763900000000,"l":"key:ci/tok","s":"key:ci","u":"tok","m":"rolling",'
    b'"c":60000,"v":3600000,"n":1,"d":0}'
)
NAME = "seg-00000001.jsonl"


def line(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=8, key=SALT).hexdigest().encode() + b"\t" + payload + b"\n"


def old_ledger(header: bytes = HEADER) -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.overwrite(NAME, line(header) + line(SNAPSHOT) + line(ENTRY))
    return disk


def test_the_lines_are_those_of_the_first_format() -> None:
    data = old_ledger().read(NAME)
    assert data.startswith(b'695aa2113708f285\t{"fmt":1,')


def refused_by_a_start(disk: SimulatedDisk) -> LedgerProblem:
    with pytest.raises(LedgerProblem) as caught:
        start(disk, where="ledger")
    return caught.value


def refused_by_show(disk: SimulatedDisk) -> LedgerProblem:
    with pytest.raises(LedgerProblem) as caught:
        look_at_newest(disk, where="ledger")
    return caught.value


def refused_by_verify(disk: SimulatedDisk) -> LedgerProblem:
    with pytest.raises(LedgerProblem) as caught:
        verify(disk, where="ledger")
    return caught.value


def refused_by_export(disk: SimulatedDisk) -> LedgerProblem:
    def damaged(finding: Finding) -> None:
        raise AssertionError(f"taken for damage: {finding}")

    with pytest.raises(LedgerProblem) as caught:
        list(read_entries(disk, damaged, where="ledger"))
    return caught.value


EVERYBODY = (refused_by_a_start, refused_by_show, refused_by_verify, refused_by_export)
refusals = pytest.mark.parametrize("refused", EVERYBODY)


@refusals
def test_the_first_format_is_refused_with_its_writer_and_what_to_do(
    refused: Callable[[SimulatedDisk], LedgerProblem],
) -> None:
    disk = old_ledger()
    before = disk.read(NAME)
    problem = refused(disk)
    assert problem.kind == "other_format"
    assert str(problem) == (
        "ledger/seg-00000001.jsonl: cortexd/0.1.0 wrote it in journal format 1, this version reads "
        "format 2 only. It was written by a development version: start with a new directory in "
        "ledger.directory, or keep using that version."
    )
    assert disk.names() == [NAME]
    assert disk.read(NAME) == before


@refusals
def test_a_newer_format_is_refused_whatever_its_header_has(
    refused: Callable[[SimulatedDisk], LedgerProblem],
) -> None:
    news = b'{"fmt":3,"salt":"07d78379f2c0f403","sw":"cortexd/9.1","news":{"a":1}}'
    problem = refused(old_ledger(news))
    assert problem.kind == "other_format"
    assert (
        problem.what == "cortexd/9.1 wrote it in journal format 3, this version reads format 2 only"
    )
    assert problem.hint == (
        "Run that version or a later one on it, or start with a new directory in ledger.directory."
    )


@refusals
def test_a_header_that_names_no_writer_is_refused_as_well(
    refused: Callable[[SimulatedDisk], LedgerProblem],
) -> None:
    problem = refused(old_ledger(b'{"fmt":7,"salt":"07d78379f2c0f403","sw":[1]}'))
    assert problem.what.startswith("an unnamed version wrote it in journal format 7, ")


def test_a_rotten_header_of_the_first_format_proves_no_format() -> None:
    """What is not proven to be what was written is damage, whatever number stands there."""
    disk = old_ledger()
    disk.overwrite(NAME, disk.read(NAME).replace(b'"seg":1', b'"seg":2'))
    assert refused_by_a_start(disk).kind == refused_by_show(disk).kind == "damaged"
    [finding] = verify(disk, where="ledger").findings
    assert "the header is damaged" in finding.what
    damage: list[Finding] = []
    assert list(read_entries(disk, damage.append)) == []
    assert [each.file for each in damage] == [NAME]


def test_a_ledger_of_this_format_goes_on() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    journal = open_journal(disk, times=clock.sources())
    hold(journal)
    journal.sync()
    assert b'{"fmt":%d,' % FORMAT in disk.read(NAME)
    assert open_journal(disk, times=clock.sources()).accounts.open_reservations == 1
