"""What a streamed event costs on its way through a dialect: CPU time of the filter alone.

No socket and no task: bytes in, bytes out, so that one dialect can be told from the other. What
the rest of a stream costs stands in the sections on streams.
"""

import time
from collections.abc import Callable, Mapping

import msgspec

from cortexd.demo.chat_frames import ChatFrames, Told
from cortexd.demo.messages import MessageFrames
from cortexd.demo.responses import ResponseFrames
from cortexd.demo.writing import Frames
from cortexd.dialects.anthropic_native_stream import NativeStream
from cortexd.dialects.anthropic_stream import AnthropicStream
from cortexd.dialects.chat_stream import ChatStream
from cortexd.dialects.responses_stream import ResponsesStream
from cortexd.dialects.sse import Events
from cortexd.dialects.surface import Watcher
from tests.bench.ledger_section import pinned
from tests.bench.plan import Plan
from tests.bench.report import Section, Table, median, number, times
from tests.bench.stage import Stage

TOKENS = 2_000
WORD = "word and "
MODEL = "sim/small"
_END = b"\n"
_TOLD = Told(present=True, usage={"prompt_tokens": 9, "completion_tokens": TOKENS})
_MOST = TOKENS + 1


class Way(msgspec.Struct, frozen=True):
    """A dialect: what a neuron sends, and what reads it."""

    name: str
    frames: Frames
    watch: Callable[[], Watcher]


def _chat(model: str) -> Watcher:
    return ChatStream(include_usage=False, model=model, output_tokens_max=_MOST, choices=1)


WAYS = (
    Way("chat, as it is", ChatFrames("c", MODEL, 0), lambda: _chat(MODEL)),
    Way("chat, under an alias", ChatFrames("c", MODEL, 0), lambda: _chat("alias")),
    Way(
        "chat, told as messages",
        ChatFrames("c", MODEL, 0),
        lambda: AnthropicStream(model=MODEL, request_id="r", output_tokens_max=_MOST),
    ),
    Way(
        "messages, as they are",
        MessageFrames("m", MODEL, _END),
        lambda: NativeStream(model=MODEL, request_id="r", output_tokens_max=_MOST),
    ),
    Way(
        "responses, as they are",
        ResponseFrames("r", MODEL, 0, _END, is_numbered=True),
        lambda: ResponsesStream(model=MODEL, output_tokens_max=_MOST),
    ),
)


def measure(stage: Stage, plan: Plan) -> Section:
    """Microseconds per event in each dialect, beside cutting the stream into events."""
    rounds: dict[str, list[float]] = {way.name: [] for way in WAYS}
    cutting: list[float] = []
    streams = {way.name: _events(way.frames) for way in WAYS}
    with pinned():
        for _ in range(plan.rounds):
            cutting.append(_cut_us(streams[WAYS[0].name]))
            for way in WAYS:
                rounds[way.name].append(_filtered_us(way, streams[way.name]))
    costs = {name: median(found) for name, found in rounds.items()}
    return Section((_table(costs, median(cutting)),), _figures(costs))


def _table(costs: Mapping[str, float], cutting_us: float) -> Table:
    plain = costs[WAYS[0].name]
    rows = [("cut into events only", number(cutting_us), times(cutting_us / plain))]
    rows += [(name, number(cost), times(cost / plain)) for name, cost in costs.items()]
    return Table(
        "Streamed events through a dialect, CPU of the filter alone",
        ("", "us/event", "of chat"),
        tuple(rows),
        (
            f"Streams of {TOKENS} events, one event in one read as from a neuron that is slow.",
            "Each is parsed, counted, and passed on or told in another dialect.",
        ),
    )


def _figures(costs: Mapping[str, float]) -> dict[str, float]:
    names = ("chat", "alias", "translated", "native", "responses")
    return {f"{name}_us_per_event": cost for name, cost in zip(names, costs.values(), strict=True)}


def _events(frames: Frames) -> list[bytes]:
    """A whole stream, one piece for each event between its beginning and its end."""
    begin = frames.role()
    pieces = [frames.piece(WORD, thought=False) for _ in range(TOKENS)]
    return [begin, *pieces, frames.finish("stop", _TOLD), frames.usage(_TOLD), frames.done()]


def _filtered_us(way: Way, stream: list[bytes]) -> float:
    watcher = way.watch()
    began = time.process_time_ns()
    for piece in stream:
        watcher.feed(piece)
    watcher.close()
    spent_ns = time.process_time_ns() - began
    assert watcher.finished, watcher.failure
    assert watcher.failure is None
    assert watcher.seen.chunks == TOKENS
    return spent_ns / TOKENS / 1000


def _cut_us(stream: list[bytes]) -> float:
    events = Events()
    began = time.process_time_ns()
    for piece in stream:
        events.feed(piece)
    return (time.process_time_ns() - began) / TOKENS / 1000
