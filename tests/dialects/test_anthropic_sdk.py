"""The official anthropic package, 0.x and 2.x, reads what is written for it.

One run of `anthropic_sdk_script.py` per version over answers that the dialect made; each test
judges one of them by what a user's program saw.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cortexd.dialects.anthropic_errors import error_type, render_anthropic
from cortexd.dialects.anthropic_reply import message_reply, token_count
from cortexd.dialects.anthropic_stream import AnthropicStream
from cortexd.dialects.refusals import TABLE, Refusal, RefusalKind, code_of
from tests.support.chat_answers import USAGE, chunk, event

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("anthropic_sdk_script.py")
SECONDS_MAX = 60
IDS = {"request-id": "r-1", "x-request-id": "r-1"}
Answer = dict[str, object]
Met = Mapping[str, Mapping[str, Any]]

CALLS = [
    {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"q":'}},
    {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}},
    {"index": 0, "function": {"arguments": ' "x"}'}},
]
LATE_USAGE = event({"choices": [], "usage": USAGE})
SAID = chunk({"reasoning_content": "Hm."}) + chunk({"content": "Hé"}) + chunk({"content": "!"})
CALLED = b"".join(chunk({"tool_calls": [call]}) for call in CALLS)
STREAMS = {
    "whole": SAID + CALLED + chunk({}, finish="tool_calls") + LATE_USAGE,
    "empty": chunk({"role": "assistant", "content": ""}) + chunk({}, finish="stop"),
    "cut": b"".join(chunk({"content": "x"}) for _ in range(60)),
    "failing": SAID + b'data: {"error":{"message":"no memory"}}\n\n',
    "torn": SAID,
}
MESSAGE = {
    "content": "Hé!",
    "reasoning_content": "Hm.",
    "tool_calls": [
        {"id": "a", "function": {"name": "f", "arguments": '{"q": "x"}'}},
        {"id": "b", "function": {"name": "g", "arguments": ""}},
    ],
}
FINAL_KINDS = [kind for kind, row in TABLE.items() if row.retry.value == "never"]


def streamed(data: bytes) -> Answer:
    stream = AnthropicStream(model="m", request_id="r-1", output_tokens_max=50)
    body = stream.head() + stream.heartbeat() + stream.feed(data) + stream.close()
    headers = {**IDS, "content-type": "text/event-stream; charset=utf-8"}
    return {"status": 200, "headers": headers, "body": body.decode("latin-1")}


def replied(body: bytes) -> Answer:
    headers = {**IDS, "content-type": "application/json"}
    return {"status": 200, "headers": headers, "body": body.decode("latin-1")}


def refused(kind: RefusalKind) -> Answer:
    refusal = Refusal(kind, "It is so.", param="messages")
    rendered = render_anthropic(refusal, request_id="r-1", model="m")
    headers = {name.decode(): value.decode() for name, value in rendered.headers}
    return {"status": rendered.status, "headers": headers, "body": rendered.body.decode("latin-1")}


def answers() -> dict[str, Answer]:
    """Every answer under a name that ends in the way to ask for it."""
    choice = {"index": 0, "message": MESSAGE, "finish_reason": "tool_calls"}
    completion = json.dumps({"choices": [choice], "usage": USAGE}).encode()
    reply = message_reply(completion, model="m", request_id="r-1")
    assert reply is not None
    made = {"reply-plain": replied(reply.body)}
    made["count-counted"] = replied(token_count(bound_tokens=40))
    for name, data in STREAMS.items():
        made[f"{name}-raw"] = made[f"{name}-helped"] = streamed(data)
    for kind in FINAL_KINDS:
        made[f"{kind.value}-plain"] = refused(kind)
    return made


@pytest.fixture(scope="module", params=["anthropic0", "anthropic2"])
def met(request: pytest.FixtureRequest) -> Met:
    """What the script met with one version of the package: scenario -> facts."""
    package = ROOT / ".sdk" / request.param
    if not (package / ".ready").exists():
        fetch = f"make {package.relative_to(ROOT)}/.ready"
        pytest.skip(f"THE ANTHROPIC PACKAGE WAS NOT TESTED; fetch it with: {fetch}")
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        input=json.dumps(answers()).encode(),
        env={**os.environ, "PYTHONPATH": str(package)},
        stdout=subprocess.PIPE,
        timeout=SECONDS_MAX,
        check=True,
    )
    return {facts["scenario"]: facts for facts in map(json.loads, done.stdout.splitlines())}


def content_of(facts: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """The blocks of a message, without the fields that the package adds."""
    kept = ("type", "thinking", "text", "id", "name", "input")
    return [
        tuple(each[name] for name in kept if each.get(name) is not None)
        for each in facts["content"]
    ]


CONTENT = [
    ("thinking", "Hm."),
    ("text", "Hé!"),
    ("tool_use", "a", "f", {"q": "x"}),
    ("tool_use", "b", "g", {}),
]


@pytest.mark.parametrize("scenario", ["reply-plain", "whole-helped"])
def test_plain_and_streamed_answers_are_the_same_message(met: Met, scenario: str) -> None:
    facts = met[scenario]
    assert facts["raised"] is None
    assert content_of(facts) == CONTENT
    assert (facts["id"], facts["model"], facts["role"]) == ("msg_r-1", "m", "assistant")
    assert (facts["stop_reason"], facts["stop_sequence"]) == ("tool_use", None)
    usage = facts["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (26, 64)
    assert usage["output_tokens"] == 21


def test_a_program_that_reads_events_gets_all_but_pings(met: Met) -> None:
    events = [kind for kind in met["whole-raw"]["events"] if kind != "ping"]
    assert events[0] == "message_start"
    assert events[-2:] == ["message_delta", "message_stop"]
    assert events.count("content_block_start") == events.count("content_block_stop") == 4


def test_an_answer_of_nothing_is_an_empty_text(met: Met) -> None:
    assert content_of(met["empty-helped"]) == [("text", "")]
    assert met["empty-helped"]["stop_reason"] == "end_turn"


def test_an_answer_that_was_cut_says_so(met: Met) -> None:
    assert content_of(met["cut-helped"]) == [("text", 50 * "x")]
    assert met["cut-helped"]["stop_reason"] == "max_tokens"
    assert met["cut-helped"]["usage"]["output_tokens"] == 51


@pytest.mark.parametrize("scenario", ["failing-raw", "failing-helped", "torn-raw", "torn-helped"])
def test_a_broken_stream_raises_whichever_way_it_is_read(met: Met, scenario: str) -> None:
    facts = met[scenario]
    assert str(facts["raised"]).startswith("API") or facts["raised"] == "InternalServerError"
    assert facts["request_id"] == "r-1"
    assert facts["requests"] == 1
    wanted = "no memory" if scenario.startswith("failing") else "before the answer was complete"
    assert wanted in facts["message"]


def test_tokens_are_counted(met: Met) -> None:
    assert met["count-counted"]["input_tokens"] == 40


CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}


@pytest.mark.parametrize("kind", FINAL_KINDS)
def test_a_refusal_that_stays_is_raised_at_the_first_try(met: Met, kind: RefusalKind) -> None:
    facts, row = met[f"{kind.value}-plain"], TABLE[kind]
    assert facts["requests"] == 1
    assert (facts["status_code"], facts["request_id"]) == (row.status, "r-1")
    assert facts["raised"] == CLASSES.get(row.status, facts["raised"])
    assert facts["type"] == error_type(row)
    knows_codes = not facts["version"].startswith("0.")
    assert facts["error_code"] == (code_of(Refusal(kind, "")) if knows_codes else None)
    assert facts["message"].endswith("It is so.")
