"""What is read back from a segment after anything that can happen to its bytes.

Two promises. A torn tail that nobody was told is durable never stops a start, and the state is that
of some prefix holding all that was durable. Damage to durable data either changes nothing or stops
the start: it never loses spend in silence.
"""

import json
from hashlib import blake2b
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.cap_windows import rolling
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import (
    Cap,
    CloseEntry,
    Entry,
    HoldEntry,
    MarkEntry,
    ReservationId,
    account_scope,
    key_scope,
)
from cortexd.ledger.records import (
    Hint,
    OtherFormat,
    Place,
    encode_entries,
    encode_header,
    encode_snapshot,
)
from cortexd.ledger.recovery import Corrupt, Reading, Recovered, Torn, replay
from tests.ledger.scribe import SALT, Scribe, header

ACME, CI = account_scope("acme"), key_scope("ci")
SEG, FIRST = 7, 40


def reservation(scribe: Scribe, now_ms: int, tokens: int) -> tuple[Entry, ...]:
    return scribe.accounts.reserve(now_ms, (ACME, CI), tokens, request_id="r1")[0]


def settlement(scribe: Scribe, now_ms: int, number: int, tokens: int) -> tuple[Entry, ...]:
    cost = Charge(tokens, tokens, 0, "settle", 0)
    return scribe.accounts.settle(now_ms, ReservationId(number), cost)[0]


def written(*, synced: bool = True) -> Scribe:
    """A small segment: a snapshot of somebody's past, and five batches of entries.

    `synced`: every batch was durable before the next was written; else only the first two were.
    """
    past = Scribe()
    past.write(past.accounts.configure(1000, [Cap(ACME, 500), Cap(CI, 300, rolling(60_000))]))
    past.write(reservation(past, 1100, 60))
    past.write(settlement(past, 1200, 1, 15))
    past.write(reservation(past, 1300, 20))
    scribe = Scribe(past.accounts, seg=SEG, n=FIRST)
    scribe.write(reservation(scribe, 2000, 30), sync=True)
    scribe.write((*settlement(scribe, 2100, 2, 17), *scribe.accounts.mark(2100)), sync=True)
    scribe.write(reservation(scribe, 2200, 40), sync=synced)
    scribe.write(settlement(scribe, 2300, 3, 29), sync=synced)
    scribe.write(scribe.accounts.learn(2400, "Qwen3 8B", 6), sync=synced)
    return scribe


def ends(data: bytes) -> list[int]:
    """Offsets just behind each line."""
    return [position + 1 for position, byte in enumerate(data) if byte == 0x0A]


def read(scribe: Scribe, data: bytes, hint: Hint | None = None) -> Recovered | None:
    """What replay makes of `data`; None if it refuses. It is a prefix of what `scribe` wrote."""
    try:
        recovered = replay(data, hint)
    except Corrupt:
        return None
    assert recovered.accounts.dump() == scribe.states[recovered.n]
    return recovered


# Nothing happened


@pytest.mark.parametrize("synced", [True, False])
def test_a_whole_segment_gives_the_live_state(synced: bool) -> None:
    scribe = written(synced=synced)
    recovered = replay(scribe.data, Hint(SEG, scribe.durable_n))
    assert recovered.accounts.dump() == scribe.accounts.dump()
    assert (recovered.n, recovered.torn) == (scribe.n, None)
    assert (recovered.header.seg, recovered.header.n) == (SEG, FIRST)


def test_a_segment_without_entries_is_whole() -> None:
    scribe = Scribe(seg=SEG, n=FIRST)
    recovered = replay(scribe.data, Hint(SEG, FIRST))
    assert (recovered.n, recovered.torn) == (FIRST, None)


# Torn tails


@pytest.mark.parametrize("synced", [True, False])
def test_cut_at_every_byte_it_is_a_prefix_or_refused(synced: bool) -> None:
    scribe = written(synced=synced)
    hint = Hint(SEG, scribe.durable_n)
    snapshot_end = ends(scribe.data)[1]
    for cut in range(len(scribe.data)):
        data = scribe.data[:cut]
        recovered = read(scribe, data)
        assert (recovered is None) == (cut < snapshot_end)
        hinted = read(scribe, data, hint)
        if hinted is None:
            assert recovered is None or recovered.n < scribe.durable_n
        else:
            assert recovered is not None
            assert hinted.n == recovered.n >= scribe.durable_n
        if recovered is not None and recovered.torn is not None:
            offset = max(end for end in ends(scribe.data) if end <= cut)
            line = scribe.data.count(b"\n", 0, offset) + 1
            assert recovered.torn == Torn(offset, cut - offset, line)


def test_cut_between_two_lines_nothing_is_torn() -> None:
    scribe = written()
    for number, end in enumerate(ends(scribe.data)[1:], start=FIRST):
        recovered = replay(scribe.data[:end])
        assert (recovered.n, recovered.torn) == (number, None)


def test_the_unsynced_tail_may_be_zeros_up_to_the_size_that_it_should_have() -> None:
    scribe = written(synced=False)
    durable_end = ends(scribe.data)[1 + scribe.durable_n - FIRST]
    for cut in range(durable_end, len(scribe.data)):
        data = scribe.data[:cut].ljust(len(scribe.data), b"\0")
        assert read(scribe, data, Hint(SEG, scribe.durable_n)) is not None


@pytest.mark.slow
@given(st.data())
def test_pieces_of_the_unsynced_tail_may_be_missing_in_any_order(data: st.DataObject) -> None:
    """Sectors reach the disk in any order: good lines behind a hole are normal, and are dropped."""
    scribe = written(synced=False)
    begin = ends(scribe.data)[1 + scribe.durable_n - FIRST]
    piece_bytes = data.draw(st.sampled_from([16, 64, 100]))
    image = bytearray(scribe.data)
    for offset in range(begin, len(image), piece_bytes):
        if data.draw(st.booleans()):
            piece = image[offset : offset + piece_bytes]
            image[offset : offset + piece_bytes] = bytes(len(piece))
    size = data.draw(st.sampled_from([len(image), begin + (len(image) - begin) // 2]))
    recovered = read(scribe, bytes(image[:size]), Hint(SEG, scribe.durable_n))
    assert recovered is not None
    assert recovered.n >= scribe.durable_n


def test_a_hole_with_good_lines_behind_it_is_dropped_with_them() -> None:
    scribe = written(synced=False)
    lines = ends(scribe.data)
    third = slice(lines[4], lines[5])
    image = bytearray(scribe.data)
    image[third] = bytes(third.stop - third.start)
    recovered = replay(bytes(image), Hint(SEG, scribe.durable_n))
    assert recovered.n == scribe.durable_n
    assert recovered.torn == Torn(third.start, len(image) - third.start, line=6)


# Rot


@pytest.mark.slow
@pytest.mark.parametrize("hinted", [True, False])
def test_every_single_flipped_bit_is_harmless_or_refused(hinted: bool) -> None:
    scribe = written()
    hint = Hint(SEG, scribe.n) if hinted else None
    for position in range(len(scribe.data)):
        for bit in range(8):
            image = bytearray(scribe.data)
            image[position] ^= 1 << bit
            recovered = read(scribe, bytes(image), hint)
            assert recovered is None or (recovered.n, recovered.torn) == (scribe.n, None)


def test_a_line_feed_that_rotted_at_the_very_end_is_read_all_the_same() -> None:
    scribe = written()
    for bit in range(8):
        data = scribe.data[:-1] + bytes([0x0A ^ (1 << bit)])
        recovered = replay(data, Hint(SEG, scribe.n))
        assert recovered.accounts.dump() == scribe.accounts.dump()
        assert (recovered.n, recovered.torn) == (scribe.n, None)


@pytest.mark.parametrize("filler", [0, 0xFF, 0x0A, 0x61])
def test_a_sector_of_durable_data_that_was_overwritten_is_refused(filler: int) -> None:
    scribe = written()
    spans = pairwise(ends(scribe.data)[1:])
    marks = [(a, b, json.loads(scribe.data[a + 17 : b])["d"]) for a, b in spans]
    for begin in range(0, len(scribe.data), 64):
        image = bytearray(scribe.data)
        piece = image[begin : begin + 64]
        image[begin : begin + 64] = bytes([filler]) * len(piece)
        assert read(scribe, bytes(image), Hint(SEG, scribe.n)) is None
        # Without the hint there is only the watermark of what can still be read.
        recovered = read(scribe, bytes(image))
        left = [mark for start, end, mark in marks if end <= begin or start >= begin + 64]
        assert recovered is None or recovered.n >= max(left)


def test_a_sector_written_to_the_wrong_place_is_refused() -> None:
    scribe = written()
    for begin in range(64, len(scribe.data) - 64, 64):
        image = bytearray(scribe.data)
        image[begin : begin + 64] = image[begin - 64 : begin]
        assert read(scribe, bytes(image), Hint(SEG, scribe.n)) is None


def test_durable_lines_that_are_lost_doubled_or_swapped_are_refused() -> None:
    scribe = written()
    lines = [line + b"\n" for line in scribe.data[:-1].split(b"\n")]
    hint = Hint(SEG, scribe.n)
    for at in range(2, len(lines)):
        assert read(scribe, b"".join(lines[:at] + lines[at + 1 :]), hint) is None
        assert read(scribe, b"".join(lines[: at + 1] + lines[at:]), hint) is None
        if at + 1 < len(lines):
            swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
            assert read(scribe, b"".join(swapped), hint) is None
            assert read(scribe, b"".join(lines[:at] + lines[at + 1 :])) is None


def test_a_lost_line_is_noticed_by_the_watermark_of_the_line_behind_it() -> None:
    """Even where the file's end looks torn, which would otherwise explain everything."""
    scribe = Scribe()
    scribe.write([MarkEntry(1)], sync=True)
    scribe.write([MarkEntry(2)])
    lines = scribe.data.split(b"\n")
    with pytest.raises(Corrupt, match="damage inside durable data") as caught:
        replay(b"\n".join([*lines[:2], lines[3], b"torn"]))
    assert (caught.value.n, caught.value.watermark) == (0, 1)


# Segments that are read in many pieces


def long_segment() -> tuple[bytes, list[Entry]]:
    """A segment of so many entries that they are read in pieces; one is larger than any piece."""
    entries: list[Entry] = [MarkEntry(number) for number in range(1500)]
    scope = key_scope("x" * 100_000)
    entries.insert(700, HoldEntry(699, ReservationId(1), (scope,), 5))
    entries.append(CloseEntry(1500, ReservationId(1), 4, "settle"))
    scribe = Scribe(seg=SEG, n=FIRST)
    data = scribe.data
    for first in range(0, len(entries), 300):
        n = FIRST + first
        data += encode_entries(entries[first : first + 300], salt=SALT, n=n, durable_n=n)
    return data, entries


def test_a_long_segment_says_of_every_entry_where_it_stands() -> None:
    data, entries = long_segment()
    begins = ends(data)
    reading = Reading(data, None)
    reading.header()
    reading.snapshot(buckets=60)
    found = []
    for at, entry in enumerate(reading.entries()):
        assert (reading.n, reading.line, reading.offset) == (FIRST + at, at + 3, begins[at + 1])
        assert reading.place == Place(FIRST + at + 1, FIRST + at // 300 * 300)
        found.append(entry)
    assert found == entries
    assert reading.rest() is None
    assert (reading.n, reading.offset) == (FIRST + len(entries), len(data))


@pytest.mark.parametrize("at", [0, 1, 298, 299, 300, 699, 700, 701, 1499, 1500, 1501])
def test_a_long_segment_is_read_up_to_its_first_bad_line(at: int) -> None:
    data, _ = long_segment()
    begin, end = ends(data)[at + 1 : at + 3]
    torn = replay(data[: end - 2])
    assert (torn.n, torn.torn) == (FIRST + at, Torn(begin, end - 2 - begin, at + 3))
    assert replay(data[: end - 1] + b"?").n == FIRST + at + 1, "the line feed rotted"
    cannot_be: list[Entry] = [MarkEntry(0), CloseEntry(10_000, ReservationId(9), 4, "settle")]
    for bad in [forged({"k": "grant", "t": 9999, "n": FIRST + at + 1, "d": 0})] + [
        encode_entries([entry], salt=SALT, n=FIRST + at, durable_n=FIRST)
        for entry in cannot_be[at < 2 :]
    ]:
        with pytest.raises(Corrupt) as caught:
            replay(data[:begin] + bad + data[end:])
        assert (caught.value.n, caught.value.line) == (FIRST + at, at + 3)
        assert caught.value.offset == begin


# What the hint knows


def test_a_hint_that_knows_more_than_the_segment_is_believed() -> None:
    scribe = written()
    for hint in (Hint(SEG, scribe.n + 1), Hint(SEG + 1, 0)):
        with pytest.raises(Corrupt, match="entries that were durable are missing") as caught:
            replay(scribe.data, hint)
        assert caught.value.hint == hint


def test_a_hint_that_is_out_of_date_is_no_news() -> None:
    scribe = written()
    for hint in (None, Hint(SEG, 0), Hint(SEG, scribe.n), Hint(SEG - 1, scribe.n + 100)):
        assert replay(scribe.data, hint).n == scribe.n


# What is proven but cannot be


def forged(document: object) -> bytes:
    text = msgspec.json.encode(document)
    return blake2b(text, digest_size=8, key=SALT).hexdigest().encode() + b"\t" + text + b"\n"


def test_an_entry_of_an_unknown_kind_is_refused_even_where_a_tail_is_torn() -> None:
    scribe = written()
    line = forged({"k": "grant", "t": 9999, "n": scribe.n + 1, "d": 0})
    for data in (scribe.data + line, scribe.data + line + b"torn", scribe.data + line[:-1] + b"?"):
        with pytest.raises(Corrupt, match="does not know") as caught:
            replay(data)
        assert caught.value.offset == len(scribe.data)


def test_an_entry_that_cannot_happen_is_refused() -> None:
    scribe = written()
    bad = [CloseEntry(9999, ReservationId(99), 5, "settle")]
    data = scribe.data + encode_entries(bad, salt=SALT, n=scribe.n, durable_n=scribe.n)
    with pytest.raises(Corrupt, match="was not open"):
        replay(data)


def test_a_reservation_above_the_cap_is_refused_on_replay_too() -> None:
    scribe = written()
    rich = Accounts.load(msgspec.structs.replace(scribe.accounts.dump(), limits=()))
    entries, _ = rich.reserve(9999, (ACME, CI), 10_000)
    data = scribe.data + encode_entries(entries, salt=SALT, n=scribe.n, durable_n=scribe.n)
    with pytest.raises(Corrupt, match="does not fit"):
        replay(data)


def test_another_format_is_no_damage() -> None:
    with pytest.raises(OtherFormat, match="journal format 3"):
        replay(forged({"fmt": 3, "salt": SALT.hex()}))


def test_a_snapshot_that_does_not_add_up_is_refused() -> None:
    snapshot = msgspec.structs.replace(written().accounts.dump(), next=1)
    data = encode_header(header()) + encode_snapshot(snapshot, salt=SALT)
    with pytest.raises(Corrupt, match=r"line 2 .*out of order"):
        replay(data)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "the header is damaged"),
        (b"\n", "the header is damaged"),
        (encode_header(header())[:-1], "the header is damaged"),
        (encode_header(header()), "the snapshot is damaged"),
        (encode_header(header()) + b"\0\n", "the snapshot is damaged"),
        (encode_header(header()) * 2, "does not know"),
    ],
)
def test_header_and_snapshot_are_needed_whole(data: bytes, complaint: str) -> None:
    with pytest.raises(Corrupt, match=complaint):
        replay(data)


def test_a_refusal_says_where_and_what_is_known() -> None:
    scribe = written()
    offset = ends(scribe.data)[2]
    image = bytearray(scribe.data)
    image[offset + 30] ^= 1
    with pytest.raises(Corrupt) as caught:
        replay(bytes(image), Hint(SEG, 44))
    assert str(caught.value) == (
        f"line 4 (byte {offset}): damage inside durable data; last good entry: 41, "
        "known durable further on: 45, durable by the hint: segment 7, entry 44"
    )
    with pytest.raises(Corrupt, match="known durable further on: None, durable by the hint: none"):
        replay(b"")
