"""What a neuron's HTTP answer says, and its body up to a limit.

Owns the reading of headers and of whole bodies. Refuses to know what follows from them (relay.py).
"""

from cortexd.fleet.pool import Answer


def header(answer: Answer, wanted: bytes) -> bytes | None:
    """The value of a header by its name in lower case; None: it is not there."""
    for name, value in answer.headers:
        if name.lower() == wanted:
            return value
    return None


async def read_up_to(answer: Answer, limit: int) -> bytes:
    """The body of an answer, at most about `limit` bytes of it."""
    pieces: list[bytes] = []
    size = 0
    while size < limit and (data := await answer.read()):
        pieces.append(data)
        size += len(data)
    return b"".join(pieces)


def is_event_stream(answer: Answer) -> bool:
    """Whether it answers with events, rather than with one document."""
    kind = header(answer, b"content-type") or b""
    return kind.strip().lower().startswith(b"text/event-stream")
