"""What must hold between one segment of a journal and the next."""

import msgspec
import pytest

from cortexd.ledger.chain import GAP_HINT, SegmentFacts, check_chain
from tests.ledger.scribe import header


def facts(number: int, first: int, last: int, **more: object) -> SegmentFacts:
    """Segment `number` with entries from `first` + 1 to `last`; its digest is `d` + its number."""
    head = msgspec.structs.replace(header(seg=number, n=first), prev=f"d{number - 1}", lt=number)
    found = SegmentFacts(number, head, last, f"d{number}", line=last - first + 3, offset=900)
    return msgspec.structs.replace(found, **more)


def with_header(found: SegmentFacts, **more: object) -> SegmentFacts:
    assert found.header is not None
    return msgspec.structs.replace(found, header=msgspec.structs.replace(found.header, **more))


def test_segments_that_follow_each_other_are_in_order_with_a_torn_tail_between_them_too() -> None:
    assert check_chain([]) == []
    assert check_chain([facts(7, 5, 9)]) == []
    assert check_chain([facts(7, 5, 9, rest_bytes=40), facts(8, 9, 9), facts(9, 9, 12)]) == []


def test_every_segment_that_is_missing_is_named() -> None:
    found = check_chain([facts(7, 5, 9), facts(10, 20, 30)])
    assert [(f.file, f.what, f.invariant) for f in found] == [
        ("seg-00000008.jsonl", "the file is missing", "I16"),
        ("seg-00000009.jsonl", "the file is missing", "I16"),
    ]


@pytest.mark.parametrize(
    ("rest_bytes", "kind"), [(0, "the end of the file is missing"), (40, "damage")]
)
def test_entries_that_are_missing_at_the_end_are_told_where_they_were(
    rest_bytes: int, kind: str
) -> None:
    [found] = check_chain([facts(7, 5, 9, rest_bytes=rest_bytes), facts(8, 11, 12)])
    assert found.what == (
        f"line 7 (byte 900): {kind}; last good entry: 9, but the next segment begins after 11"
    )
    assert (found.file, found.line, found.offset) == ("seg-00000007.jsonl", 7, 900)
    assert found.hint == GAP_HINT


def test_a_segment_that_was_written_to_after_its_successor_began_is_found() -> None:
    [more] = check_chain([facts(7, 5, 9), facts(8, 8, 12)])
    assert "it goes on to entry 9, but the next segment begins after 8" in more.what
    [other] = check_chain([facts(7, 5, 9, digest="other"), facts(8, 9, 12)])
    assert other.file == "seg-00000007.jsonl"
    assert "changed after seg-00000008.jsonl was begun: its digest is other, was d7" in other.what


def test_time_that_runs_backwards_between_segments_is_found() -> None:
    [found] = check_chain([facts(7, 5, 9), with_header(facts(8, 9, 12), lt=6)])
    assert (found.invariant, found.file, found.line, found.offset) == (
        *("I12", "seg-00000008.jsonl"),
        *(1, 0),
    )
    assert "it begins at 6, before its predecessor: 7" in found.what


def test_what_is_known_to_be_damaged_is_not_told_twice() -> None:
    assert check_chain([facts(7, 5, 8, is_judged=True), facts(8, 9, 12)]) == []
    assert check_chain([facts(7, 5, 9, digest="x", is_judged=True), facts(8, 9, 12)]) == []
    assert check_chain([SegmentFacts(7), facts(8, 9, 12)]) == []
    assert check_chain([facts(7, 5, 9), SegmentFacts(8)]) == []
