"""Lines: what is written can be proven, and nothing else can."""

import json
from hashlib import blake2b

import msgspec
import pytest

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.entries import (
    CloseEntry,
    Entry,
    HoldEntry,
    LearnEntry,
    MarkEntry,
    ReservationId,
    account_scope,
    key_scope,
    model_label,
)
from cortexd.ledger.records import (
    HINT_BYTES,
    Hint,
    Misread,
    OtherFormat,
    Place,
    Run,
    decode_hint,
    digest,
    encode_entries,
    encode_header,
    encode_hint,
    encode_snapshot,
    entry_of,
    header_of,
    place_of,
    proven,
    prover,
    run_of,
    snapshot_of,
)
from tests.ledger.scribe import SALT, header

ENTRIES: tuple[Entry, ...] = (
    HoldEntry(5, ReservationId(1), (account_scope("ä b"), key_scope("@")), 43, "r1"),
    CloseEntry(6, ReservationId(1), 12, "abort", 8, 4),
    LearnEntry(6, model_label("Qwen/Qwen3 8B"), 7),
    MarkEntry(7),
)
NO_RUN = Run([], [])


def lines() -> list[bytes]:
    data = encode_entries(ENTRIES, salt=SALT, n=41, durable_n=39)
    assert data.endswith(b"\n")
    return data[:-1].split(b"\n")


def signed(document: object, salt: bytes = SALT) -> bytes:
    """A line that proves itself, whatever it says."""
    return signed_text(msgspec.json.encode(document), salt)


def signed_text(text: bytes, salt: bytes = SALT) -> bytes:
    return blake2b(text, digest_size=8, key=salt).hexdigest().encode() + b"\t" + text


def test_entries_come_back_with_their_places() -> None:
    for number, (line, entry) in enumerate(zip(lines(), ENTRIES, strict=True), start=42):
        payload = proven(line, SALT)
        assert payload is not None
        assert place_of(payload) == Place(number, 39)
        assert entry_of(payload, Place(number, 39)) == entry


def test_a_line_is_a_checksum_a_tab_and_json_that_other_tools_can_read() -> None:
    line = lines()[1]
    assert line[16:17] == b"\t"
    assert json.loads(line[17:]) == {
        "k": "close",
        "t": 6,
        "i": 1,
        "a": 12,
        "y": "abort",
        "p": 8,
        "o": 4,
        "n": 43,
        "d": 39,
    }


def test_no_byte_of_a_segment_is_one_bit_away_from_nul() -> None:
    data = encode_header(header())
    data += encode_snapshot(Accounts().dump(), salt=SALT)
    data += encode_entries(ENTRIES, salt=SALT, n=0, durable_n=0)
    assert not [byte for byte in set(data) if byte & (byte - 1) == 0]


@pytest.mark.parametrize("line", [b"", b"\t", b"0123456789abcdef", b"0123456789abcdef\t"])
def test_what_is_no_line_proves_nothing(line: bytes) -> None:
    assert proven(line, SALT) is None


def test_a_line_of_another_segment_proves_nothing() -> None:
    assert proven(lines()[0], b"another!") is None


def test_a_line_with_any_bit_flipped_proves_nothing() -> None:
    line = lines()[0]
    for position in range(len(line)):
        for bit in range(8):
            rotten = bytearray(line)
            rotten[position] ^= 1 << bit
            assert proven(bytes(rotten), SALT) is None


def test_a_proven_line_without_a_place_is_no_entry() -> None:
    snapshot = encode_snapshot(Accounts().dump(), salt=SALT)[:-1]
    payload = proven(snapshot, SALT)
    assert payload is not None
    assert place_of(payload) is None


@pytest.mark.parametrize(
    "document",
    [
        {"k": "grant", "t": 5, "g": "x", "n": 1, "d": 0},
        {"k": "mark", "t": 5, "z": 0, "n": 1, "d": 0},
        {"k": "mark", "t": 5, "n": 1, "d": 0, "z": 0},
    ],
)
def test_an_entry_of_a_newer_kind_or_with_a_newer_field_is_misread(document: object) -> None:
    payload = proven(signed(document), SALT)
    assert payload is not None
    assert place_of(payload) == Place(1, 0)
    with pytest.raises(Misread):
        entry_of(payload, Place(1, 0))


def test_many_lines_are_proven_up_to_the_first_that_is_not() -> None:
    prove = prover(SALT)
    payloads = [line[17:] for line in lines()]
    assert prove(lines()) == payloads
    assert prove([]) == []
    for number, line in enumerate(lines()):
        spaced = line.replace(b"\t", b" ")
        for bad in (b"", b"\t", line[:16], line[:17], line[:-1], line[1:], b"\t" + line, spaced):
            assert proven(bad, SALT) is None
            assert prove([*lines()[:number], bad, *lines()]) == payloads[:number]
        assert prover(b"another!")([line]) == []


def test_a_line_of_nothing_proves_nothing_among_many_either() -> None:
    for line in (signed_text(b""), signed_text(b"")[:-1]):
        assert prover(SALT)([line]) == []
        assert proven(line, SALT) is None


def test_many_lines_are_read_as_one_by_one() -> None:
    payloads = prover(SALT)(lines())
    assert run_of(payloads, 42) == Run([*ENTRIES], [39] * len(ENTRIES))
    for number, (payload, entry) in enumerate(zip(payloads, ENTRIES, strict=True), start=42):
        assert run_of([payload], number) == Run([entry], [39])
        assert run_of([payload], number + 1) == NO_RUN
        assert run_of([payload], number // 10) == NO_RUN, "the beginning of the number"
        assert run_of([payload], 100 + number) == NO_RUN, "the end of the number"
    assert run_of([], 42) == NO_RUN


def test_each_batch_among_many_lines_brings_its_own_watermark() -> None:
    data = encode_entries(ENTRIES, salt=SALT, n=41, durable_n=7)
    data += encode_entries(ENTRIES, salt=SALT, n=45, durable_n=0)
    data += encode_entries(ENTRIES, salt=SALT, n=49, durable_n=49)
    payloads = prover(SALT)(data[:-1].split(b"\n"))
    assert run_of(payloads, 42) == Run([*ENTRIES] * 3, [7] * 4 + [0] * 4 + [49] * 4)


def test_many_lines_end_before_one_with_another_number() -> None:
    payloads = prover(SALT)(lines())
    for skipped in range(1, len(payloads)):
        less = payloads[:skipped] + payloads[skipped + 1 :]
        assert run_of(less, 42).entries == [*ENTRIES[:skipped]]


@pytest.mark.parametrize(
    "text",
    [
        b'{"k":"mark","t":1,"n":43,"d":4,"x":1}',
        b'{"k":"mark","t":1,"d":4,"n":43}',
        b'{"k":"news","t":1,"n":43,"d":4}',
        b'{"k":"mark","t":1}{"k":"mark","t":1,"n":43,"d":4}',
        b'{"snap":{}}',
    ],
)
def test_the_lines_before_a_strange_one_are_read(text: bytes) -> None:
    """Wherever a line cannot be read, what stands before it has happened."""
    payloads = prover(SALT)(lines())
    run = run_of([payloads[0], text, *payloads[1:]], 42)
    assert run.entries == [ENTRIES[0]]
    assert run.watermarks[0] == 39


@pytest.mark.parametrize(
    "text",
    [
        b'{"k":"mark","t":1,"n":5,"d":4,"x":1}',
        b'{"k":"mark","t":1,"d":4,"n":5}',
        b'{"k":"news","t":1,"n":5,"d":4}',
    ],
)
def test_an_entry_with_its_place_elsewhere_or_of_a_newer_kind_is_misread(text: bytes) -> None:
    with pytest.raises(Misread):
        run_of([text], 5)


@pytest.mark.parametrize(
    "text",
    [
        b'{"snap":{}}',
        b'{"k":"mark","t":1,"n":5,"d":-4}x',
        b'{"k":"mark","t":1,"n":5,"d":4]',
        b'{"k":"mark","t":1,"n":5}',
        b'{"k":"mark","t":1,"n":5',
        b"{}",
        b"5",
    ],
)
def test_what_has_no_place_is_no_entry_of_any_number(text: bytes) -> None:
    assert run_of([text], 5) == NO_RUN


def test_a_header_comes_back_with_its_free_text_in_the_alphabet() -> None:
    found = header_of(encode_header(header(seg=7, n=1041))[:-1])
    assert found == msgspec.structs.replace(header(seg=7, n=1041), sw="cortexd%200.1")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b'0123456789abcdef\t{"fmt":2,"salt":"0011"}',
        encode_header(header())[1:-1],
        encode_header(header())[:-1].replace(b'"salt":"07', b'"salt":"08'),
        encode_header(header())[:-1].replace(b'"salt":"07', b'"salt":"7'),
        encode_header(header())[:-1].replace(b'"fmt":2', b'"fmt":3'),
    ],
)
def test_a_header_that_is_not_proven_is_none(line: bytes) -> None:
    assert header_of(line) is None


@pytest.mark.parametrize("fmt", [0, 1, 3, 99])
def test_another_format_says_which_it_is(fmt: int) -> None:
    with pytest.raises(OtherFormat, match=f"journal format {fmt}, this version reads format 2"):
        header_of(signed({"fmt": fmt, "salt": SALT.hex(), "news": 1}))


@pytest.mark.parametrize(
    "document",
    [
        {"fmt": 2, "salt": SALT.hex()},
        {"fmt": "2", "salt": SALT.hex()},
        {**msgspec.to_builtins(header()), "news": 1},
    ],
)
def test_a_header_with_other_fields_is_misread(document: object) -> None:
    with pytest.raises(Misread, match="header"):
        header_of(signed(document))


def test_a_snapshot_comes_back_and_one_with_other_fields_is_misread() -> None:
    snapshot = Accounts().dump()
    assert snapshot_of(encode_snapshot(snapshot, salt=SALT)[:-1], SALT) == snapshot
    assert snapshot_of(encode_snapshot(snapshot, salt=SALT), SALT) is None
    with pytest.raises(Misread, match="snapshot"):
        snapshot_of(signed({"snap": {**msgspec.to_builtins(snapshot), "gids": []}}), SALT)


def test_a_hint_is_always_of_one_length() -> None:
    for hint in (Hint(1, 0), Hint(99_999_999, 2**53 - 1)):
        data = encode_hint(hint)
        assert len(data) == HINT_BYTES
        assert data.endswith(b"\n")
        assert decode_hint(data) == hint


def test_a_hint_that_is_missing_torn_or_rotten_is_none() -> None:
    data = encode_hint(Hint(7, 1044))
    assert decode_hint(b"") is None
    assert decode_hint(data[:40].replace(b"}", b"")) is None
    for position in range(data.index(b"}") + 1):
        for bit in range(8):
            rotten = bytearray(data)
            rotten[position] ^= 1 << bit
            assert decode_hint(bytes(rotten)) is None


def test_a_hint_of_another_shape_is_none() -> None:
    assert decode_hint(signed({"seg": 7, "n": 3}, b"hint")) == Hint(7, 3)
    assert decode_hint(signed({"segment": 7}, b"hint")) is None


def test_a_segment_is_named_by_its_digest() -> None:
    assert digest(b"") == "cae66941d9efbd404e4d88758ea67670"
