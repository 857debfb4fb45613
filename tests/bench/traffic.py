"""What is asked and answered in the benchmark, the same for everybody who takes part.

Owns the requests, the canned answers and their sizes. Refuses to know sockets. A conversation of a
few hundred bytes, an answer of about 300; stream events of about 190 bytes as engines send them,
each with another word, so that nothing can be remembered from one to the next.
"""

import json
import random
import re
from typing import Literal

import msgspec

Kind = Literal["plain", "stream", "paced"]
"""`stream`: all events as fast as they are taken. `paced`: one now and then, and no end."""

PATH = "/v1/chat/completions"
MODEL = "bench/constant"
KEY = "sk-bench"

STREAM_TOKENS = 512
"""Events with text in one stream of the kind `stream`."""

PACED_TOKENS = 4096
PACED_SECONDS = 0.02
"""Time between two events of a paced stream."""

HEADERS = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}

USUAL_BYTES = 0
"""The size of a request that is as it comes: about 450 bytes."""

_QUESTION = "What does a ledger promise that a counter in memory does not? "
_WANTS_STREAM = re.compile(rb'"stream": ?true')
_WANTS_PACED = re.compile(rb'"max(?:_completion)?_tokens": ?%d' % PACED_TOKENS)
_VARIANTS = 8
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_PROMPT_TOKENS = 87


class Order(msgspec.Struct, frozen=True):
    """One piece of work for the load generator: who is asked what, how hard and for how long.

    `watched_pid`: the process whose CPU time and memory are read with the window (0: none).
    `body_bytes`: of each request (`USUAL_BYTES`: as it comes).
    """

    port: int
    kind: Kind
    connections: int
    seconds: float
    watched_pid: int = 0
    body_bytes: int = USUAL_BYTES


class Outcome(msgspec.Struct, frozen=True):
    """What came of it in the window, which begins when every connection is warm.

    `chunks`: events with text. `failures`: answers other than a whole 200, and lost events. The
    latencies are of answers; of the kind `paced` they are of events, from the neuron's send to our
    receive, and the gaps lie between two events of one stream. `cpu_seconds` and `resident_kb` are
    the watched process's, the latter at the end. `gave_up`: why there was no window at all.
    """

    seconds: float
    answers: int
    chunks: int
    failures: int
    p50_us: float
    p99_us: float
    cpu_seconds: float
    resident_kb: int
    gap_p50_us: float = 0
    gap_p99_us: float = 0
    gave_up: str = ""


def request_bytes(kind: Kind, body_bytes: int = USUAL_BYTES) -> bytes:
    """The whole request that a connection sends, again and again."""
    data = body_of(kind, body_bytes)
    headers = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    head = f"POST {PATH} HTTP/1.1\r\nhost: bench\r\n{headers}content-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def body_of(kind: Kind, body_bytes: int = USUAL_BYTES) -> bytes:
    """What is asked; the last question is as long as it takes to get to `body_bytes`."""
    if body_bytes == USUAL_BYTES:
        return _asked(kind, _QUESTION * 4)
    bare = len(_asked(kind, ""))
    return _asked(kind, (_QUESTION * (body_bytes // len(_QUESTION) + 1))[: body_bytes - bare])


def _asked(kind: Kind, question: str) -> bytes:
    system = {"role": "system", "content": "You answer in one sentence."}
    body: dict[str, object] = {
        "model": MODEL,
        "messages": [system, {"role": "user", "content": question}],
        "temperature": 0.7,
        "max_tokens": {"plain": 64, "stream": STREAM_TOKENS, "paced": PACED_TOKENS}[kind],
    }
    if kind != "plain":
        body["stream"] = True
    return _encoded(body)


def kind_of(request: bytes) -> Kind:
    """What a request that somebody may have written anew asks for."""
    if _WANTS_STREAM.search(request) is None:
        return "plain"
    return "stream" if _WANTS_PACED.search(request) is None else "paced"


def plain_body() -> bytes:
    """The answer to a plain request."""
    message = {"role": "assistant", "content": "It is still true after the power has gone."}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return _encoded(_reply("chat.completion", [choice], usage=_usage(10)))


def stream_bodies() -> list[bytes]:
    """A few whole streams that differ in their words: one HTTP chunk for each event, to the end."""
    source = random.Random(1)
    return [_stream(source) for _ in range(_VARIANTS)]


def role_event() -> bytes:
    """The event that begins a stream, in an HTTP chunk."""
    return _event([_choice({"role": "assistant", "content": ""})])


def paced_event(sequence: int, sent_ns: int) -> bytes:
    """One event, in an HTTP chunk, that says which it is and when it was sent (monotonic)."""
    return _PACED_BEFORE + b"%05d %020d" % (sequence, sent_ns) + _PACED_AFTER


def _stream(source: random.Random) -> bytes:
    words = ("".join(source.choices(_ALPHABET, k=source.randint(2, 9))) for _ in _positions())
    return b"".join(
        [
            role_event(),
            *(_event([_choice({"content": " " + word})]) for word in words),
            _event([_choice({}, "stop")]),
            _event([], usage=_usage(STREAM_TOKENS)),
            _http_chunk(b"data: [DONE]\n\n"),
            b"0\r\n\r\n",
        ]
    )


def _positions() -> range:
    return range(STREAM_TOKENS)


def _event(choices: list[dict[str, object]], **more: object) -> bytes:
    chunk = _encoded(_reply("chat.completion.chunk", choices, **more))
    return _http_chunk(b"data: %b\n\n" % chunk)


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _choice(delta: dict[str, str], reason: str | None = None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _reply(kind: str, choices: list[dict[str, object]], **more: object) -> dict[str, object]:
    return {
        "id": "chatcmpl-0123456789abcdef",
        "object": kind,
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": choices,
        **more,
    }


def _usage(completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": _PROMPT_TOKENS,
        "completion_tokens": completion_tokens,
        "total_tokens": _PROMPT_TOKENS + completion_tokens,
    }


def _encoded(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


_STAMP = b"00000 00000000000000000000"
_PACED_BEFORE, _PACED_AFTER = _event([_choice({"content": _STAMP.decode()})]).split(_STAMP)
