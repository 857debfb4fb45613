"""Journal entries as lines of bytes, format 2.

Owns the spelling of a segment's lines (header, snapshot, entries) and of the hint, and how each is
proven to be the one that was written. Refuses to know files, and what a line that proves nothing
means: `recovery.py` decides that.

A line is `<16 hex> TAB <compact JSON> LF`. The hex digits are BLAKE2b-64 of the JSON keyed with the
segment's salt, so that a line of another segment, left on the disk by an earlier life of its
sectors, proves nothing. An entry's JSON ends in its place: `n`, its number in the gapless sequence
of all entries ever, and `d`, the highest number that was known to be durable when it was written.
`cut -f2- seg-*.jsonl | jq` reads a segment.

No byte of a segment may be one bit away from NUL, which is the signature of a torn write. The
separator is a TAB for that reason, and `entries.py` keeps the names to their alphabet.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

import msgspec

from cortexd.ledger.entries import Entry, Snapshot

FORMAT = 2
"""Version of the format. Format 1 was that of development versions; nothing reads it any more."""

HINT_BYTES = 64
"""Length of the hint: it is overwritten in place, and lies within one sector."""

_HINT_SALT = b"hint"
_CHECKSUM_CHARS = 16
_PLACE = b',"n":%d,"d":%d}'
_WATERMARK = b',"d":'
_LINE = b"%s\t%s\n"


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First line of a segment.

    `seg`: number of the segment. `n`: number of the last entry before it. `salt`: 16 hex digits.
    `prev`: `digest` of the segment before it, "" in the first. `boot`, `off`, `lt`, `wall`: boot
    id, clock offset, ledger time and wall time in ms at its start. `sw`: who wrote it.
    """

    fmt: int
    seg: int
    n: int
    salt: str
    prev: str
    boot: str
    off: int
    lt: int
    wall: int
    sw: str


class Hint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A promise that entry `n` of segment `seg` is durable. May be out of date, never too high."""

    seg: int
    n: int


class Place(msgspec.Struct, frozen=True):
    """Where an entry stands: its number `n`, and the watermark `d` when it was written."""

    n: int
    d: int


class _SnapshotLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    snap: Snapshot


class _FormatAndWriter(msgspec.Struct, frozen=True):
    """What a header of any format has."""

    fmt: int
    sw: object = ""


_encode = msgspec.json.Encoder().encode
_entry_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)
_decode_entry, _decode_entries = _entry_decoder.decode, _entry_decoder.decode_lines
_decode_place = msgspec.json.Decoder(Place).decode
_decode_snapshot = msgspec.json.Decoder(_SnapshotLine).decode
_decode_header = msgspec.json.Decoder(Header).decode
_decode_format = msgspec.json.Decoder(_FormatAndWriter).decode
_decode_hint = msgspec.json.Decoder(Hint).decode


class Misread(Exception):
    """A line that is proven to be what was written says something that this version cannot read."""


class OtherFormat(Misread):
    """A whole segment in another format. `fmt`: which; `writer`: who wrote it, "" if unknown."""

    def __init__(self, fmt: int, writer: str) -> None:
        super().__init__(
            f"{writer or 'an unnamed version'} wrote it in journal format {fmt}, this version "
            f"reads format {FORMAT} only"
        )
        self.fmt = fmt
        self.writer = writer


def encode_header(header: Header) -> bytes:
    """Spell the first line of a segment. `boot` and `sw` are quoted into the journal's alphabet."""
    header = msgspec.structs.replace(header, boot=_quoted(header.boot), sw=_quoted(header.sw))
    return _line(_encode(header), bytes.fromhex(header.salt))


def encode_snapshot(snapshot: Snapshot, *, salt: bytes) -> bytes:
    """Spell the second line of a segment: the whole state before its first entry."""
    return _line(_encode(_SnapshotLine(snapshot)), salt)


def encode_entries(entries: Iterable[Entry], *, salt: bytes, n: int, durable_n: int) -> bytes:
    """Spell `entries` as lines. `n`: number of the last entry before them, `durable_n`: watermark.

    Example of one line, its salt being b"12345678":
    `b'334b8b03a8ba77dd\\t{"k":"mark","t":1763900000000,"n":1042,"d":1041}\\n'`.
    """
    keyed = blake2b(digest_size=8, key=salt)  # keying the hash is half of its price
    lines: list[bytes] = []
    for entry in entries:
        n += 1
        payload = _encode(entry)[:-1] + _PLACE % (n, durable_n)
        hashed = keyed.copy()
        hashed.update(payload)
        lines.append(_LINE % (hashed.hexdigest().encode(), payload))
    return b"".join(lines)


def encode_hint(hint: Hint) -> bytes:
    """Spell the hint: exactly HINT_BYTES, padded with spaces (its tail is never judged)."""
    return _line(_encode(hint), _HINT_SALT)[:-1].ljust(HINT_BYTES - 1) + b"\n"


def decode_hint(data: bytes) -> Hint | None:
    """Read a hint. None for one that is missing, torn or rotten: it is a help, not a witness."""
    payload = proven(data.rstrip(b" \n"), _HINT_SALT)
    if payload is None:
        return None
    try:
        return _decode_hint(payload)
    except msgspec.MsgspecError:
        return None


def proven(line: bytes, salt: bytes) -> bytes | None:
    """The JSON of a line (without its LF) whose checksum proves it; None for any other bytes."""
    payload = line[_CHECKSUM_CHARS + 1 :]
    if not payload or line[_CHECKSUM_CHARS : _CHECKSUM_CHARS + 1] != b"\t":
        return None
    return payload if _checksum(payload, salt) == line[:_CHECKSUM_CHARS] else None


Prover: TypeAlias = Callable[[Iterable[bytes]], list[bytes]]
"""The JSON of the lines of one segment, up to the first that is not proven by its checksum."""


def prover(salt: bytes) -> Prover:
    """`proven` for many lines of one segment: keying the hash is half of its price."""
    keyed_copy = blake2b(digest_size=8, key=salt).copy

    def prove(lines: Iterable[bytes]) -> list[bytes]:
        payloads: list[bytes] = []
        for line in lines:
            checksum, _, payload = line.partition(b"\t")
            hashed = keyed_copy()
            hashed.update(payload)
            if hashed.hexdigest().encode() != checksum or not payload:
                break
            payloads.append(payload)
        return payloads

    return prove


def place_of(payload: bytes) -> Place | None:
    """Where the entry of a proven line stands; None if the line is no entry's."""
    try:
        return _decode_place(payload)
    except msgspec.MsgspecError:
        return None


def entry_of(payload: bytes, place: Place) -> Entry:
    """The entry of a proven line at `place`. Raises Misread for an unknown kind or field."""
    try:
        return _decode_entry(payload.removesuffix(_PLACE % (place.n, place.d)) + b"}")
    except msgspec.MsgspecError as error:
        raise _unknown(error) from error


class Run(NamedTuple):
    """Entries that follow each other. `watermarks`: the `d` of the place of each."""

    entries: list[Entry]
    watermarks: list[int]


def run_of(payloads: Sequence[bytes], n: int) -> Run:
    """The entries of proven lines that are numbered from `n` on: none if the first is not.

    It may end before these do. What `place_of` and `entry_of` say, at a quarter of their price
    where lines are as they should be. Raises Misread if the first is of an unknown kind or has an
    unknown field.
    """
    # All lines go through one step and then through the next: so the code of a step (msgspec's, or
    # the hash's) stays in the processor's cache, which takes a quarter off the price.
    fronts, watermarks = _plain_fronts(payloads, n)
    if fronts:
        try:
            entries = _decode_entries(b"}\n".join(fronts) + b"}")
        except msgspec.MsgspecError:
            entries = []  # one of them is unknown, maybe not the first
        if len(entries) == len(fronts):
            return Run(entries, watermarks)
    place = place_of(payloads[0]) if payloads else None
    if place is None or place.n != n:
        return Run([], [])
    return Run([entry_of(payloads[0], place)], [place.d])


def _plain_fronts(payloads: Sequence[bytes], n: int) -> tuple[list[bytes], list[int]]:
    """The lines without their places and watermarks, as far as they are spelled as we do it."""
    fronts: list[bytes] = []
    watermarks: list[int] = []
    end, durable_n = _WATERMARK + b"0}", 0
    for number, payload in enumerate(payloads, n):
        front = payload.removesuffix(b',"n":%d%b' % (number, end))
        if len(front) == len(payload):
            # The first of a batch: it brings a newer watermark.
            end = payload[payload.rfind(_WATERMARK) :]
            front = payload.removesuffix(b',"n":%d%b' % (number, end))
            digits = end[len(_WATERMARK) : -1]
            if len(front) == len(payload) or not digits.isdigit() or end[-1:] != b"}":
                break
            durable_n = int(digits)
        fronts.append(front)
        watermarks.append(durable_n)
    return fronts, watermarks


def header_of(line: bytes) -> Header | None:
    """Read a segment's first line (without its LF); None for bytes that are no proven header.

    Raises OtherFormat for any other than FORMAT, Misread for fields that this version does not
    know.
    """
    salt = _SALT_IN_HEADER.search(line)
    payload = None if salt is None else proven(line, bytes.fromhex(salt[1].decode()))
    if payload is None:
        return None
    try:
        found = _decode_format(payload)
        if found.fmt != FORMAT:
            raise OtherFormat(found.fmt, found.sw if isinstance(found.sw, str) else "")
        return _decode_header(payload)
    except msgspec.MsgspecError as error:
        raise Misread(f"a header that this version does not know: {error}") from error


_SALT_IN_HEADER = re.compile(rb'"salt":"((?:[0-9a-f]{2}){1,64})"')


def snapshot_of(line: bytes, salt: bytes) -> Snapshot | None:
    """Read a segment's second line (without its LF); None for bytes that are no proven snapshot.

    Raises Misread for fields that this version does not know.
    """
    payload = proven(line, salt)
    if payload is None:
        return None
    try:
        return _decode_snapshot(payload).snap
    except msgspec.MsgspecError as error:
        raise Misread(f"a snapshot that this version does not know: {error}") from error


def digest(data: bytes) -> str:
    """Digest of a whole segment, by which the next one names it: BLAKE2b-128, 32 hex digits."""
    return blake2b(data, digest_size=16).hexdigest()


def _line(payload: bytes, salt: bytes) -> bytes:
    return _LINE % (_checksum(payload, salt), payload)


def _unknown(error: msgspec.MsgspecError) -> Misread:
    return Misread(f"an entry that this version does not know: {error}")


def _checksum(payload: bytes, salt: bytes) -> bytes:
    return blake2b(payload, digest_size=8, key=salt).hexdigest().encode()


def _quoted(text: str) -> str:
    return quote(text, safe="/:", errors="surrogatepass")
