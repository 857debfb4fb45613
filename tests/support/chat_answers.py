"""Answers of neurons as chat streams, in all the ways in which engines write them.

`ANSWERS` is a strategy: an answer has blocks in order, calls whose pieces interleave, usage early,
late, twice or never, comments, and an end that is whole or broken. `Answer.stream` are its bytes,
the other fields what a client of it has to find out.
"""

import json
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import strategies as st

Json = dict[str, Any]

WORDS = st.text(min_size=1, max_size=5) | st.sampled_from(
    [" ", "\n\n", "中", "[DONE]", "data: x\n\n"]
)
GIVEN = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=4), max_size=3)
USAGE = {
    "prompt_tokens": 90,
    "completion_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 64},
}
ENDS = ["whole", "no done line", "no finish", "error", "garbage", "torn"]


class Answer(msgspec.Struct, frozen=True):
    """One answer.

    `blocks`: type and whole text of each, in the order in which they begin; the text of a call is
    its arguments. `finish`: the finish_reason, where one comes. `is_whole`: it does come.
    """

    stream: bytes
    blocks: list[tuple[str, str]]
    names: list[str]
    finish: str
    is_whole: bool
    has_usage: bool


def event(body: Json) -> bytes:
    """One chunk as an engine sends it."""
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "qwen"}
    return b"data: " + json.dumps({**head, **body}).encode() + b"\n\n"


def chunk(delta: Json, *, finish: str | None = None, **more: Any) -> bytes:
    """One chunk with a delta."""
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


@st.composite
def _said(draw: st.DrawFn) -> tuple[list[Json], list[tuple[str, str]]]:
    """Deltas of thinking and text, and the blocks that they make."""
    deltas: list[Json] = []
    blocks: list[tuple[str, str]] = []
    reasoning = draw(st.sampled_from(["reasoning_content", "reasoning"]))
    for kind, pieces in draw(
        st.lists(
            st.tuples(st.sampled_from(["thinking", "text"]), st.lists(WORDS, max_size=3)),
            max_size=3,
        )
    ):
        name = "content" if kind == "text" else reasoning
        deltas += [{name: piece} for piece in pieces]
        whole = "".join(pieces)
        if blocks and blocks[-1][0] == kind:
            blocks[-1] = (kind, blocks[-1][1] + whole)
        elif whole:
            blocks.append((kind, whole))
    return deltas, blocks


@st.composite
def _called(draw: st.DrawFn) -> tuple[list[Json], list[tuple[str, str]], list[str]]:
    """Deltas of parallel calls in any order that keeps each call's own."""
    queues: list[list[Json]] = []
    blocks: list[tuple[str, str]] = []
    names: list[str] = []
    for index, given in enumerate(draw(st.lists(GIVEN, max_size=3))):
        arguments = json.dumps(given)
        cuts = sorted(draw(st.lists(st.integers(0, len(arguments)), max_size=3)))
        marks = [0, *cuts, len(arguments)]
        pieces = [arguments[a:b] for a, b in pairwise(marks)]
        names.append(draw(st.sampled_from(["f", "g"])))
        first = {"name": names[-1], "arguments": pieces[0]}
        head = {"index": index, "id": f"call_{index}", "type": "function", "function": first}
        rest = [{"index": index, "function": {"arguments": piece}} for piece in pieces[1:]]
        queues.append([head, *rest])
        blocks.append(("tool_use", arguments))
    return _merged(draw, queues), blocks, names


def _merged(draw: st.DrawFn, queues: list[list[Json]]) -> list[Json]:
    """One piece after the other; a call begins only after those of lower index have begun."""
    deltas: list[Json] = []
    begun = 0
    while any(queues):
        ready = [i for i, queue in enumerate(queues) if queue and i <= begun]
        index = draw(st.sampled_from(ready))
        begun = max(begun, index + 1)
        deltas.append({"tool_calls": [queues[index].pop(0)]})
    return deltas


@st.composite
def _answers(draw: st.DrawFn) -> Answer:
    said, blocks = draw(_said())
    called, uses, names = draw(_called())
    usage = draw(st.sampled_from(["early", "late", "with the end", "never"]))
    finish = draw(st.sampled_from(["stop", "length"]))
    end = draw(st.sampled_from(ENDS))
    running: Json = {"usage": USAGE} if usage == "early" else {}
    pieces = [chunk({"role": "assistant", "content": ""})]
    for delta in said + called:
        if draw(st.integers(0, 9)) == 0:
            pieces.append(b": alive\n\n")
        pieces.append(chunk(delta, **running))
    if end in ("whole", "no done line"):
        told: Json = {"usage": USAGE} if usage == "with the end" else running
        pieces.append(chunk({}, finish=finish, **told))
        if usage == "late":
            pieces.append(event({"choices": [], "usage": USAGE}))
    tails = {"whole": b"data: [DONE]\n\n", "error": b'data: {"error":{"message":"no memory"}}\n\n'}
    tails |= {"garbage": b"data: <html>\n\n", "torn": chunk({"content": "half"})[:40]}
    is_whole = end in ("whole", "no done line")
    return Answer(
        stream=b"".join(pieces) + tails.get(end, b""),
        blocks=[*blocks, *uses],
        names=names,
        finish=finish,
        is_whole=is_whole,
        has_usage=is_whole and usage != "never",
    )


ANSWERS = _answers()
