"""What the load generator reads of an answer, however that was cut on its way."""

import pytest

from tests.bench import traffic
from tests.bench.load import READERS, Tally


def fed(kind: traffic.Kind, pieces: list[bytes]) -> Tally:
    """What came of an answer in these pieces."""
    tally, reader = Tally(), READERS[kind]()
    for piece in pieces:
        reader.feed(piece, tally)
    return tally


def framed(body: bytes, size: int) -> bytes:
    """A body in HTTP chunks of this size."""
    chunks = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


def body_of(chunks: bytes) -> bytes:
    """Without the frames of one chunk for each event."""
    pieces, at = [], 0
    while at < len(chunks):
        end = chunks.index(b"\r\n", at)
        size = int(chunks[at:end], 16)
        pieces.append(chunks[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(pieces)


EVENTS = [traffic.paced_event(sequence, 1_000 * sequence) for sequence in range(7, 13)]
PACED = traffic.role_event() + b"".join(EVENTS)


@pytest.mark.parametrize("size", [1, 7, 38, 190, 5000])
def test_every_paced_event_is_counted_once_however_it_is_framed_anew(size: int) -> None:
    body = body_of(PACED)
    tally = fed("paced", [framed(body, size)])
    assert (tally.chunks, tally.failures) == (len(EVENTS), 0)


@pytest.mark.parametrize("size", [1, 7, 38, 190, 5000])
def test_every_paced_event_is_counted_once_however_it_is_read(size: int) -> None:
    for frame in (11, 100, 5000):
        data = framed(body_of(PACED), frame)
        tally = fed("paced", [data[at : at + size] for at in range(0, len(data), size)])
        assert (tally.chunks, tally.failures) == (len(EVENTS), 0), frame
        assert len(tally.gaps_ns) == len(EVENTS) - 1


def test_a_paced_event_that_is_missing_is_a_failure() -> None:
    assert fed("paced", [PACED.replace(EVENTS[2], b"")]).failures == 1


@pytest.mark.parametrize("size", [64, 333, 100_000])
def test_a_whole_stream_is_counted_whether_or_not_it_was_framed_anew(size: int) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    [stream, *_] = traffic.stream_bodies()
    again = framed(body_of(stream[: -len(b"0\r\n\r\n")]), size) + b"0\r\n\r\n"
    for answer in (head + stream, head + again):
        tally = fed("stream", [answer[at : at + 4096] for at in range(0, len(answer), 4096)])
        assert (tally.chunks, tally.failures) == (traffic.STREAM_TOKENS, 0)


def test_a_stream_without_one_of_its_words_is_a_failure() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    [stream, *_] = traffic.stream_bodies()
    other = stream.replace(b'"content":" ', b'"content":"_', 1)
    assert fed("stream", [head + other]).failures == 1
